"""Few-shot runs of every method found, by data set and shots, and their average over data sets.

What is found is of one backbone, the first part of CFG: rn50 for rn50_ep100_ctxv1.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..experiments import DATASETS, FEW_SHOTS, zero_shot
from ..found import Method, choose_epochs, few_shot_runs
from ..identity import checked
from ..runs import END_OF_TEST, parse_run, seed_folders
from ..statistics import spread_of_averages, summarise, warnings_of

Seeds = dict[str, float]  # accuracies in percent, by the names of the runs' folders
Line = dict[int, tuple[float, float]]  # shots -> mean and population standard deviation in percent


@dataclass
class Curves:
    """The runs of one backbone.

    Attributes:
        backbone: As in the names of configs, such as rn50.
        shots: The numbers of shots that a complete curve has.
        points: Data set -> method -> shots -> its seeds.
        zero_shot: Data set -> accuracy of zero-shot CLIP in percent.
        notes: A line for each thing that is left out or uneven.
    """

    backbone: str
    shots: tuple[int, ...] = FEW_SHOTS
    points: dict[str, dict[Method, dict[int, Seeds]]] = field(default_factory=dict)
    zero_shot: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def methods(self) -> list[Method]:
        """Every method that has a point, in the order of a legend."""
        return sorted({method for lines in self.points.values() for method in lines}, key=lambda method: method.rank)

    @property
    def datasets(self) -> list[str]:
        """Every data set that has a point, the papers' first and in their order."""
        order = list(DATASETS)
        return sorted(self.points, key=lambda name: (order.index(name) if name in DATASETS else len(order), name))


def find_curves(
    output: Path,
    *,
    backbone: str = "",
    datasets: Sequence[str] = (),
    shots: Sequence[int] = FEW_SHOTS,
    folders: Collection[str] = (),
) -> Curves:
    """Reads every finished few-shot run below a folder.

    Where one point was trained for several numbers of epochs, the papers' number counts, else the largest.

    Args:
        output: The folder of all runs.
        backbone: Its name in configs; "": the one of most experiments.
        datasets: Names of data sets' folders; none: all there are.
        shots: Which numbers of shots to read.
        folders: Which folders of seeds below the output folder to read; none: all there are.
    """
    found = [e for e in few_shot_runs(output) if e.shots in shots and (not datasets or e.dataset in datasets)]
    found = [e for e in found if not folders or e.folder.relative_to(output).as_posix() in folders]
    counts = Counter(experiment.backbone for experiment in found).most_common()
    curves = Curves(backbone or (counts[0][0] if counts else ""), tuple(sorted(set(shots))))
    for other, n_experiments in counts:
        if other != curves.backbone:
            curves.notes.append(f"{other} is another backbone, its experiments ({n_experiments}) are left out")
    for experiment in choose_epochs([e for e in found if e.backbone == curves.backbone]):
        curves.notes += experiment.left_out
        runs = [checked(parse_run(run), experiment.expected) for run in seed_folders(experiment.folder)]
        curves.notes += [f"{run.folder} is left out: {run.problem}" for run in runs if run.value is None]
        finished = [run for run in runs if run.value is not None]
        curves.notes += [f"{experiment.folder}: {warning.rstrip('.')}" for warning in warnings_of(finished)]
        seeds = {run.folder.name: run.value for run in finished}
        if seeds:
            of_dataset = curves.points.setdefault(experiment.dataset, {})
            of_dataset.setdefault(experiment.method, {})[experiment.shots] = seeds
    _find_zero_shot(output, curves)
    _note_uneven_seeds(curves)
    return curves


def dataset_lines(curves: Curves, dataset: str) -> dict[Method, Line]:
    """Returns the line of each method on one data set."""
    of_dataset = curves.points[dataset]
    return {
        method: {shots: summarise(list(seeds.values())) for shots, seeds in sorted(of_dataset[method].items())}
        for method in curves.methods
        if method in of_dataset
    }


def average_lines(curves: Curves) -> tuple[list[str], dict[Method, Line]]:
    """Averages over the data sets on which all methods are complete, so that the lines compare.

    A method that is complete on no data set has no line. A point is the mean of the data sets' means; its spread is
    that of the averages of single seeds, none unless all of these data sets have the same ones.

    Returns:
        The data sets, and the line of each method.
    """
    complete = {
        method: {name for name, lines in curves.points.items() if set(curves.shots) <= set(lines.get(method, ()))}
        for method in curves.methods
    }
    complete = {method: names for method, names in complete.items() if names}
    names = sorted(set.intersection(*complete.values())) if complete else []
    lines = {
        method: {shots: _average([curves.points[name][method][shots] for name in names]) for shots in curves.shots}
        for method in complete
        if names
    }
    return names, lines


def _average(datasets: list[Seeds]) -> tuple[float, float]:
    mean = statistics.fmean(statistics.fmean(seeds.values()) for seeds in datasets)
    return mean, spread_of_averages(datasets) or 0.0


def _find_zero_shot(output: Path, curves: Curves) -> None:
    for name in curves.datasets:
        experiment = zero_shot(name, curves.backbone)
        run = checked(parse_run(output / experiment.folder, end_signal=END_OF_TEST), experiment.expected)
        if run.value is None:
            curves.notes.append(f"{run.folder} is missing in the curves: {run.problem}")
        else:
            curves.zero_shot[name] = run.value


def _note_uneven_seeds(curves: Curves) -> None:
    sizes = {
        (name, method, shots): len(seeds)
        for name in curves.datasets
        for method, points in curves.points[name].items()
        for shots, seeds in points.items()
    }
    usual = max(sizes.values(), default=0)
    for (name, method, shots), n_seeds in sizes.items():
        if n_seeds < usual:
            where = f"{name}, {method.label}, {shots}-shot"
            curves.notes.append(f"{where}: the mean is over fewer seeds than elsewhere ({n_seeds} of {usual})")
