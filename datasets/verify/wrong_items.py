"""What is wrong with the lists of a data set's items, whether or not their files are there."""

from __future__ import annotations

import shlex
from pathlib import Path

from engine import DatasetBase

from ..splits.few_shot import Items, group_by_label
from .report import count_halves, count_items, name_first


def name_wrong_items(dataset: type, root: Path, items: Items) -> list[str]:
    """Returns a message for each way in which the items are not the papers', or cannot be trained on.

    Of a split of our own only the classes are compared: it may be used, and `name_own_split` says what it is.
    """
    folder = root / dataset.dataset_dir
    split, own_split = folder / dataset.split_file, dataset.own_split_path(folder)
    is_papers, place = None, f"{dataset.__name__} in {folder}"
    lists = [name for name in dataset.contents() if (folder / name).is_file()]  # the publisher's, instead of a split
    remedy = f"Delete {', '.join(lists)} and run {preparing(dataset, root)}." if lists else dataset.remedy(root)
    if dataset.split_file and (split.exists() or own_split.exists()):
        is_papers = dataset.is_papers_split(split, items) if split.exists() else None
        place = split if split.exists() else own_split
        remedy = f"Delete it and run {preparing(dataset, root)}."
    if is_papers:
        return []
    found, expected = _compare_counts(dataset, items, any_items=place == own_split)
    problems = []
    if found != expected:
        problems.append(f"{place} has {', '.join(found)}; expected {', '.join(expected)}. {remedy}")
    elif is_papers is False:
        problems.append(f"{place} has other items than the papers' split, or another order; expected theirs. {remedy}")
    elif any(dataset.n_base_new) and place != own_split and count_base_new(items) != dataset.n_base_new:
        found, expected = map(count_halves, (count_base_new(items), dataset.n_base_new))
        problems.append(f"{place} has {found}; expected {expected}. {remedy}")
    if not dataset.listed_from_disk:
        repeated = _name_repeated(items, folder / dataset.image_dir)
        problems += [f"{place} lists {what}. {remedy}" for what in repeated] + _name_wrong_classes(dataset, items)
    return problems


def name_own_split(dataset: type, root: Path) -> list[str]:
    """Returns what to say of a split that is not the papers': one can train on it, but nothing compares."""
    folder = root / dataset.dataset_dir
    split, own_split = folder / dataset.split_file, dataset.own_split_path(folder)
    if not dataset.split_id or split.exists() or not own_split.exists():
        return []
    return [
        f"{split} is missing, and {own_split.name} is NOT the papers' split: results do not compare with theirs. "
        f"Run {preparing(dataset, root)}, or save https://drive.google.com/file/d/{dataset.split_id} there."
    ]


def count_classes(items: Items) -> int:
    return len(_list_labels(items))


def count_base_new(items: Items) -> tuple[int, int]:
    """Returns the number of test items of the base and of the new classes."""
    labels = _list_labels(items)
    base = set(labels[: (len(labels) + 1) // 2])
    n_base = sum(len(group) for group in group_by_label(items[-1]) if group[0].label in base)
    return n_base, len(items[-1]) - n_base


def preparing(dataset: type, root: Path) -> str:
    """Returns the command that completes a copy."""
    return f"`python -m datasets.prepare {dataset.__name__} --root {shlex.quote(str(root))}`"


def _list_labels(items: Items) -> list[int]:
    return sorted({group[0].label for part in items for group in group_by_label(part)})


def _compare_counts(dataset: type, items: Items, *, any_items: bool) -> tuple[list[str], list[str]]:
    """Returns the counts found and those expected, in words; none of what is not known."""
    found, expected = [], []
    if dataset.n_classes:
        found.append(f"{count_classes(items):,} classes")
        expected.append(f"{dataset.n_classes:,} classes")
    if any(dataset.n_items) and not any_items:
        found.append(f"the items {count_items([len(part) for part in items])}")
        expected.append(f"the items {count_items(dataset.n_items)}")
    return found, expected


def _name_repeated(items: Items, images: Path) -> list[str]:
    paths = [item.impath for part in items for item in part]
    if len(set(paths)) == len(paths):
        return []
    seen: set[str] = set()
    repeated = list(dict.fromkeys(path for path in paths if path in seen or seen.add(path)))
    return [
        f"{len(repeated):,} image(s) more than once, expected each once in one of train, val and test: "
        f"{name_first(repeated, images)}"
    ]


def _name_wrong_classes(dataset: type, items: Items) -> list[str]:
    """Labels with gaps, and names that disagree: what the loaded data set refuses."""
    train, val, test = items
    named = type(dataset.__name__, (DatasetBase,), {})  # its errors begin with the name of its class
    try:
        named(train, val=val, test=test)
    except ValueError as error:
        return [str(error)]
    return []
