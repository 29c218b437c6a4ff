"""Files of a test, image by image: predictions.csv, and logits.npz with all logits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..files import write_atomically, write_csv
from ..run.names import PREDICTION_COLUMNS
from .answers import Answers


def write_predictions(path: Path, answers: Answers, images: Sequence[str], lab2cname: Mapping[int, str]) -> None:
    """Writes a row for each image, in the order of the test.

    Args:
        path: The CSV file. Its columns are PREDICTION_COLUMNS: classes by name, probabilities with 6 digits, the rank
            of the true class from 1. The second class and its probability are empty where there is one class.
        answers: Of N images.
        images: Their paths.
        lab2cname: The class name of every label; an output of the model beyond them is called "output I".
    """
    write_csv(path, [PREDICTION_COLUMNS, *_rows(answers, images, lab2cname)])


def _rows(answers: Answers, images: Sequence[str], lab2cname: Mapping[int, str]):
    columns = (column.tolist() for column in answers[:6])
    for image, label, best, p, second, second_p, rank in zip(images, *columns, strict=True):
        names = [lab2cname.get(i, f"output {i}") for i in (label, best, second)]
        runner_up = ("", "") if second < 0 else (names[2], f"{second_p:.6f}")
        yield image, names[0], names[1], f"{p:.6f}", *runner_up, rank


def write_logits(path: Path, answers: Answers, images: Sequence[str]) -> None:
    """Writes `logits` (N, C) float32, `labels` (N,) int64 and `paths` (N,), in the order of the test."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:  # numpy adds a suffix to a name
            np.savez(stream, logits=answers.logits, labels=answers.labels, paths=np.array(images, dtype=np.str_))

    write_atomically(path, write)


def path_under(root: str, path: str) -> str:
    """Returns a path relative to the folder `root`, with slashes; absolute where it lies elsewhere or root is ""."""
    path = Path(os.path.abspath(path))
    folder = Path(os.path.abspath(os.path.expanduser(root)))
    return (path.relative_to(folder) if root and path.is_relative_to(folder) else path).as_posix()
