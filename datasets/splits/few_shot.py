"""Which items are trained on, validated on and tested on: split files, few-shot draws, base and new classes.

A split file is JSON: {"train": [[path, label, class name], ...], "val": [...], "test": [...]}, each path relative to
the folder of the images. Everything that is drawn is a pure function of its arguments.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from engine import Datum
from engine.files import write_atomically
from engine.text import shorten

from .entries import parse_json, read_item
from .folder_items import ClassItems, FolderItems

Items = tuple[Sequence[Datum], Sequence[Datum], Sequence[Datum]]  # of train, val and test
SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm")


def read_split(path: Path, image_dir: Path) -> Items:
    """Returns the train, val and test items of a split file, with full paths.

    Raises:
        ValueError: If its content is not that of a split file, or a path in it could lead out of image_dir.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        return tuple(_read_items(split, content[split], image_dir) for split in SPLITS)
    except (KeyError, TypeError, ValueError, RecursionError) as error:  # no JSON and no UTF-8 are ValueErrors
        raise ValueError(
            f"Split file {path} is not readable ({type(error).__name__}: {error}), expected JSON with the lists train, "
            "val and test of [path, label, class name], labels from 0 and paths below the folder of the images. "
            "Delete it and prepare the data set again."
        ) from error


def _read_items(split: str, entries: Iterable, image_dir: Path) -> list[Datum]:
    items = []
    for number, entry in enumerate(entries, start=1):
        try:
            impath, label, classname = entry
            items.append(read_item(image_dir, impath, label, classname))
        except (TypeError, ValueError) as error:
            raise ValueError(f"item {number:,} of {split} is {shorten(entry)}: {error}") from error
    return items


def write_split(
    path: Path, image_dir: Path, train: Sequence[Datum], val: Sequence[Datum], test: Sequence[Datum]
) -> None:
    """Writes a split file in one step: it is there whole or not at all."""
    content = {
        split: [[Path(item.impath).relative_to(image_dir).as_posix(), item.label, item.classname] for item in items]
        for split, items in zip(SPLITS, (train, val, test))
    }
    text = json.dumps(content, indent=1)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


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
            f"DATASET.NUM_SHOTS is {shots}, expected a positive number, or -1 for all items. Change DATASET.NUM_SHOTS."
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
    rng = random.Random(f"held out, {seed}")  # not Random(seed): that would pick the places that the few shots had
    paths, n_wanted = {item.impath for item in drawn}, 4 if shots == -1 else min(shots, 4)
    held_out = []
    for group in group_by_label(train):
        left = _without(group, paths)
        held_out += rng.sample(left or group, min(n_wanted, len(left) or len(group) // 2))
    return held_out


def _draw_per_class(items: Sequence[Datum], shots: int, rng: random.Random) -> list[Datum]:
    drawn = []
    for group in group_by_label(items):
        drawn += rng.sample(group, shots) if len(group) >= shots else group
    return drawn


def _without(items: Sequence[Datum], paths: Collection[str]) -> Sequence[Datum]:
    if isinstance(items, ClassItems):
        return items.without(paths)
    return [item for item in items if item.impath not in paths]


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

    Raises:
        ValueError: If subset is none of these.
    """
    if subset == "all":
        return [list(items) for items in splits]
    relabelled = {label: new for new, label in enumerate(labels_of_subset(*splits, subset=subset))}
    return [
        [replace(item, label=relabelled[item.label]) for item in items if item.label in relabelled] for items in splits
    ]


def labels_of_subset(*splits: Sequence[Datum], subset: str) -> list[int]:
    """Returns the labels, before relabelling and sorted, that `subsample_classes` keeps.

    Raises:
        ValueError: If subset is none of all, base and new.
    """
    labels = sorted({item.label for items in splits for item in items})
    n_base = (len(labels) + 1) // 2
    halves = {"all": labels, "base": labels[:n_base], "new": labels[n_base:]}
    if subset not in halves:
        raise ValueError(f"DATASET.SUBSAMPLE_CLASSES is {subset!r}, expected all, base or new. Choose one of these.")
    return halves[subset]


def draw_split(items: Sequence[Datum], seed: int) -> Items:
    """Splits each class at random: half (rounded up) to train on, a fifth (down) for val, the rest to test on."""
    rng = random.Random(seed)
    train, val, test = [], [], []
    for group in group_by_label(items):
        shuffled = rng.sample(group, len(group))
        n_train, n_val = (len(group) + 1) // 2, len(group) // 5
        train += shuffled[:n_train]
        val += shuffled[n_train : n_train + n_val]
        test += shuffled[n_train + n_val :]
    return train, val, test


def list_class_images(image_dir: Path) -> dict[str, list[Path]]:
    """Returns folder name -> its image files, both sorted, for each folder in image_dir; without hidden ones."""
    folders = sorted(path for path in image_dir.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    return {folder.name: sorted(path for path in folder.iterdir() if is_image(path.name)) for folder in folders}


def is_image(name: str) -> bool:
    """Says whether a file of this name is an image; ._1.jpg of macOS is none."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
