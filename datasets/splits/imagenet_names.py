"""ImageNet's classnames.txt, a line `FOLDER CLASS NAME` for each class.

Its prompts are made of these names and its labels are their lines' numbers, so another list gives other results: the
papers' is told from those of other code bases.
"""

import hashlib
from pathlib import Path

from engine.text import printable, shorten

from .classnames import read_names

CLASSNAMES_FILE = "classnames.txt"
CLASSNAMES_ID = "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"
CLASSNAMES_STEP = f"save https://drive.google.com/file/d/{CLASSNAMES_ID} as {CLASSNAMES_FILE}"
N_CLASSES = 1000


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
