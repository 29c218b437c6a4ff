"""The table of a sweep: numbers of shots x seeds, and for each number of shots the mean over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from ..statistics import summarise

Cells = Mapping[tuple[int, int], float | str]  # by shots and seed: accuracy in percent, or a word


def sweep_table(cells: Cells, shots: Sequence[int], seeds: Sequence[int]) -> str:
    """Returns the table as text, with means and population standard deviations of the accuracies there are."""
    header = ["shots", *(f"seed {seed}" for seed in seeds), "mean +- std"]
    rows = []
    for number in shots:
        line = [cells.get((number, seed), "") for seed in seeds]
        texts = [f"{cell:.2f}" if isinstance(cell, float) else cell for cell in line]
        rows.append([str(number), *texts, _summary(line)])
    return tabulate(rows, header, disable_numparse=True, stralign="right")


def _summary(line: Sequence[float | str]) -> str:
    values = [cell for cell in line if isinstance(cell, float)]
    if not values:
        return ""
    mean, std = summarise(values)
    marks = f" ({len(values)} of {len(line)} seeds)" if len(values) < len(line) else ""
    return f"{mean:.2f} +- {std:.2f}{marks}"
