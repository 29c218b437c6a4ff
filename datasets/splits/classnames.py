"""Lists of class names, a line `FOLDER CLASS NAME` for each class."""

import csv
import re
from collections.abc import Collection
from pathlib import Path

from engine.text import one_form, printable, shorten


def read_names(path: Path) -> list[tuple[str, str]]:
    """Returns the folder and the class name of each line; ValueError if it is no text, or a line has no class name."""
    names = []
    for number, line in _read_lines(path):
        folder, *name = line.strip().split(maxsplit=1)
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
