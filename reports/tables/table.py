"""A table as it is planned, and filled in with what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, groupby
from pathlib import Path

from ..experiments import DATASETS, NAMES, PAPERS_TRAINERS, TRAINERS, Experiment
from ..statistics import half_interval
from .cells import Cell, Value, range_of_seeds

MOST_BESIDE = 4  # columns of a table that is not wide
HEADINGS = {*NAMES.values(), *DATASETS.values()}  # of data sets


@dataclass(frozen=True)
class Row:
    """A line of a table: its label, a cell for each column (None: nothing belongs there), the heading above it."""

    label: str
    cells: tuple[Cell | None, ...]
    group: str = ""

    @property
    def name(self) -> str:
        """The label behind the heading."""
        return f"{self.group}, {self.label}" if self.group else self.label


@dataclass(frozen=True)
class Table:
    """A table or a figure of a paper, or of the miniature.

    Args:
        name: What it is called on the command line.
        group: `own`, or one of GROUPS in catalogue.py.
        title: Where it stands in the paper and what it shows.
        columns: Their headings.
        rows: Each with a cell for each column.
        note: What a reader has to know; sentences.
    """

    name: str
    group: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def is_miniature(self) -> bool:
        """Whether it is about drawn images, which no number of a paper compares with."""
        return self.group.startswith("shapes")

    @property
    def is_own(self) -> bool:
        """Whether it is about methods or data sets that no paper has."""
        return self.group == "own"

    @property
    def n_labels(self) -> int:
        """How many columns say what a row is: its label, and its heading where rows have one."""
        return 1 + any(row.group for row in self.rows)

    @property
    def methods_are_columns(self) -> bool:
        """Whether each row is a data set, so that the columns are methods; else the rows are."""
        return all(row.label in HEADINGS or row.label.startswith("Average") for row in self.rows)

    @cached_property
    def experiments(self) -> list[Experiment]:
        """All that it needs, each once."""
        cells = (cell for row in self.rows for cell in row.cells if cell)
        return list(dict.fromkeys(experiment for cell in cells for experiment in cell.experiments()))


@dataclass(frozen=True)
class Filled:
    """A planned cell with what was measured for it."""

    row: Row
    column: str
    cell: Cell
    value: Value

    @property
    def labels(self) -> tuple[str, ...]:
        """What an accuracy departs by from the few-shot protocol; see `Value`."""
        return self.value.labels if self.cell.is_accuracy else ()

    @property
    def is_papers(self) -> bool:
        """Whether its method is one of the papers'."""
        return all(run.expected.get("trainer", "CoOp") in TRAINERS for run in self.cell.experiments())

    @property
    def difference(self) -> float | None:
        """Measured minus paper, as printed: in percentage points of two decimals; None where they do not compare."""
        value, paper = self.value.value, self.cell.paper
        if paper is None or value is None or isinstance(paper, str) or self.value.is_partial:
            return None
        return round(round(value, 2) - paper, 2) + 0.0  # + 0.0: no negative zero


@dataclass(frozen=True)
class Subject:
    """What an accuracy is of, as a table calls it; the measure is the heading that is neither method nor data set."""

    method: str
    dataset: str
    measure: str


@dataclass(frozen=True)
class Comparison:
    """A method against the baseline of a table; comparisons.py makes them.

    Args:
        method: As the table calls it.
        measure: The heading under which both stand, such as "H".
        difference: Method minus baseline, the mean over data sets in points.
        n_datasets: So many data sets have a result of both.
        n_planned: So many have, or should have, one of the baseline.
        n_seeds: Fewest and most seeds behind it; None where nothing is drawn.
        p: Two-sided, of Wilcoxon's signed-rank test; None where the data sets are too few for one.
        labels: As of the accuracies behind it; see `Filled.labels`.
        corrected: By Holm, over the methods under this heading.
    """

    method: str
    measure: str
    difference: float
    n_datasets: int
    n_planned: int
    n_seeds: tuple[int, int] | None
    p: float | None
    labels: tuple[str, ...]
    corrected: float | None = None


@dataclass(frozen=True)
class FilledTable:
    """A table with a Filled, or None where nothing belongs, for each row and column.

    Args:
        table: As it is planned.
        lines: For each row a Filled, or None, for each column.
        with_interval: Whether 95 % intervals stand beside the standard deviations.
        baseline: The method with which all others are compared; "": none.
        comparisons: Of each other method with it, heading by heading.
    """

    table: Table
    lines: tuple[tuple[Filled | None, ...], ...]
    with_interval: bool = False
    baseline: str = ""
    comparisons: tuple[Comparison, ...] = ()

    def cells(self) -> Iterator[Filled]:
        """Every cell, line by line."""
        return (cell for line in self.lines for cell in line if cell)

    @cached_property
    def subjects(self) -> list[tuple[Subject, Filled]]:
        """Each accuracy with what it is of; averages over data sets are not there."""
        found = []
        for line in self.lines:
            of_one = [(cell, *names) for cell in line if cell and len(names := _datasets(cell)) == 1]
            is_across = len({dataset for _, dataset in of_one}) > 1  # each column is a data set
            for cell, dataset in of_one:
                row, column = cell.row, cell.column
                if self.table.methods_are_columns:
                    subject = Subject(column, row.label, row.group)
                elif is_across:
                    subject = Subject(row.label, column, row.group)
                else:
                    subject = Subject(row.label, row.group or dataset, column)
                found.append((subject, cell))
        return found

    def interval(self, cell: Filled) -> tuple[float, float] | None:
        """Returns the 95 % interval of a mean over seeds; None where there is none, or none is asked for."""
        value, std = cell.value.value, cell.value.std
        if not self.with_interval or std is None:
            return None
        half = half_interval(std, cell.value.n_seeds[0])  # one number: what has a spread has the same seeds everywhere
        return value - half, value + half

    @property
    def n_found(self) -> int:
        """How many cells have a value."""
        return sum(cell.value.value is not None for cell in self.cells())

    @property
    def only_repeats(self) -> bool:
        """Whether it compares methods and has results of those alone that the papers' tables show."""
        found = (run for cell in self.cells() if _has_value(cell) for run in cell.cell.experiments())
        return "methods" in self.table.group and all(run.expected.get("trainer") in PAPERS_TRAINERS for run in found)

    @property
    def n_planned(self) -> tuple[int, int]:
        """How many cells have a value and how many should, without those of own methods beside the papers'."""
        planned = [cell for cell in self.cells() if self.table.is_own or cell.is_papers]
        return sum(_has_value(cell) for cell in planned), len(planned)

    @property
    def papers_beside(self) -> tuple[bool, ...]:
        """For each column whether the paper's numbers stand beside the measured; in a wide table they stand below."""
        is_narrow = len(self.table.columns) <= MOST_BESIDE
        return tuple(is_narrow and any(c and c.cell.paper is not None for c in column) for column in zip(*self.lines))

    def has_spread(self, column: str) -> bool:
        """Whether a value of a column has a standard deviation, or a mark, behind it."""
        cells = (cell for cell in self.cells() if cell.column == column)
        return any(cell.value.std is not None or cell.labels for cell in cells)

    @property
    def blocks(self) -> list[tuple[str, list[tuple[Row, tuple[Filled | None, ...]]]]]:
        """The rows with their cells under each heading: those that have a result, and beside own ones the papers'."""
        has_own = {c.row.group for c in self.cells() if _has_value(c) and not c.is_papers}
        found = [
            (row, line)
            for row, line in zip(self.table.rows, self.lines)
            if any(map(_has_value, line))
            or (row.group in has_own and any(c and c.cell.paper is not None for c in line))
        ]
        return [(group, list(pairs)) for group, pairs in groupby(found, key=lambda pair: pair[0].group)]

    @property
    def left_out(self) -> list[str]:
        """The headings, or else the labels, under which there is no result, each once."""
        shown = [row for _, pairs in self.blocks for row, _ in pairs]
        groups, labels = {row.group for row in shown}, {row.label for row in shown}
        empty = [row.group for row in self.table.rows if row.group not in groups]
        empty += [row.label for row in self.table.rows if row.label not in labels]
        return list(dict.fromkeys(filter(None, empty)))

    @property
    def n_seeds(self) -> tuple[int, int] | None:
        """Fewest and most seeds behind a cell; None where nothing seeded is there."""
        return range_of_seeds(cell.value for cell in self.cells())

    def is_short_of_seeds(self, cell: Filled) -> bool:
        """Whether fewer seeds are behind a cell than behind others of the table."""
        return bool(cell.value.n_seeds) and min(cell.value.n_seeds) < self.n_seeds[1]

    @property
    def problems(self) -> list[str]:
        """Why runs were not counted, each once."""
        return list(dict.fromkeys(problem for cell in self.cells() for problem in cell.value.problems))

    @property
    def warnings(self) -> list[str]:
        """What makes values doubtful, each once."""
        return list(dict.fromkeys(warning for cell in self.cells() for warning in cell.value.warnings))

    @property
    def other_seeds(self) -> tuple[list[str], list[str]] | None:
        """The seeds behind two cells that have equally many and not the same; None where there are no such cells."""
        seeds = [list(cell.value.by_seed) for cell in self.cells()]
        pairs = ((one, other) for one, other in combinations(seeds, 2) if len(one) == len(other) and one != other)
        return next(pairs, None)


def _is_own(line: Iterable[Filled | None]) -> bool:
    """Whether a row is that of a method that no paper has."""
    return not any(cell.is_papers for cell in line if cell)


def _datasets(cell: Filled) -> set[str]:
    """Returns the names of the data sets that an accuracy is of; none of a cost or of words."""
    runs = cell.cell.experiments() if cell.cell.is_accuracy else ()
    return {str(run.expected.get("dataset") or "") for run in runs}


def _has_value(cell: Filled | None) -> bool:
    return cell is not None and cell.value.value is not None


def fill(table: Table, output: Path) -> FilledTable:
    """Measures every cell of a table from the runs below the output folder."""
    lines = []
    for row in table.rows:
        cells = zip(table.columns, row.cells, strict=True)
        lines.append(tuple(cell and Filled(row, column, cell, cell.measure(output)) for column, cell in cells))
    return FilledTable(table, tuple(lines))
