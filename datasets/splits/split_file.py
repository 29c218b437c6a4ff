"""Split files: the train, val and test items of a data set as JSON.

{"train": [[path, label, class name], ...], "val": [...], "test": [...]}, paths relative to the folder of the images.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine import Datum
from engine.data.datum import SPLITS
from engine.files import write_atomically
from engine.text import shorten

from .entries import parse_json, read_item

Items = tuple[Sequence[Datum], Sequence[Datum], Sequence[Datum]]  # of train, val and test


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
            f"The split file {path} is not readable ({type(error).__name__}: {error}). It must be JSON with the lists "
            "train, val and test of [path, label, class name], labels from 0 and paths below the folder of the images. "
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
