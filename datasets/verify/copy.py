"""Is a copy of a data set the papers' copy? All of it by `check_copy`, the cheap part before every run."""

from collections.abc import Sequence

from engine import Datum
from engine.data.bad_images import find_bad
from engine.run.cores import n_cores

from ..data_copy import DataCopy
from ..splits.split_file import Items
from .report import Report, count_halves, count_items
from .wrong_files import find_unusable, name_broken, name_unusable
from .wrong_items import count_base_new, list_labels, name_own_split, name_wrong_items

N_QUICK = 100_000  # files of a list that are looked at before a run, where the folders themselves gave the list


def check_copy(copy: DataCopy, *, decode: bool = False) -> Report:
    """Compares a copy with what is known of its data set; `decode` also reads every image as a whole."""
    report = Report(copy.name, copy.folder)
    try:
        items = copy.read()
    except (FileNotFoundError, ValueError) as error:
        report.problems.append(str(error))
        return report
    report.n_classes, report.n_items = len(list_labels(items)), tuple(len(part) for part in items)
    report.notes.append(f"{report.n_classes:,} classes; items: {count_items(report.n_items)}")
    report.notes.append(count_halves(count_base_new(items)))
    if copy.dataset.split_id and copy.split.exists() and copy.is_papers_split(copy.split, items) is None:
        report.notes.append(f"{copy.split.name} has the papers' counts; whether it has their items is not known here")
    missing, empty = find_unusable(*items)
    report.n_missing = len(missing)
    report.problems += [
        *name_own_split(copy),
        *name_wrong_items(copy, items),
        *name_unusable(copy, missing, empty),
    ]
    if not missing:  # else they may lie in what looks like an extra folder
        report.problems += copy.dataset.name_unread(copy, items)
    if decode:
        whole = sorted({item.impath for part in items for item in part} - {*missing, *empty})
        report.problems += name_broken(copy, list(find_bad(whole, n_cores())))
        report.notes.append(f"{len(whole):,} image(s) were decoded")
    return report


def require_usable(copy: DataCopy, items: Items, used: Sequence[Sequence[Datum]]) -> None:
    """Raises if a copy cannot give the papers' results, with the words of `check_copy`; cheap, for every run's start.

    Args:
        copy: The copy.
        items: All train, val and test items; ValueError if they are not the papers'.
        used: Lists of those that the run needs; FileNotFoundError if images of these are missing or empty.
    """
    quick = [part for part in used if len(part) <= N_QUICK or not copy.dataset.listed_from_disk]
    wrong = name_wrong_items(copy, items)
    unusable = name_unusable(copy, *find_unusable(*quick))
    if wrong:
        raise ValueError("\n".join(wrong + unusable))
    if unusable:
        raise FileNotFoundError("\n".join(unusable))
