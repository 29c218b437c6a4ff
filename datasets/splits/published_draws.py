"""Few-shot items that others have published: what their files say, and which of the data set's items are meant.

The form is told by how the file begins:

    {"train": {"data": [{"impath": ..., "label": ..., "classname": ...}, ...]}, "val": ...}   cross-modal adaptation
    {"_impath": ..., "_label": ..., "_classname": ...}                                        two-stage few-shot, a line
    a pickle of {"train": [Datum, ...], "val": [Datum, ...]}                                  the original

Their paths are those of another machine. They are compared with the data set's, and never opened.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import Datum
from engine.text import one_form, printable, shorten

from .datum_pickle import BEGINNINGS, read_datum_pickle
from .entries import parse_json, require_facts

FIELDS = ("impath", "label", "classname")
SPLIT_NAMES = {"train": "training", "val": "validation"}
DEEPEST = 16  # names at the end of a path that are compared
REMEDY = "Give a draw of this data set as it was published, or one that `python -m datasets.prepare` has exported."


@dataclass(frozen=True)
class Listed:
    """What a file says of one image."""

    name: str  # how errors call the entry
    split: str
    impath: str
    label: int
    classname: str


@dataclass(frozen=True)
class Form:
    """A form of published draws: what such a file is, in words, and what reads it."""

    words: str
    read: Callable[[bytes], list[Listed]]


# What a file says


def find_form(data: bytes) -> Form | None:
    """Returns the form of a file by how it begins; None if it is no published draw."""
    if data.startswith(BEGINNINGS):
        return PICKLE
    if re.match(rb'\s*\{\s*"(?:train|val)"\s*:', data):
        return JSON
    return LINES if b'"_impath"' in data.lstrip().partition(b"\n")[0] else None


def _read_json(data: bytes) -> list[Listed]:
    content = parse_json(data.decode("utf-8"))
    rows = {split: content[split]["data"] for split in SPLIT_NAMES if split in content}
    return [_listed(name, row, split) for name, split, row in _entries(rows)]


def _read_lines(data: bytes) -> list[Listed]:
    rows = [(n, parse_json(line.decode("utf-8"))) for n, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    return [_listed(f"line {number:,}", row, prefix="_") for number, row in rows]


def _read_pickle(data: bytes) -> list[Listed]:
    rows = read_datum_pickle(data)
    return [_listed(name, getattr(x, "fields", None), split, prefix="_") for name, split, x in _entries(rows)]


def _entries(rows: Any) -> Iterator[tuple[str, str, Any]]:
    """Yields a name, the split and the row of each entry; there may be no list for val."""
    if type(rows) is not dict or any(type(rows.get(split, [])) is not list for split in SPLIT_NAMES):
        raise ValueError("it has no lists for train and val")
    for split in SPLIT_NAMES:
        for number, row in enumerate(rows.get(split, ()), start=1):
            yield f"item {number:,} of {split}", split, row


def _listed(name: str, row: Any, split: str = "", prefix: str = "") -> Listed:
    """Returns an entry; where neither the file nor the entry names a split, it is to train on."""
    try:
        if type(row) is not dict:
            raise ValueError("it does not say what its image is")
        split = split or row.get("split", "train")
        facts = [row[prefix + field] for field in FIELDS]
        require_facts(*facts)
        if split not in SPLIT_NAMES:  # which a list is not either: TypeError
            raise ValueError(f"split is {shorten(split)}, not train or val")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}, {type(error).__name__}: {error}") from error
    return Listed(name, split, *facts)


JSON = Form('JSON of {"train": {"data": [{"impath", "label", "classname"}, ...]}, "val": {"data": [...]}}', _read_json)
LINES = Form('lines of {"_impath", "_label", "_classname"}', _read_lines)
PICKLE = Form('a pickle of {"train": [Datum, ...], "val": [Datum, ...]}', _read_pickle)


# Which items are meant


def read_published(
    path: Path, data: bytes, form: Form, *, image_dir: Path, train: Sequence[Datum], val: Sequence[Datum]
) -> tuple[list[Datum], list[Datum]]:
    """Returns the data set's items that a published draw lists for train and val, in its order.

    An item is meant if its path below the folder of the images is how the listed path ends; of several, the longest.
    The class is the one of this name. The draw may number the classes in its own way, each by one number.

    Args:
        path: The file, for errors.
        data: Its content, which begins as one of this form does.
        image_dir: Folder of the images.
        train, val: All items. Where there are none for val, as of ImageNet, listed val items are training items.

    Raises:
        ValueError: If it is not of its form, or an entry stands for no item, for one that is listed already or for one
            of another class.
    """
    try:
        listed = form.read(data)
    except (KeyError, TypeError, ValueError) as error:  # no JSON and no UTF-8 are ValueErrors
        said = printable(f"{type(error).__name__}: {error}")
        raise ValueError(f"{path} begins as {form.words}, but is not readable ({said}). {REMEDY}") from error
    pairs = []
    for split, items in (("train", train), ("val", val or train)):
        of_split = [entry for entry in listed if entry.split == split]
        pairs += zip(of_split, _match(path, of_split, items, image_dir))
    _require_once(path, pairs)
    _require_classes(path, pairs)
    drawn_train, drawn_val = ([item for entry, item in pairs if entry.split == split] for split in SPLIT_NAMES)
    return drawn_train, drawn_val


def _match(path: Path, listed: Sequence[Listed], items: Sequence[Datum], image_dir: Path) -> list[Datum]:
    above = os.path.join(image_dir, "")
    wanted = {ending for entry in listed for ending in _endings(entry.impath)}
    among = items if listed else ()  # ImageNet's are a million
    known = {ending: item for item in among if (ending := item.impath.removeprefix(above)) in wanted}
    found = [next((known[end] for end in _endings(entry.impath) if end in known), None) for entry in listed]
    if missing := [entry for entry, item in zip(listed, found) if item is None]:
        first, split = missing[0], SPLIT_NAMES[missing[0].split]
        raise ValueError(
            f"{path} lists {len(missing):,} {split} image(s), of {len(listed):,}, whose paths end like no {split} item "
            f"in {image_dir}; the first is {printable(first.impath)} ({first.name}). {REMEDY}"
        )
    return found


def _endings(impath: str) -> list[str]:
    """Returns the ends of a path, the longest first; a backslash is Windows' slash."""
    parts = [part for part in re.split(r"[/\\]", impath) if part not in ("", ".")][-DEEPEST:]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _require_once(path: Path, pairs: Sequence[tuple[Listed, Datum]]) -> None:
    before: dict[str, Listed] = {}
    for entry, item in pairs:
        if other := before.get(item.impath):
            raise ValueError(
                f"{path} lists {printable(item.impath)} twice, as {other.name} and as {entry.name}. {REMEDY}"
            )
        before[item.impath] = entry


def _require_classes(path: Path, pairs: Sequence[tuple[Listed, Datum]]) -> None:
    """Raises ValueError if names are not those of the data set's classes, or a label and a class are not one to one."""
    item_of_label: dict[int, Datum] = {}
    entry_of_class: dict[int, Listed] = {}
    for entry, item in pairs:
        if _as_prompted(entry.classname) != _as_prompted(item.classname):
            raise ValueError(
                f"{path}, {entry.name}, gives {printable(entry.impath)} the class name {shorten(entry.classname)}; in "
                f"this data set it is {shorten(item.classname)}. {REMEDY}"
            )
        other, first = item_of_label.setdefault(entry.label, item), entry_of_class.setdefault(item.label, entry)
        if other.label != item.label:
            raise ValueError(
                f"{path}, {entry.name}, gives the label {entry.label} to the class {shorten(item.classname)}, after it "
                f"was that of {shorten(other.classname)}. {REMEDY}"
            )
        if first.label != entry.label:
            raise ValueError(
                f"{path}, {entry.name}, gives the class {shorten(item.classname)} the label {entry.label}, after it "
                f"had {first.label} ({first.name}). {REMEDY}"
            )


def _as_prompted(classname: str) -> str:
    """Returns what CLIP reads of a name, to which an underscore is a space and a capital a small letter."""
    return one_form(classname).replace("_", " ").lower()
