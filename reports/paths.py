"""Folders and files that a command line names: whether they are there, and what to do if not."""

from __future__ import annotations

from pathlib import Path

from engine.files import missing_path


def check_folder(path: Path, argument: str, remedy: str = "Check the spelling, or start the runs first.") -> Path:
    """Returns the folder that an argument of the command line names.

    Raises:
        FileNotFoundError: It does not exist, or is a file.
    """
    if path.exists() and not path.is_dir():
        raise FileNotFoundError(f"{argument} is the file {path.absolute()}. Name the folder above the runs.")
    if not path.is_dir():
        raise FileNotFoundError(missing_path(path, argument, remedy))
    return path


def check_parent(path: Path | None, argument: str) -> None:
    """Looks whether a file, if one is named, can be written before hours go into what it will hold.

    Raises:
        FileNotFoundError: Its folder does not exist.
    """
    if path is not None and not path.absolute().parent.is_dir():
        folder = path.absolute().parent
        raise FileNotFoundError(f"{argument} is {path}, but the folder {folder} does not exist. Make it first.")
