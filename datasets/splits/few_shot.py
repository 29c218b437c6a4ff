"""The few-shot draw, and the halves of the classes: pure functions of their arguments."""

import random
from collections.abc import Sequence
from dataclasses import replace

from engine import Datum

from .folder_items import ClassItems, FolderItems


def draw_few_shots(
    train: Sequence[Datum], val: Sequence[Datum], shots: int, seed: int
) -> tuple[list[Datum], list[Datum]]:
    """Draws `shots` training items and min(shots, 4) validation items of each class, as the papers' runs do.

    Both come from one `random.Random(seed)`, training items first, classes in the order in which they first appear;
    a class with fewer items gives all it has, without drawing.

    Args:
        train: All training items, in the split file's order.
        val: All validation items.
        shots: Items per class; -1 takes everything.
        seed: Decides the draw. The sign is lost: -1 draws as 1 does.

    Raises:
        ValueError: If shots is 0 or below -1.
    """
    if shots == -1:
        return list(train), list(val)
    if shots < 1:
        raise ValueError(
            f"DATASET.NUM_SHOTS is {shots}; it must be 1 or more, or -1 for all items. Change DATASET.NUM_SHOTS."
        )
    rng = random.Random(seed)
    return _draw_per_class(train, shots, rng), _draw_per_class(val, min(shots, 4), rng)


def draw_held_out(train: Sequence[Datum], drawn: Sequence[Datum], shots: int, seed: int) -> list[Datum]:
    """Draws items to choose hyper-parameters on where no val items are: min(shots, 4) of each class's undrawn ones.

    A class that was drawn whole gives up to half of its items instead; these are in `drawn` too. The draw has an rng
    of its own and changes no other.

    Args:
        train: All training items, in the split file's order.
        drawn: Those that `draw_few_shots` drew from them.
        shots: Items per class that were drawn; -1 means all, of which 4 are held out.
        seed: Decides the draw.
    """
    rng = random.Random(f"held out, {seed}")  # not Random(seed): that would pick the positions of the few shots
    paths, n_wanted = {item.impath for item in drawn}, 4 if shots == -1 else min(shots, 4)
    held_out = []
    for group in group_by_label(train):
        if isinstance(group, ClassItems):  # which makes an item only when it is asked for
            left = group.without(paths)
        else:
            left = [item for item in group if item.impath not in paths]
        held_out += rng.sample(left or group, min(n_wanted, len(left) or len(group) // 2))
    return held_out


def _draw_per_class(items: Sequence[Datum], shots: int, rng: random.Random) -> list[Datum]:
    drawn = []
    for group in group_by_label(items):
        drawn += rng.sample(group, shots) if len(group) >= shots else group
    return drawn


def group_by_label(items: Sequence[Datum]) -> list[Sequence[Datum]]:
    """Returns the items of each class, classes in order of first appearance; those of folders stay unmade."""
    if isinstance(items, FolderItems):
        return list(items.classes)
    groups: dict[int, list[Datum]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return list(groups.values())


def subsample_classes(*splits: Sequence[Datum], subset: str) -> list[list[Datum]]:
    """Keeps the items of half of the classes and relabels these from 0.

    Args:
        splits: Lists of items that share their classes.
        subset: "all" keeps everything as it is; "base" keeps the first half of the labels, sorted, with the middle
            one where their number is odd; "new" keeps the others.
    """
    if subset == "all":
        return [list(items) for items in splits]
    relabelled = {label: new for new, label in enumerate(labels_of_subset(*splits, subset=subset))}
    return [
        [replace(item, label=relabelled[item.label]) for item in items if item.label in relabelled] for items in splits
    ]


def labels_of_subset(*splits: Sequence[Datum], subset: str) -> list[int]:
    """Returns the labels, before relabelling and sorted, that `subsample_classes` keeps."""
    labels = sorted({item.label for items in splits for item in items})
    n_base = (len(labels) + 1) // 2
    halves = {"all": labels, "base": labels[:n_base], "new": labels[n_base:]}
    if subset not in halves:
        raise ValueError(f"DATASET.SUBSAMPLE_CLASSES is {subset!r}; choose all, base or new.")
    if subset == "new" and len(labels) == 1:
        raise ValueError(
            "DATASET.SUBSAMPLE_CLASSES is new, but one class has no second half. Set it to all, or add classes."
        )
    return halves[subset]
