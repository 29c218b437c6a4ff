"""Files that are made of results: written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(temporary path)` and moves the result to `path`: what was there before stays where that fails.

    A link leads to the file that is written; what is no file, such as /dev/stdout, is written to as it is.
    The runs' own files are written by engine.files, which comes with torch; a report needs none.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        write(path)
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()
