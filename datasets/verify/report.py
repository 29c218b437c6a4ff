"""What is right and wrong with the copy of a data set on disk, in words and as a line of a table."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from engine.data.datum import SPLITS
from engine.text import printable

N_NAMED = 5  # of many files, so many are named


@dataclass
class Report:
    """Findings of a check: `problems` make a copy unusable or different from the papers'; `notes` do not."""

    name: str  # of the data set
    folder: Path  # where its copy lies
    problems: list[str] = field(default_factory=list)  # each with what to do
    notes: list[str] = field(default_factory=list)
    n_classes: int | None = None  # None where the items could not be read
    n_items: tuple[int, int, int] | None = None  # train, val and test items; None likewise
    n_missing: int = 0  # images of these that are not there

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def is_there(self) -> bool:
        return self.folder.exists()

    @property
    def verdict(self) -> str:
        return "all is as it should be" if self.ok else f"{len(self.problems)} problem(s)"

    def __str__(self) -> str:
        problems = [f"  wrong: {problem}" for problem in self.problems]
        notes = [f"  {note}" for note in self.notes]
        return "\n".join([f"{self.name} in {self.folder}: {self.verdict}", *notes, *problems])


def tabulate_reports(reports: Iterable[Report]) -> str:
    """Returns a table with a line for each data set."""
    headers = ("data set", "classes", *SPLITS, "missing", "verdict")
    lines = []
    for report in reports:
        counts = (report.n_classes, *report.n_items, report.n_missing) if report.n_items else (None,) * 5
        verdict = report.verdict if report.is_there else "not there"
        lines.append((report.name, *("-" if n is None else f"{n:,}" for n in counts), verdict))
    return tabulate(lines, headers, disable_numparse=True, colalign=("left", *["right"] * 5, "left"))


def count_items(n_items: Sequence[int]) -> str:
    """Returns the number of train, val and test items in words."""
    return ", ".join(f"{split} {n:,}" for split, n in zip(SPLITS, n_items))


def count_halves(n_base_new: Sequence[int]) -> str:
    """Returns the number of test items of the base and of the new classes in words."""
    return "test items of the base classes {:,}, of the new classes {:,}".format(*n_base_new)


def name_first(names: Sequence[str], folder: Path | None = None) -> str:
    """Returns the first few names and how many more there are; paths in folder are named as they lie there."""
    more = f" and {len(names) - N_NAMED:,} more" if len(names) > N_NAMED else ""
    return ", ".join(printable(name.removeprefix(f"{folder}{os.sep}")) for name in names[:N_NAMED]) + more
