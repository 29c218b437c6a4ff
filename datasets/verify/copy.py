"""Is a copy of a data set the papers' copy? All of it by `check_copy`, the cheap part before every run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine import Datum

from ..splits.few_shot import Items
from .report import Report, count_halves, count_items
from .wrong_files import find_broken, find_unlisted, find_unusable, name_broken, name_unlisted, name_unusable
from .wrong_items import count_base_new, count_classes, name_own_split, name_wrong_items

N_QUICK = 100_000  # files of a list that are looked at before a run, where the folders themselves gave the list


def check_copy(dataset: type, root: Path, *, decode: bool = False) -> Report:
    """Compares what is under root with what is known of the data set.

    Args:
        dataset: The data set's class, with the facts of `DatasetFiles`.
        root: The folder that holds `dataset_dir`.
        decode: Whether every image is read as a whole.
    """
    report = Report(dataset.__name__, root / dataset.dataset_dir)
    try:
        items = dataset.read_items(root)
    except (FileNotFoundError, ValueError) as error:
        report.problems.append(str(error))
        return report
    note_counts(report, dataset, items)
    missing, empty = find_unusable(*items)
    report.n_missing = len(missing)
    report.problems += [
        *name_own_split(dataset, root),
        *name_wrong_items(dataset, root, items),
        *name_unusable(dataset, root, missing, empty),
    ]
    if not missing:  # else they may lie in what looks like an extra folder
        report.problems += name_unlisted(dataset, root, find_unlisted(dataset, root, items))
    if decode:
        whole = sorted({item.impath for part in items for item in part} - {*missing, *empty})
        report.problems += name_broken(dataset, root, find_broken(whole))
        report.notes.append(f"{len(whole):,} image(s) were decoded")
    return report


def require_usable(dataset: type, root: Path, items: Items, used: Sequence[Sequence[Datum]]) -> None:
    """Raises if the copy cannot give the papers' results, with the words of `check_copy`; cheap, for every run's start.

    Args:
        dataset: The data set's class.
        root: The folder that holds `dataset_dir`.
        items: All train, val and test items.
        used: Lists of those that the run reads, all of which it needs.

    Raises:
        FileNotFoundError: If images that the run reads are missing or empty, and nothing else is wrong.
        ValueError: If the items are not the papers'.
    """
    quick = [part for part in used if len(part) <= N_QUICK or not dataset.listed_from_disk]
    wrong = name_wrong_items(dataset, root, items)
    unusable = name_unusable(dataset, root, *find_unusable(*quick))
    if wrong:
        raise ValueError("\n".join(wrong + unusable))
    if unusable:
        raise FileNotFoundError("\n".join(unusable))


def note_counts(report: Report, dataset: type, items: Items) -> None:
    """Adds to a report how many classes and items there are, and whether they are known to be the papers'."""
    report.n_classes = count_classes(items)
    report.n_items = tuple(len(part) for part in items)
    report.notes.append(f"{report.n_classes:,} classes; items: {count_items(report.n_items)}")
    report.notes.append(count_halves(count_base_new(items)))
    split = report.folder / dataset.split_file
    if dataset.split_id and split.exists() and dataset.is_papers_split(split, items) is None:
        report.notes.append(f"{split.name} has the papers' counts; whether it has their items is not known here")
