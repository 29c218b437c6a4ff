"""Publishers' own labels: lists of lines and MATLAB files are read, and val items, which most lack, are held out.

They stand in for the papers' split where that is not to be had.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine import Datum
from engine.files import existing_part
from engine.text import shorten

from ..files import OWN_SPLIT_SEED
from .entries import LeadsOut
from .few_shot import group_by_label

HELD_OUT_RULE = "the publisher's test images; of the others a fifth of each class for val"
T = TypeVar("T")


def read_list(path: Path, read_line: Callable[[str], T], expected: str) -> list[T]:
    """Returns what each line of a list says, such as an item.

    Args:
        path: The list.
        read_line: Says it of a line; raises KeyError or ValueError where it cannot.
        expected: What a line should be, in words.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not text, or has another line than expected.
    """
    found = []
    for line in read_lines(path):
        try:
            found.append(read_line(line))
        except LeadsOut as error:
            raise wrong_file(path, f"has the line {shorten(line)}", "paths below the folder of the images") from error
        except (KeyError, ValueError) as error:
            raise wrong_file(path, f"has the line {shorten(line)}", expected) from error
    return found


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a list, stripped, without empty ones.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not text.
    """
    require_file(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise wrong_file(path, f"is not readable ({error})", "lines of text") from error
    return [line.strip() for line in lines if line.strip()]


def read_mat(path: Path, name: str) -> np.ndarray:
    """Returns a variable of a MATLAB file as a flat array, a struct's fields by their names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no MATLAB file or lacks the variable.
    """
    from scipy.io import loadmat  # here, because it is rarely needed and slow to import

    require_file(path)
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True)[name])
    except Exception as error:  # scipy lets through almost any, by what is broken
        finding = f"is not readable ({type(error).__name__}: {error})"
        raise wrong_file(path, finding, f"a MATLAB file with the variable {name}") from error


def label_of(number: str) -> int:
    """Returns the label, from 0, of a class that the publisher numbers from 1; ValueError if it is no such number."""
    if int(number) < 1:
        raise ValueError(f"{number} is no class's number")
    return int(number) - 1


def hold_out_val(items: Sequence[Datum], seed: int = OWN_SPLIT_SEED) -> tuple[list[Datum], list[Datum]]:
    """Returns the items to train on and a fifth of each class, drawn at random, for val; both keep their order."""
    rng = random.Random(seed)
    held_out = {item.impath for group in group_by_label(items) for item in rng.sample(group, round(len(group) / 5))}
    train = [item for item in items if item.impath not in held_out]
    return train, [item for item in items if item.impath in held_out]


def wrong_file(path: Path, finding: str, expected: str) -> ValueError:
    """Returns the error to raise for what a file is or has."""
    return ValueError(f"{path} {finding}, expected {expected}. Delete it and prepare the data set again.")


def require_file(path: Path) -> None:
    """Raises FileNotFoundError if there is no such file."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing, expected the publisher's file; of this path {existing_part(path)} exists. Prepare the "
            "data set again."
        )
