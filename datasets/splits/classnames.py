"""Lists of class names, a line `FOLDER CLASS NAME` for each class; above all ImageNet's classnames.txt.

Its prompts are made of these names and its labels are their lines' numbers, so another list gives other results: the
papers' is told from those of other code bases.
"""

import csv
import hashlib
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

from engine.text import printable, shorten

CLASSNAMES_FILE = "classnames.txt"
CLASSNAMES_ID = "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"
CLASSNAMES_STEP = f"save https://drive.google.com/file/d/{CLASSNAMES_ID} as {CLASSNAMES_FILE}"
N_CLASSES = 1000


def one_form(name: str) -> str:
    """Returns a name in one Unicode form, NFC, to compare it: disks and editors write an accent in two ways."""
    return unicodedata.normalize("NFC", name)


def read_names(path: Path) -> list[tuple[str, str]]:
    """Returns the folder and the class name of each line; ValueError if it is no text, or a line has no class name."""
    names = []
    for number, line in _read_lines(path):
        folder, *name = line.split(maxsplit=1)
        if not name:
            raise ValueError(_without_name(path, number, line))
        names.append((folder, *name))
    return names


def match_names(path: Path, folders: Collection[str]) -> dict[str, str]:
    """Returns folder -> class name; of a line, the folder is the longest of `folders`, which may hold spaces.

    A space, a tab or a comma stands between the two. Lines of other folders are left out.

    Raises:
        ValueError: If it is no text, a line has no class name, or a folder has no line or several.
    """
    known, names, numbers, others = {one_form(folder): folder for folder in folders}, {}, {}, []
    for number, line in _read_lines(path):
        folder, name = _split_line(line.strip(), known)
        if folder not in known:
            others.append(f" Line {number}, {shorten(line)}, begins with no folder's name.")
        elif not name:
            raise ValueError(_without_name(path, number, line))
        elif folder in names:
            raise ValueError(
                f"{path}, lines {numbers[folder]} and {number} both name the folder {printable(folder)}. Remove one."
            )
        else:
            names[folder], numbers[folder] = name, number
    lacking = sorted(set(known) - set(names))
    if lacking:
        raise ValueError(
            f"{path} has no line for the folder {printable(lacking[0])} ({len(lacking)} such). Add `FOLDER CLASS NAME` "
            f"for each class.{''.join(others[:1])}"
        )
    return {folder: names[one_form(folder)] for folder in folders}


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Returns the number, from 1, and the text of each line that is not empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # -sig: Windows' editors begin with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not readable ({error}). Save it as UTF-8 text.") from error
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _split_line(line: str, known: Collection[str]) -> tuple[str, str]:
    """Returns the folder, in one form, and the name, "" without one; where no folder is known, the line as a whole."""
    if line.startswith('"'):
        line = ",".join(next(csv.reader([line])))
    separators = [] if one_form(line) in known else re.finditer(r"[\s,]", line)
    for separator in reversed(list(separators)):
        folder, name = one_form(line[: separator.start()]), line[separator.end() :].strip()
        if folder in known and name:
            return folder, ",".join(next(csv.reader([name]))) if separator[0] == "," else name
    return one_form(line), ""


def _without_name(path: Path, number: int, line: str) -> str:
    return f"{path}, line {number} is {shorten(line)}. Add a class name after the folder."


def read_classnames(path: Path, folders_sha256: str) -> dict[str, str]:
    """Returns folder -> class name of ImageNet's classes, in the order of the lines.

    Raises:
        ValueError: If it is not the papers' list: the folders, one a line, have another digest, or names are others.
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
    return dict(names)


def require_same(path: Path, classnames: dict[str, str], other: Path) -> None:
    """Raises ValueError if another copy, itself a good one, has other names."""
    names_there = read_classnames(other, hashlib.sha256("\n".join(classnames).encode()).hexdigest())
    for folder, name in classnames.items():
        if name != names_there[folder]:
            raise ValueError(
                f"{path} calls {folder} {shorten(name)}, but {other} calls it {shorten(names_there[folder])}. Delete "
                "the wrong one, or both, and prepare the data sets again."
            )
