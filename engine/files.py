"""Files: written whole or not at all, and what to say of one that is missing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(temporary path)` and moves the result to `path`: a reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def existing_part(path: Path) -> Path:
    """Returns the deepest folder above an absolute `path` that exists."""
    return next(parent for parent in path.parents if parent.exists())


def missing_path(path: str | Path, what: str, remedy: str) -> str:
    """Returns the message for a file or folder that is not there: its full path, the part that exists, what to do."""
    path = Path(path).expanduser().absolute()
    return f"{what} {path} does not exist (the part that does: {existing_part(path)}). {remedy}"
