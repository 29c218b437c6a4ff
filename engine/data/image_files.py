"""Which files are images: by the suffix; in the user's own folders those of another suffix, or of none, by content."""

import os
from collections.abc import Iterator
from pathlib import Path

from .image_io import is_readable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm")
TEXT_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".md", ".yaml", ".yml", ".py", ".log")
CAMERA_RAW = (".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw")  # begin with a thumbnail
PICTURE_SUFFIXES = (
    *(".jfif", ".jif", ".jpe", ".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".jxl", ".svg", ".psd", ".ico"),
    *(".tga", ".eps", *CAMERA_RAW),
)
OF_SYSTEMS = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
HIDDEN = (".", "__")  # how the names of hidden folders begin, and macOS's
IMAGE, NO_SUFFIX = "image", "without a suffix"
N_HEAD = 512  # bytes that tell a text from other files


def is_image(name: str) -> bool:
    """Says whether a file of this name is an image; ._1.jpg of macOS is none."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def list_readable(folder: str | Path) -> list[str]:
    """Returns the names of a folder's images, sorted; files whose suffix says nothing are opened, no others."""
    return _readable(folder, os.listdir(folder))


def images_below(folder: str | Path, *, also: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yields the images in a folder and below, by path, but for those in hidden folders; `also` are other suffixes."""
    for above, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
        yield from (Path(above, name) for name in _readable(above, names, also))


def kind_of(path: str) -> str:
    """Returns IMAGE for an image, the suffix of a file that is not read, "" for what nobody takes for an image.

    The latter are folders, texts, and the files of systems and of programs (hidden, without an image's suffix).
    """
    name = os.path.basename(path)
    suffix = os.path.splitext(name)[1].lower()
    if name.lower() in OF_SYSTEMS or name.startswith("._") or suffix in TEXT_SUFFIXES:
        return ""
    if suffix in IMAGE_SUFFIXES:
        return IMAGE
    if name.startswith(".") or not os.path.isfile(path):
        return ""
    if suffix not in CAMERA_RAW and is_readable(path):
        return IMAGE
    if suffix in PICTURE_SUFFIXES or not _is_text(path):
        return suffix or NO_SUFFIX
    return ""


def _readable(folder: str | Path, names: list[str], also: tuple[str, ...] = ()) -> list[str]:
    above, shown = os.path.join(folder, ""), (name for name in sorted(names) if not name.startswith("."))
    return [x for x in shown if x.lower().endswith((*IMAGE_SUFFIXES, *also)) or kind_of(above + x) == IMAGE]


def _is_text(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return b"\0" not in file.read(N_HEAD)
    except OSError:  # nobody knows
        return False
