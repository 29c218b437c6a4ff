"""The cells of a table: each says which experiments it rests on, measures its value, and knows the paper's."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.text import printable

from ..experiments import Experiment
from ..identity import checked, mismatch
from ..runs import COSTS, END_OF_TEST, END_OF_TRAINING, Run, parse_run, seed_folders
from ..statistics import spread_of_averages, summarise, warnings_of

N_PARAMS = "n_params"  # key of results.json
FEW_SHOT_RULES = {"none", "few-shot validation"}  # of `selection` in results.json, by which a few-shot run may choose


@dataclass(frozen=True)
class Value:
    """What was measured for a cell.

    Args:
        value: Percent, a count, or words; None where it is missing.
        std: Population standard deviation over the seeds; None unless there are two or more.
        n_seeds: Fewest and most seeds of the results behind it; None where nothing is drawn.
        by_seed: The result of each seed, by the name of its run's folder; empty for what is worked out from results.
        parts: For an average, which of the averaged values there are.
        problems: Why runs were not counted.
        warnings: Sentences on what makes it doubtful.
        runs: Those behind it; empty for words and for numbers of parameters.
    """

    value: float | int | str | None = None
    std: float | None = None
    n_seeds: tuple[int, int] | None = None
    by_seed: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[bool, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether it is an average with values missing."""
        return not all(self.parts)

    @property
    def labels(self) -> tuple[str, ...]:
        """What a run behind it departs by from the few-shot protocol: rules of selection, and settings."""
        rules = {rule for run in self.runs for rule in run.selection.values()} - FEW_SHOT_RULES
        return tuple(sorted(rules | {label for run in self.runs for label in run.setting}))


@dataclass(frozen=True)
class Result:
    """The mean of a result of an experiment over its seeds.

    Args:
        experiment: What it rests on.
        paper: The published number.
        keyword: The result, as it stands in log.txt.
        left_out: Which other runs could stand there.
        paper_labels: As `Value.labels`, of the published number.
    """

    experiment: Experiment
    paper: float | None = None
    keyword: str = "accuracy"
    left_out: tuple[str, ...] = ()
    paper_labels: tuple[str, ...] = ()

    @property
    def is_accuracy(self) -> bool:
        """Whether it measures how good a method is, and not what it costs."""
        return self.keyword not in (*COSTS, N_PARAMS)

    def experiments(self) -> Iterator[Experiment]:
        yield self.experiment

    def measure(self, output: Path) -> Value:
        end_signal = END_OF_TEST if self.experiment.tests_only else END_OF_TRAINING
        runs = [
            checked(parse_run(folder, keyword=self.keyword, end_signal=end_signal), self.experiment.expected)
            for folder in run_folders(self.experiment, output)
        ]
        counted = tuple(run for run in runs if run.value is not None)
        found = {run.folder.name: run.value for run in counted}
        problems = tuple(f"{run.folder.relative_to(output)}: {run.problem}" for run in runs if run.value is None)
        problems += self.left_out
        if not found:
            return Value(problems=problems)
        mean, std = summarise(list(found.values()))
        said = {
            "warnings": tuple(f"{self.experiment.folder}: {warning}" for warning in warnings_of(counted)),
            "runs": counted,
        }
        if not self.experiment.seeded:
            return Value(mean, **said)
        n_seeds = len(found), len(found)
        return Value(mean, std if len(found) > 1 else None, n_seeds, found, problems=problems, **said)


@dataclass(frozen=True)
class Parameters(Result):
    """The number of parameters that an experiment trains. A log does not say it, and the run counts all the same."""

    keyword: str = N_PARAMS

    def measure(self, output: Path) -> Value:
        measured = super().measure(output)
        count = None if measured.value is None else round(measured.value)
        return Value(count, n_seeds=measured.n_seeds)


@dataclass(frozen=True)
class Cost(Result):
    """What an experiment cost: the mean over its seeds of one of COSTS, seconds or GB, without a spread.

    A log does not say it, a test has no `training_s`, a processor no `peak_gpu_memory_gb`: then it is missing, and the
    run's accuracy counts all the same.
    """

    keyword: str = "training_s"

    def measure(self, output: Path) -> Value:
        measured = super().measure(output)
        return Value(measured.value, n_seeds=measured.n_seeds, runs=measured.runs)


@dataclass(frozen=True)
class PeakMemory(Result):
    """The most memory in GB that an experiment held: the GPU's where it ran on one, else the process's.

    Runs of earlier versions have the largest of all runs that their process had done.
    """

    keyword: str = "peak_gpu_memory_gb"

    def measure(self, output: Path) -> Value:
        on_gpu = Cost(self.experiment, keyword=self.keyword).measure(output)
        return Cost(self.experiment, keyword="peak_memory_gb").measure(output) if on_gpu.value is None else on_gpu


@dataclass(frozen=True)
class Average:
    """The mean over data sets; where values are missing it is one over fewer, and says so.

    Its spread is that of the averages of single seeds. There is none unless all data sets have the same seeds, and none
    of the data sets' H, which have no spread. The average of H is not the H of the averages: up to a point apart.
    """

    cells: tuple[Result | HarmonicMean, ...]
    paper: float | None = None
    paper_labels: tuple[str, ...] = ()

    @property
    def is_accuracy(self) -> bool:
        """As the cells averaged."""
        return self.cells[0].is_accuracy

    def experiments(self) -> Iterator[Experiment]:
        for cell in self.cells:
            yield from cell.experiments()

    def measure(self, output: Path) -> Value:
        measured = [cell.measure(output) for cell in self.cells]
        found = [each.value for each in measured if each.value is not None]
        if not found:
            return Value()  # the cells averaged are in the table themselves, and so are their problems
        parts = tuple(each.value is not None for each in measured)
        std = spread_of_averages([each.by_seed for each in measured])
        mean = statistics.fmean(found)
        return Value(
            round(mean) if isinstance(found[0], int) else mean,
            std,
            range_of_seeds(measured),
            parts=parts,
            warnings=tuple(warning for each in measured for warning in each.warnings),
            runs=tuple(run for each in measured for run in each.runs),
        )


Mean = Result | Average


@dataclass(frozen=True)
class HarmonicMean:
    """2 b n / (b + n) of a base and a new accuracy that are means already: over seeds, or over seeds and data sets."""

    base: Mean
    new: Mean
    paper: float | None = None
    paper_labels: tuple[str, ...] = ()

    is_accuracy = True

    def experiments(self) -> Iterator[Experiment]:
        yield from self.base.experiments()
        yield from self.new.experiments()

    def measure(self, output: Path) -> Value:
        base, new = self.base.measure(output), self.new.measure(output)
        if base.value is None or new.value is None:
            return Value()
        if base.parts != new.parts:
            return Value(problems=("H of an average: base and new are there for different data sets",))
        both = base.value + new.value
        harmonic_mean = 2 * base.value * new.value / both if both else 0.0
        return Value(harmonic_mean, n_seeds=range_of_seeds([base, new]), parts=base.parts, runs=(*base.runs, *new.runs))


@dataclass(frozen=True)
class NearestWord:
    """The word nearest to a context vector, and its distance, as interpret_prompt.py wrote it for the first seed."""

    experiment: Experiment
    vector: int  # from 1
    paper: str | None = None

    is_accuracy, paper_labels = False, ()

    def experiments(self) -> Iterator[Experiment]:
        yield self.experiment

    def measure(self, output: Path) -> Value:
        paths = [folder / "nearest_words.json" for folder in run_folders(self.experiment, output)]
        found = {path: mismatch(parse_run(path.parent), self.experiment.expected) for path in paths if path.is_file()}
        problems = tuple(f"{path.parent.relative_to(output)}: {problem}" for path, problem in found.items() if problem)
        path = next((path for path, problem in found.items() if not problem), None)
        if path is None:
            return Value(problems=problems)
        try:
            vectors = json.loads(path.read_text(encoding="utf-8"))["vectors"]
            nearest = {entry["vector"]: entry["words"] for entry in vectors}[self.vector][0]
            text = word_text(nearest["word"], nearest["distance"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:  # the last: lists in lists
            problem = f"no nearest word of vector {self.vector} ({type(error).__name__}: {error})"
            return Value(problems=(*problems, printable(f"{path.relative_to(output)}: {problem}")))
        return Value(text, problems=problems)


Cell = Mean | HarmonicMean | NearestWord


def run_folders(experiment: Experiment, output: Path) -> list[Path]:
    """Returns the folders of an experiment's runs, seed2 before seed10."""
    folder = output / experiment.folder
    if experiment.seeded:
        return seed_folders(folder)
    return [folder] if folder.is_dir() else []


def word_text(word: str, distance: float) -> str:
    """Returns a word and its distance as a cell shows them."""
    return f"{printable(str(word))} ({distance:.4f})"


def range_of_seeds(values: Iterable[Value]) -> tuple[int, int] | None:
    """Returns the fewest and the most seeds behind some values; None where nothing is drawn."""
    counts = [count for value in values if value.n_seeds for count in value.n_seeds]
    return (min(counts), max(counts)) if counts else None
