"""What a list of items may say, whoever wrote it: plain JSON, labels from 0, paths below the folder of the images.

A symbolic link that lies in the folder may lead out of it: the user has made it.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import Datum
from engine.text import shorten

# Nothing, an absolute path, a Windows drive; a character that ends a path; a step up. A backslash is Windows' slash.
LEADS_OUT = re.compile(r"\A(?:\Z|[/\\]|[A-Za-z]:)|\0|(?:\A|[/\\])\.\.(?:[/\\]|\Z)")
LARGEST_LABEL = 10**6  # what is larger is no class's number


class LeadsOut(ValueError):
    """A listed path that may lie outside of the folder of the images."""


def parse_json(text: str) -> Any:
    """Returns what a JSON text says; ValueError if it is none, nested too deep, or has a key twice or NaN."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("its lists are nested too deep") from error


def read_item(image_dir: str | Path, impath: Any, label: Any, classname: Any) -> Datum:
    """Returns the item that an entry of a list stands for, with its full path; ValueError if the entry is wrong."""
    require_facts(impath, label, classname)
    return Datum(join_listed(image_dir, impath), label, classname=classname)


def require_facts(impath: Any, label: Any, classname: Any) -> None:
    """Raises ValueError if a label is no class's number, or a path or a name no text."""
    if type(label) is not int:  # True is an int, but no label
        raise ValueError(f"label is {shorten(label)}, not a whole number")
    if not 0 <= label <= LARGEST_LABEL:
        raise ValueError(f"label is {shorten(label)}, not from 0 to {LARGEST_LABEL:,}")
    for name, value in (("impath", impath), ("classname", classname)):
        if type(value) is not str:
            raise ValueError(f"{name} is {shorten(value)}, not a text")


def join_listed(folder: str | Path, name: str) -> str:
    """Returns the path of a listed file.

    Raises:
        LeadsOut: If it is absolute, or has a step up, a drive or a NUL.
        UnicodeEncodeError: If it has a character that no file name has, half of a surrogate pair; a ValueError.
    """
    if LEADS_OUT.search(name):
        raise LeadsOut(f"the path is {shorten(name)}, not below the folder of the images")
    os.fsencode(name)  # raises, and says which character
    return os.path.join(folder, name)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shorten(twice)} is there twice")
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"a number is {constant}, not a finite one")
