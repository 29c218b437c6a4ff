"""ImageNet's class names: classnames.txt, a line `FOLDER CLASS NAME` for each of the 1,000 classes.

The prompts are made of these names and the labels are their lines' numbers, so another list gives other results: the
papers' is told from those of other code bases.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from engine.text import printable, shorten

CLASSNAMES_FILE = "classnames.txt"
CLASSNAMES_ID = "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"
CLASSNAMES_STEP = f"save https://drive.google.com/file/d/{CLASSNAMES_ID} as {CLASSNAMES_FILE}"
N_CLASSES = 1000
WORDNET_ID = re.compile(r"n\d{8}")


def read_classnames(path: Path, folders_sha256: str) -> dict[str, str]:
    """Returns folder -> class name, in the order of the lines.

    Args:
        path: The file.
        folders_sha256: Digest of the folders' names, one a line, that it has to have.

    Raises:
        ValueError: If it is not the papers' file: other folders or another order, or names as they never are there.
    """
    classnames: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        folder, _, name = line.strip().partition(" ")
        if not folder:
            continue
        if not name.strip() or folder in classnames:
            raise wrong_file(
                f"{path}, line {number} is {shorten(line)}, expected `FOLDER CLASS NAME`, each folder once"
            )
        if "," in name or "_" in name:
            raise wrong_file(
                f"{path}, line {number} calls {printable(folder)} {shorten(name.strip())}, expected one name without "
                "underscores: this is a list of WordNet's or Keras' names, not the papers'"
            )
        classnames[folder] = name.strip()
    if hashlib.sha256("\n".join(classnames).encode()).hexdigest() != folders_sha256:
        raise wrong_file(f"{path} {other_folders(list(classnames))}")
    return classnames


def other_folders(folders: list[str]) -> str:
    """Returns in what a list of folders differs from ImageNet's, and what was expected."""
    if len(folders) != N_CLASSES:
        return f"has {len(folders)} lines, expected {N_CLASSES:,}, one for each of ImageNet's classes"
    for before, folder in zip(["", *folders], folders):
        if not WORDNET_ID.fullmatch(folder):
            return f"has the folder {printable(folder)}, expected WordNet ids such as n01440764"
        if folder < before:
            return f"has the folder {folder} after {before}, expected the sorted order, which is that of the labels"
    return "has other folders, expected those of ImageNet's 1,000 classes (ILSVRC 2012)"


def require_same(path: Path, classnames: dict[str, str], other: Path) -> None:
    """Raises ValueError if another copy, itself a good one, has other names."""
    names_there = read_classnames(other, hashlib.sha256("\n".join(classnames).encode()).hexdigest())
    for folder, name in classnames.items():
        if name != names_there[folder]:
            raise ValueError(
                f"{path} calls {folder} {shorten(name)}, expected {shorten(names_there[folder])} as in {other}. Delete "
                "the wrong one, or both, and prepare the data sets again."
            )


def wrong_file(what: str) -> ValueError:
    return ValueError(f"{what}. Delete it and prepare the data set again, or {CLASSNAMES_STEP}.")
