"""What is right and wrong with the copy of a data set on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from engine import DatasetBase, Datum
from engine.data import read_image

from .split import SPLITS, missing_files

N_NAMED = 5  # of many files, so many are named


@dataclass
class Report:
    """Findings of a check: `problems` make a copy unusable or different from the papers', `notes` do not."""

    title: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        verdict = "all is as it should be" if self.ok else f"{len(self.problems)} problem(s)"
        problems = [f"  wrong: {problem}" for problem in self.problems]
        return "\n".join([f"{self.title}: {verdict}", *problems, *(f"  {note}" for note in self.notes)])


def report_items(
    report: Report, splits: Sequence[Sequence[Datum]], *, n_classes: int, n_items: tuple[int, int, int], decode: bool
) -> None:
    """Adds what is wrong with the items of train, val and test to a report.

    Args:
        report: Where to add it.
        splits: The three lists.
        n_classes: Expected number of classes; 0 accepts any.
        n_items: Expected number of items in each list; all 0 accepts any.
        decode: Whether every image is read as a whole.
    """
    train, val, test = splits
    found_classes = len({item.label for items in splits for item in items})
    found_items = tuple(len(items) for items in splits)
    counts = ", ".join(f"{split} {n:,}" for split, n in zip(SPLITS, found_items))
    report.notes.append(f"{found_classes} classes; items: {counts}")
    if n_classes and found_classes != n_classes:
        report.problems.append(f"the split has {found_classes} classes, expected {n_classes}")
    if any(n_items) and found_items != n_items:
        expected = ", ".join(f"{split} {n:,}" for split, n in zip(SPLITS, n_items))
        report.problems.append(f"the split has the items {counts}, expected {expected}")
    try:
        DatasetBase(train, val=val, test=test)
    except ValueError as error:
        report.problems.append(str(error))
    missing = missing_files(*splits)
    if missing:
        report.problems.append(f"{len(missing):,} image(s) are missing: {name_first(missing)}")
    if decode:
        absent = set(missing)
        present = {item.impath for items in splits for item in items} - absent
        broken = [path for path in tqdm(sorted(present), desc="decoding", leave=False) if not _decodes(path)]
        report.notes.append(f"{len(present):,} image(s) were decoded")
        if broken:
            report.problems.append(f"{len(broken):,} image(s) do not decode: {name_first(broken)}")


def name_first(paths: Sequence[str]) -> str:
    """Returns the first few paths and how many more there are."""
    more = f" and {len(paths) - N_NAMED:,} more" if len(paths) > N_NAMED else ""
    return ", ".join(paths[:N_NAMED]) + more


def _decodes(path: str) -> bool:
    try:
        read_image(path)
    except (ValueError, FileNotFoundError):
        return False
    return True
