"""Paired comparisons of the methods of a table with one of them, over data sets, the seeds of each averaged first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import fmean

from engine.registry import near_name

from ..statistics import holm, signed_rank
from .cells import range_of_seeds
from .table import Comparison, Filled, FilledTable

Cells = dict[str, Filled]  # of a method under a heading, by data set


def methods_of(filled: FilledTable) -> list[str]:
    """Returns the methods of a table that have a result on a data set, as they can be a baseline."""
    return list(dict.fromkeys(subject.method for subject, cell in filled.subjects if cell.value.value is not None))


def compared_with(baseline: str, tables: Sequence[FilledTable]) -> list[FilledTable]:
    """Returns tables with the comparisons of all their methods with one of them; there are none where it is not.

    Raises:
        KeyError: No table has the baseline; the message lists the methods that there are.
    """
    methods = list(dict.fromkeys(method for filled in tables for method in methods_of(filled)))
    if baseline not in methods:
        near = near_name(baseline, methods)
        raise KeyError(f"--baseline is {baseline!r}; the methods here are {', '.join(methods) or 'none'}.{near}")
    return [
        replace(filled, baseline=baseline, comparisons=tuple(compare(filled, baseline)))
        if baseline in methods_of(filled)
        else filled
        for filled in tables
    ]


def compare(filled: FilledTable, baseline: str) -> list[Comparison]:
    """Returns the comparisons of all other methods of a table with one of them, heading by heading."""
    cells: dict[str, dict[str, Cells]] = {}  # method -> measure -> its cells
    for subject, cell in filled.subjects:
        cells.setdefault(subject.method, {}).setdefault(subject.measure, {})[subject.dataset] = cell
    measures = list(dict.fromkeys(subject.measure for subject, _ in filled.subjects))
    found = [
        _compared(method, measure, ours, theirs)
        for measure in measures
        for method in cells
        if method != baseline
        and (measure in cells[method] or measure in cells[baseline])
        and (ours := _under(measure, cells[method])) is not None
        and (theirs := _under(measure, cells[baseline])) is not None
    ]
    of_measure = groupby(filter(None, found), key=lambda comparison: comparison.measure)
    return [comparison for _, family in of_measure for comparison in _corrected(list(family))]


def is_transfer(cell: Filled) -> bool:
    """Whether an accuracy is on another data set than the one that was learned on."""
    expected = [run.expected for run in cell.cell.experiments()]
    return any(entries.get("source") not in (None, entries.get("dataset")) for entries in expected)


def _under(measure: str, cells: Mapping[str, Cells]) -> Cells | None:
    """Returns a method's cells under a heading, or its only ones: zero-shot CLIP has one number for all shots."""
    [first, *others] = cells.values()
    is_drawn = any(run.seeded for cell in first.values() for run in cell.cell.experiments())
    return cells.get(measure, None if others or is_drawn else first)


def _compared(method: str, measure: str, ours: Cells, theirs: Cells) -> Comparison | None:
    # Where other data sets than that of the training are tested, that one is another question.
    transfers = any(map(is_transfer, (*ours.values(), *theirs.values())))
    planned = [
        name for name, cell in theirs.items() if not transfers or is_transfer(cell) or is_transfer(ours.get(name, cell))
    ]
    planned_pairs = [(ours[name], theirs[name]) for name in planned if name in ours]
    pairs = [pair for pair in planned_pairs if None not in (cell.value.value for cell in pair)]
    if not pairs:
        return None
    differences = [one.value.value - other.value.value for one, other in pairs]
    cells = [cell for pair in pairs for cell in pair]
    n_seeds = range_of_seeds(cell.value for cell in cells)
    labels = tuple(sorted({label for cell in cells for label in cell.labels}))
    counts = len(pairs), len(planned)
    return Comparison(method, measure, fmean(differences), *counts, n_seeds, signed_rank(differences), labels)


def _corrected(family: Sequence[Comparison]) -> list[Comparison]:
    tested = [comparison for comparison in family if comparison.p is not None]
    p_values = dict(zip((comparison.method for comparison in tested), holm([comparison.p for comparison in tested])))
    return [replace(comparison, corrected=p_values.get(comparison.method)) for comparison in family]
