"""Publishers' own labels, lists of lines and MATLAB files: they stand in where the papers' split is not to be had.

What reads a file raises FileNotFoundError if it is missing, and ValueError if it is not as it should be.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine import Datum
from engine.files import existing_part
from engine.text import shorten

from .entries import LeadsOut
from .own_split import hold_out_val
from .split_file import Items

T = TypeVar("T")


def read_and_hold_out(paths: Sequence[Path], read_item: Callable[[str], Datum], form: str) -> Items:
    """Returns the items of a publisher's lists, to train and to test on; of the first a fifth is held out for val."""
    trainval, test = (read_list(path, read_item, form) for path in paths)
    return *hold_out_val(trainval), test


def read_list(path: Path, read_line: Callable[[str], T], form: str) -> list[T]:
    """Returns what each line of a list says, such as an item.

    Args:
        path: The list.
        read_line: Says it of a line; raises KeyError or ValueError where it cannot.
        form: What a line should be, in words.
    """
    found = []
    for line in read_lines(path):
        try:
            found.append(read_line(line))
        except LeadsOut as error:
            raise wrong_file(path, f"has the line {shorten(line)}", "paths below the folder of the images") from error
        except (KeyError, ValueError) as error:
            raise wrong_file(path, f"has the line {shorten(line)}", form) from error
    return found


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a list, stripped, without empty ones."""
    require_file(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise wrong_file(path, f"is not readable ({error})", "lines of text") from error
    return [line.strip() for line in lines if line.strip()]


def read_mat(path: Path, name: str) -> np.ndarray:
    """Returns a variable of a MATLAB file as a flat array, a struct's fields by their names."""
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


def wrong_file(path: Path, finding: str, right: str) -> ValueError:
    """Returns the error to raise for what a file is or has, and what it should be or have instead."""
    return ValueError(f"{path} {finding} instead of {right}. Delete it and prepare the data set again.")


def require_file(path: Path) -> None:
    """Raises FileNotFoundError if there is no such file."""
    if not path.exists():
        raise FileNotFoundError(
            f"The publisher's {path} is missing; of this path {existing_part(path)} exists. Prepare the data set again."
        )
