"""Folders that lie in the wrong folder: where a missing path is instead, and the command that puts it right."""

import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..data_copy import DataCopy
from ..splits.folder_items import list_folders

DEPTH = 3  # of folders in the data set's own that are searched: ILSVRC/Data/CLS-LOC
N_SEARCHED = 1000  # so that the search ends at once, however many folders there are


def how_to_move(copy: DataCopy, path: Path, inside: Path | None = None) -> str:
    """Returns how to put right that a path of the copy is missing; "" where it is not found nearby.

    It is looked for in the data set's folder: an archive's top folder stayed, or one was made twice. Where there is no
    such folder, the root may be it, or it has another name. The command never overwrites.

    Args:
        copy: The copy.
        path: What is missing, absolute.
        inside: The folder that it is looked for from: what lies beside the path moves with it. None: the path's own.
    """
    inside = inside or path.parent
    if not copy.dataset.dataset_dir or not path.is_relative_to(inside):
        return ""
    if not copy.folder.exists():
        return _how_to_find(copy, path.relative_to(copy.folder))
    wanted = path.relative_to(inside)
    above = next((folder for folder in _folders_in(copy.folder) if (folder / wanted).exists()), None)
    if above is None:
        return ""
    found = above / wanted
    while (inside / wanted.parts[0]).exists():  # its folder is there, only empty or in part
        above, inside = above / wanted.parts[0], inside / wanted.parts[0]
        wanted = path.relative_to(inside)
    what = shlex.quote(wanted.parts[0]) if inside.is_relative_to(above) else "*"
    make = "" if inside.exists() else f"mkdir -p {_quote(inside)} && "
    return f"It lies at {found}: run `{make}mv -n {_quote(above)}/{what} {_quote(inside)}/`."


def _how_to_find(copy: DataCopy, wanted: Path) -> str:
    """Returns what to do where the root is, or is in, the data set's folder, or that has another name."""
    for above in (copy.root, *copy.root.parents):
        if above.name == copy.folder.name and any((above / path).exists() for path in (wanted, wanted.name)):
            where = f"{above.name} itself" if above == copy.root else f"in {above.name}"
            return f"The root is {where}: pass the folder that holds it as DATA or --root {_quote(above.parent)}."
    names = {_simplify(copy.folder.name), _simplify(copy.name)}
    other = next((folder for folder in list_folders(copy.root) if _simplify(folder.name) in names), None)
    return f"If {other} is it, run `mv {_quote(other)} {_quote(copy.folder)}`." if other else ""


def _folders_in(folder: Path) -> Iterator[Path]:
    """Yields a folder and those below it, the upper ones first."""
    level = [folder]
    yield folder
    for _ in range(DEPTH):
        level = list(islice((below for above in level for below in list_folders(above)), N_SEARCHED))
        yield from level


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _simplify(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
