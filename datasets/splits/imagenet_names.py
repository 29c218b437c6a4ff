"""ImageNet's classnames.txt, a line `FOLDER CLASS NAME` for each class.

Its prompts are made of these names and its labels are their lines' numbers, so another list gives other results: the
papers' is told from those of other code bases. Its names are the 1,000 that CLIP's authors published, which stand in
imagenet_names.txt (NOTICE says from where).
"""

import hashlib
from functools import cache
from pathlib import Path

from engine.text import printable, shorten

from .classnames import read_names

CLASSNAMES_FILE = "classnames.txt"
CLASSNAMES_ID = "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"
CLASSNAMES_STEP = f"save https://drive.google.com/file/d/{CLASSNAMES_ID} as {CLASSNAMES_FILE}"
N_CLASSES = 1000
MOST_OTHERS = 50  # more names than these that are not CLIP's make it another list


@cache
def clip_names() -> tuple[str, ...]:
    """Returns the names that CLIP's authors gave ImageNet's classes, in the order of the labels."""
    return tuple(Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines())


def read_classnames(path: Path, folders_sha256: str) -> dict[str, str]:
    """Returns folder -> class name of ImageNet's classes, in the order of the lines.

    Raises:
        ValueError: If it is not the papers' list: the folders, one a line, have another digest, more than MOST_OTHERS
            names are others, or names stand in other rows.
    """
    remedy = f"Delete it and prepare the data set again, or {CLASSNAMES_STEP}."
    try:
        names = read_names(path)
    except ValueError as error:
        raise ValueError(f"{error} {remedy}") from error
    folders = [folder for folder, _ in names]
    if hashlib.sha256("\n".join(folders).encode()).hexdigest() != folders_sha256:
        first = printable(folders[0]) if folders else "no folder"
        raise ValueError(
            f"{path} has {len(folders):,} lines, from {first} on: it is not the papers' list of {N_CLASSES:,} WordNet "
            f"ids, sorted, from n01440764 on. {remedy}"
        )
    for folder, name in names:
        if "," in name or "_" in name:
            raise ValueError(
                f"{path} calls {folder} {shorten(name)}: these are WordNet's or Keras' names, not the papers'. {remedy}"
            )
    classnames = dict(names)
    others, moved = other_names(classnames), moved_names(classnames)
    if len(others) > MOST_OTHERS or moved:
        raise ValueError(f"{path} is not the papers' list of names. {describe(others)} {moved}{remedy}")
    return classnames


def other_names(classnames: dict[str, str]) -> list[tuple[str, str, str]]:
    """Returns folder, name and CLIP's name of each class whose name is not CLIP's."""
    rows = zip(classnames.items(), clip_names(), strict=True)
    # Capitals make no difference: the tokenizer reads small letters.
    return [(folder, name, right) for (folder, name), right in rows if name.lower() != right.lower()]


def describe(others: list[tuple[str, str, str]]) -> str:
    """Returns how many names are not CLIP's, and the first of them."""
    first = ", ".join(f"{folder} is {shorten(name)}, not {right!r}" for folder, name, right in others[:3])
    return f"{len(others):,} of {len(clip_names()):,} names are not CLIP's: {first}{', ...' if others[3:] else '.'}"


def moved_names(classnames: dict[str, str]) -> str:
    """Returns a sentence if two or more classes have another class's name; it says if that is the next row's."""
    row_of, rows = ({key: row for row, key in enumerate(keys)} for keys in (map(str.lower, clip_names()), classnames))
    others = [(folder, name.lower()) for folder, name, _ in other_names(classnames)]
    moves = [(folder, row_of[name] - rows[folder]) for folder, name in others if name in row_of]
    if len(moves) < 2:
        return ""
    for step, where in ((1, "below"), (-1, "above")):
        shifted = [folder for folder, move in moves if move == step]
        if 2 * len(shifted) > len(moves):
            return (
                f"From {shifted[0]} on the list is shifted by one row: {len(shifted):,} have the name {where} theirs. "
            )
    return f"{len(moves):,} have the name of another class, from {moves[0][0]} on. "


def names_warning(path: Path, classnames: dict[str, str]) -> str:
    """Returns a sentence on a list that was not refused but has a few names that are not CLIP's; "" if it has none."""
    others = other_names(classnames)
    return f"{path}: {describe(others)} Results with such prompts do not compare with the papers'." if others else ""


def require_same(path: Path, classnames: dict[str, str], other: Path) -> None:
    """Raises ValueError if another copy, itself a good one, has other names."""
    names_there = read_classnames(other, hashlib.sha256("\n".join(classnames).encode()).hexdigest())
    for folder, name in classnames.items():
        if name != names_there[folder]:
            raise ValueError(
                f"{path} calls {folder} {shorten(name)}, but {other} calls it {shorten(names_there[folder])}. Delete "
                "the wrong one, or both, and prepare the data sets again."
            )
