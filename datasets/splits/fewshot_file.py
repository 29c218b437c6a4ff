"""Few-shot items as a file, so that other code can train on the very same images, and a run on those of other code.

Our own form is JSON Lines, a line {"split": "train" or "val", "impath": path relative to the folder of the images,
"label": number from 0 among all classes, "classname": name}. The forms of others are read in `published_draws`.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine import Datum
from engine.files import missing_path, write_atomically
from engine.text import printable, shorten

from .entries import parse_json, read_item
from .published_draws import SPLIT_NAMES, find_form, read_published

FIELDS = ("split", "impath", "label", "classname")
REMEDY = "Write the list with `python -m datasets.prepare NAME --export-fewshot FILE`, or correct it."

Listed = dict[str, tuple[str, str, Datum]]  # full path -> name of the line, split, item


def write_fewshot(path: Path, image_dir: Path, train: Sequence[Datum], val: Sequence[Datum]) -> None:
    """Writes the lines of train, then of val, in one step; the folder is made if there is none."""
    lines = []
    for split, items in zip(SPLIT_NAMES, (train, val)):
        for item in items:
            values = (split, Path(item.impath).relative_to(image_dir).as_posix(), item.label, item.classname)
            lines.append(json.dumps(dict(zip(FIELDS, values)), ensure_ascii=False) + "\n")
    content = "".join(lines).encode("utf-8", errors="backslashreplace")  # as JSON writes what UTF-8 has not
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def read_fewshot(
    path: Path, image_dir: Path, train: Sequence[Datum], val: Sequence[Datum], *, shots: int = -1
) -> tuple[list[Datum], list[Datum]]:
    """Returns the listed items of train and val, in the list's order.

    Args:
        path: The list, of our own form or a published one.
        image_dir: Folder of the images.
        train, val: All items, among which the listed ones must be.
        shots: How many training items each class in the list has, or all of a smaller class; -1 accepts any number.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an entry is no training or val item of this data set; or with another number of shots.
    """
    if not path.is_file():
        raise FileNotFoundError(missing_path(path, "DATASET.FEWSHOT_FILE", REMEDY))
    data = path.read_bytes()
    if form := find_form(data):
        drawn_train, drawn_val = read_published(path, data, form, image_dir=image_dir, train=train, val=val)
    else:
        listed = read_lines(path, data, image_dir)
        drawn_train, drawn_val = find_items(listed, "train", train), find_items(listed, "val", val)
    if not drawn_train:
        raise ValueError(f"{path} lists no training items. {REMEDY}")
    if shots != -1:
        require_shots(path, drawn_train, train, shots)
    return drawn_train, drawn_val


def read_lines(path: Path, data: bytes, image_dir: Path) -> Listed:
    """Returns what a list of our own form says, whether or not it is true of the data set."""
    listed: Listed = {}
    for number, line in enumerate(data.split(b"\n"), start=1):  # not splitlines: names hold any character
        if not line.strip():
            continue
        name = f"{path}, line {number}"
        split, item = read_line(line, image_dir, name)
        if item.impath in listed:
            before, *_ = listed[item.impath]
            raise ValueError(f"{name} lists {printable(item.impath)}, as {before} does. Remove one of the lines.")
        listed[item.impath] = (name, split, item)
    return listed


def read_line(line: bytes, image_dir: Path, name: str) -> tuple[str, Datum]:
    """Returns the split and the item of a line; name is how errors call it."""
    try:
        content = parse_json(line.decode("utf-8"))
        split, impath, label, classname = (content[field] for field in FIELDS)
        item = read_item(image_dir, impath, label, classname)
        if split not in SPLIT_NAMES:
            raise ValueError(f"split is {shorten(split)}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:  # no JSON and no UTF-8 are ValueErrors
        raise ValueError(
            f"{name} is not readable ({type(error).__name__}: {error}). A line is "
            f'{{"split": "train" or "val", "impath": PATH below the folder of the images, "label": NUMBER from 0, '
            f'"classname": NAME}}. {REMEDY}'
        ) from error
    return split, replace(item, impath=str(Path(item.impath)))  # "a//b" and "./a/b" are a/b


def find_items(listed: Listed, split: str, items: Sequence[Datum]) -> list[Datum]:
    """Returns those of the data set's items that are listed for a split, in the list's order."""
    wanted = {impath: line for impath, line in listed.items() if line[1] == split}
    known = {item.impath: item for item in items if item.impath in wanted}
    for impath, (name, _, item) in wanted.items():
        if impath not in known:
            raise ValueError(
                f"{name} lists {printable(impath)}, which is no {SPLIT_NAMES[split]} item of this data set. {REMEDY}"
            )
        found, right = ((x.label, x.classname) for x in (item, known[impath]))
        if found != right:
            raise ValueError(
                f"{name} gives {printable(impath)} the label and class name {shorten(found)}; in this data set they "
                f"are {shorten(right)}. {REMEDY}"
            )
    return [known[impath] for impath in wanted]


def require_shots(path: Path, drawn: Sequence[Datum], train: Sequence[Datum], shots: int) -> None:
    """Raises ValueError if a class has another number of training items in the list than a draw gives it."""
    n_drawn, n_train = (Counter(item.label for item in items) for items in (drawn, train))
    for item in drawn:
        if n_drawn[item.label] != min(shots, n_train[item.label]):
            raise ValueError(
                f"DATASET.NUM_SHOTS is {shots}, but {path} lists {n_drawn[item.label]} training item(s) of "
                f"{shorten(item.classname)}. Give their number, or -1 to accept any list."
            )
