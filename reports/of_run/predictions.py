"""What a test answered for each image: predictions.csv of a run's folder, and the counts that are made of it."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from heapq import nlargest
from pathlib import Path
from typing import NamedTuple

from engine.evaluation.measures import N_BINS
from engine.run.names import PREDICTION_COLUMNS, PREDICTIONS
from engine.text import printable


class Prediction(NamedTuple):
    """An image that was tested on.

    Attributes:
        path: Under DATASET.ROOT, or absolute.
        true, prediction, second: Names of classes; the second is "" where there is one class.
        probability, second_probability: In 0 ... 1.
        rank: Of the true class among the probabilities, from 1.
    """

    path: str
    true: str
    prediction: str
    probability: float
    second: str
    second_probability: float
    rank: int

    @property
    def is_right(self) -> bool:
        return self.prediction == self.true


class ClassResult(NamedTuple):
    """A class's images: how many, how many of them right, and the class that most of the others were taken for."""

    name: str
    n_images: int
    n_right: int
    mistaken_for: str
    n_mistaken: int

    @property
    def accuracy(self) -> float:
        return 100 * self.n_right / self.n_images


class Bin(NamedTuple):
    """The images whose probability lies in (low, high]; the means, in 0 ... 1, are NaN where there is none."""

    low: float
    high: float
    n_images: int
    probability: float
    accuracy: float


def read_predictions(folder: Path) -> list[Prediction] | None:
    """Returns what the run in `folder` answered, in the order of its test; None where it has not left it.

    Raises:
        ValueError: The file is not what a test writes, or not all of it.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        return None
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = csv.reader(file)
        try:
            if (header := tuple(next(lines, ()))) != PREDICTION_COLUMNS:
                raise ValueError(
                    f"the columns are {printable(','.join(header))}, expected {','.join(PREDICTION_COLUMNS)}"
                )
            return [_prediction(line) for line in lines]
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path}, line {lines.line_num}: {error}. Delete the file and test again.") from error


def _prediction(cells: list[str]) -> Prediction:
    if len(cells) != len(PREDICTION_COLUMNS):
        raise ValueError(
            f"there are {len(cells)} values, expected {len(PREDICTION_COLUMNS)}: perhaps the file is cut short"
        )
    path, true, prediction, probability, second, second_probability, rank = cells
    if not (rank.isdecimal() and 0 < len(rank) < 10 and int(rank)):
        raise ValueError(f"the rank is {printable(rank)}, expected a number from 1")
    return Prediction(
        *(path, true, prediction, _probability(probability)),
        *(second, _probability(second_probability) if second else 0.0, int(rank)),
    )


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # nor is it NaN
        raise ValueError(f"a probability is {printable(text)}, expected 0 to 1")
    return value


def by_class(predictions: Sequence[Prediction]) -> list[ClassResult]:
    """Returns the classes that have images, the worst first, then those with more images."""
    counts = Counter(item.true for item in predictions)
    right = Counter(item.true for item in predictions if item.is_right)
    mistaken: dict[str, tuple[str, int]] = {}
    for true, prediction, n, _ in confused_pairs(predictions):
        mistaken.setdefault(true, (prediction, n))  # the most frequent comes first
    results = [ClassResult(name, n, right[name], *mistaken.get(name, ("", 0))) for name, n in counts.items()]
    return sorted(results, key=lambda result: (result.accuracy, -result.n_images, result.name))


def confusion_counts(predictions: Sequence[Prediction]) -> Counter[tuple[str, str]]:
    """Returns the number of images of each (true class, predicted class) that occurs."""
    return Counter((item.true, item.prediction) for item in predictions)


def confused_pairs(predictions: Sequence[Prediction]) -> list[tuple[str, str, int, int]]:
    """Returns true class, predicted class, number of such mistakes and of images of the true class; most first."""
    n_images = Counter(item.true for item in predictions)
    pairs = [(*pair, n, n_images[pair[0]]) for pair, n in confusion_counts(predictions).items() if len({*pair}) == 2]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[3], pair[:2]))


def calibration(predictions: Sequence[Prediction], n_bins: int = N_BINS) -> list[Bin]:
    """Returns bins of equal width, over the probability of the predicted class."""
    inside: list[list[Prediction]] = [[] for _ in range(n_bins)]
    for item in predictions:
        inside[max(math.ceil(item.probability * n_bins) - 1, 0)].append(item)
    return [
        Bin(
            *(i / n_bins, (i + 1) / n_bins, len(items)),
            sum(item.probability for item in items) / len(items) if items else math.nan,
            sum(item.is_right for item in items) / len(items) if items else math.nan,
        )
        for i, items in enumerate(inside)
    ]


def surest_mistakes(predictions: Sequence[Prediction], n: int) -> list[Prediction]:
    """Returns the n wrong answers of the highest probability."""
    return nlargest(n, (item for item in predictions if not item.is_right), key=lambda item: item.probability)


def least_certain(predictions: Sequence[Prediction], n: int) -> list[Prediction]:
    """Returns the n images whose two best classes are closest in probability."""
    return nlargest(n, predictions, key=lambda item: item.second_probability - item.probability)
