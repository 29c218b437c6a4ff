"""Files, seeds, names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from engine import set_random_seed
from engine.data.image_io import read_image
from engine.files import write_atomically
from engine.log import environment as collect_env_info
from engine.registry import near_name


def mkdir_if_missing(dirname: str | Path) -> None:
    """Makes a folder and those above it."""
    Path(dirname).mkdir(parents=True, exist_ok=True)


def check_isfile(fpath: str | Path) -> bool:
    """Says whether a file is there."""
    return Path(fpath).is_file()


def read_json(fpath: str | Path) -> Any:
    """Returns the content of a JSON file."""
    return json.loads(Path(fpath).read_text(encoding="utf-8"))


def write_json(obj: Any, fpath: str | Path) -> None:
    """Writes a JSON file, and its folder if need be."""
    text = json.dumps(obj, indent=4, separators=(",", ": "))
    write_atomically(Path(fpath), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def listdir_nohidden(path: str | Path, sort: bool = False) -> list[str]:
    """Returns the names in a folder that do not begin with a dot."""
    names = [entry.name for entry in Path(path).iterdir() if not entry.name.startswith(".")]
    return sorted(names) if sort else names


def tolist_if_not(x: Any) -> list:
    """Returns a list as it is, an iterable of another kind as a list, anything else as a list of one."""
    if isinstance(x, list):
        return x
    return list(x) if hasattr(x, "__iter__") and not isinstance(x, (str, nn.Parameter, Tensor)) else [x]


def check_availability(requested: str, available: Sequence[str]) -> None:
    """Raises ValueError if a name is none of those that there are."""
    if requested not in available:
        names = ", ".join(map(str, available))
        raise ValueError(f"{requested!r} is none of: {names}.{near_name(requested, available)}")
