"""What is wrong with the lists of a copy's items, whether or not their files are there."""

from engine import DatasetBase

from ..data_copy import DataCopy
from ..splits.few_shot import group_by_label
from ..splits.split_file import Items
from .report import count_halves, count_items, name_first


def name_wrong_items(copy: DataCopy, items: Items) -> list[str]:
    """Returns a message for each way in which the items are not the papers', or cannot be trained on.

    Of a split of our own only the classes are compared: it may be used, and `name_own_split` says what it is.
    """
    facts, is_papers = copy.dataset, None
    lists = [path.name for path in copy.contents if path.is_file()]  # the publisher's, instead of a split
    where = f"{copy.name} in {copy.folder}"
    remedy = f"Delete {', '.join(lists)} and run {copy.command}." if lists else copy.remedy
    split = next((path for path in (copy.split, copy.own_split) if facts.split_file and path.exists()), None)
    if split:
        is_papers = copy.is_papers_split(split, items) if split == copy.split else None
        where, remedy = str(split), f"Delete it and run {copy.command}."
    if is_papers:
        return []
    found, right = _compare_counts(copy, items, of_papers=split != copy.own_split)
    problems = []
    if found != right:
        problems.append(f"{where} has {found}; it should have {right}. {remedy}")
    elif is_papers is False:
        problems.append(f"{where} has other items than the papers' split, or another order. {remedy}")
    if not facts.listed_from_disk:
        problems += [f"{where} lists {what}. {remedy}" for what in _name_repeated(copy, items)]
        problems += _name_wrong_classes(copy, items)
    return problems


def name_own_split(copy: DataCopy) -> list[str]:
    """Returns what to say of a split that is not the papers': one can train on it, but nothing compares."""
    if not copy.dataset.split_id or copy.split.exists() or not copy.own_split.exists():
        return []
    return [
        f"{copy.split} is missing, and {copy.own_split.name} is NOT the papers' split: results do not compare with "
        f"theirs. Run {copy.command}, or save https://drive.google.com/file/d/{copy.dataset.split_id} there."
    ]


def list_labels(items: Items) -> list[int]:
    """Returns the labels of all three lists, each once, sorted."""
    return sorted({group[0].label for part in items for group in group_by_label(part)})


def count_base_new(items: Items) -> tuple[int, int]:
    """Returns the number of test items of the base and of the new classes."""
    labels = list_labels(items)
    base = set(labels[: (len(labels) + 1) // 2])
    n_base = sum(len(group) for group in group_by_label(items[-1]) if group[0].label in base)
    return n_base, len(items[-1]) - n_base


def _compare_counts(copy: DataCopy, items: Items, *, of_papers: bool) -> tuple[str, str]:
    """Returns the counts found and the right ones, in words: of those that are known, up to the first that differs."""
    facts, found, right = copy.dataset, [], []
    if facts.n_classes:
        found.append(f"{len(list_labels(items)):,} classes")
        right.append(f"{facts.n_classes:,} classes")
    if any(facts.n_items) and of_papers:
        found.append(f"the items {count_items([len(part) for part in items])}")
        right.append(f"the items {count_items(facts.n_items)}")
    if found == right and any(facts.n_base_new) and of_papers:
        found.append(count_halves(count_base_new(items)))
        right.append(count_halves(facts.n_base_new))
    return ", ".join(found), ", ".join(right)


def _name_repeated(copy: DataCopy, items: Items) -> list[str]:
    paths = [item.impath for part in items for item in part]
    if len(set(paths)) == len(paths):
        return []
    seen: set[str] = set()
    repeated = list(dict.fromkeys(path for path in paths if path in seen or seen.add(path)))
    return [f"{len(repeated):,} image(s) more than once in train, val and test: {name_first(repeated, copy.images)}"]


def _name_wrong_classes(copy: DataCopy, items: Items) -> list[str]:
    """Labels with gaps, and names that disagree: what the loaded data set refuses."""
    train, val, test = items
    named = type(copy.name, (DatasetBase,), {})  # its errors begin with the name of its class
    try:
        named(train, val=val, test=test)
    except ValueError as error:
        return [str(error)]
    return []
