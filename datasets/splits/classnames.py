"""Lists of class names, a line `FOLDER CLASS NAME` for each class."""

from pathlib import Path

from engine.text import shorten


def read_names(path: Path) -> list[tuple[str, str]]:
    """Returns the folder and the class name of each line; ValueError if it is no text, or a line has no class name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not readable ({error}). Save it as UTF-8 text.") from error
    names = []
    for number, line in enumerate(lines, start=1):
        folder, _, name = line.strip().partition(" ")
        if folder and not name.strip():
            raise ValueError(f"{path}, line {number} is {shorten(line)}. Add a class name after the folder.")
        if folder:
            names.append((folder, name.strip()))
    return names
