"""Common mistakes in laying out a copy: where a missing path lies instead, and the command that puts it right."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

DEPTH = 3  # of folders in the data set's own that are searched: ILSVRC/Data/CLS-LOC
N_SEARCHED = 1000  # so that the search ends at once, however many folders there are


def how_to_move(dataset: type, path: Path, inside: Path | None = None) -> str:
    """Returns the command that puts a missing path where it is expected, over nothing; "" where it is not found nearby.

    It is looked for in the folders of the data set's own: an archive's top folder stayed, or one was made twice. Where
    there is no such folder, the root may be it, or it has another name.

    Args:
        dataset: The data set's class.
        path: What is missing; absolute, and in the data set's folder.
        inside: The folder that it is looked for from: what lies beside the path moves with it. None: the path's own.
    """
    inside = inside or path.parent
    folder = find_folder(dataset, path)
    if folder is None or not path.is_relative_to(inside):
        return ""
    if not folder.exists():
        return _find_copy(dataset, folder, path.relative_to(folder))
    wanted = path.relative_to(inside)
    place = next((place for place in _folders_in(folder) if (place / wanted).exists()), None)
    if place is None:
        return ""
    found = place / wanted
    while (inside / wanted.parts[0]).exists():  # its folder is in its place, only empty or in part
        place, inside = place / wanted.parts[0], inside / wanted.parts[0]
        wanted = path.relative_to(inside)
    what = shlex.quote(wanted.parts[0]) if inside.is_relative_to(place) else "*"
    make = "" if inside.exists() else f"mkdir -p {_quote(inside)} && "
    return f"It lies at {found}: run `{make}mv -n {_quote(place)}/{what} {_quote(inside)}/`."


def find_folder(dataset: type, path: Path) -> Path | None:
    """Returns the data set's folder, there or not, that a path is in; None where it is in none."""
    named = (place for place in path.parents if dataset.dataset_dir and place.name == dataset.dataset_dir)
    return next(named, None)


def _find_copy(dataset: type, folder: Path, wanted: Path) -> str:
    root = folder.parent
    for place in (root, *root.parents):
        if place.name == folder.name and ((place / wanted).exists() or (place / wanted.name).exists()):
            where = f"{folder.name} itself" if place == root else f"in {folder.name}"
            return f"The root is {where}: pass the folder that holds it, --root {_quote(place.parent)}."
    for place in list_folders(root)[:N_SEARCHED]:
        if (place / folder.name / wanted).exists():
            return f"It lies a level deeper: pass --root {_quote(place)}."
    if (root / wanted).exists():
        what = f"mv {_quote(root / wanted.parts[0])} {_quote(folder)}/"
        return f"If {root / wanted} is it, run `mkdir {_quote(folder)} && {what}`."
    names = {_simplify(folder.name), _simplify(dataset.__name__)}
    for other in sorted(root.iterdir()) if root.is_dir() else ():
        if other.is_dir() and _simplify(other.name) in names:
            return f"If {other} is it, run `mv {_quote(other)} {_quote(folder)}`."
    return ""


def _folders_in(folder: Path) -> Iterator[Path]:
    """Yields a folder and those below it, the upper ones first."""
    level = [folder]
    yield folder
    for _ in range(DEPTH):
        level = list(islice((below for place in level for below in list_folders(place)), N_SEARCHED))
        yield from level


def list_folders(folder: Path) -> list[Path]:
    """Returns the folders in a folder, sorted, without hidden ones and macOS's; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(Path(entry) for entry in entries if not entry.name.startswith((".", "__")) and entry.is_dir())


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _simplify(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
