"""What a visitor of demo.py's page gives: an uploaded image, and a text with class names. Both may be anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image

from engine.data.image_io import FORMATS, to_rgb
from engine.text import printable

MAX_PIXELS = 50_000_000  # of an image; a page may be open to others, and a pixel costs four bytes
MAX_NAMES = 1000  # the text tower encodes each
ORIENTATION = 0x0112  # EXIF's tag; 1: as stored, 2 to 8: turned or mirrored
TURNED = "The camera has marked this photo as turned. The classifier sees it as it is stored, as in training."


def read_names(typed: str) -> tuple[str, ...]:
    """Returns the class names of a text, one a line or with commas between them; () if there are none.

    Raises:
        ValueError: If there is one alone, or too many.
    """
    names = tuple(dict.fromkeys(name for part in re.split(r"[,\n]", typed or "") if (name := part.strip())))
    if len(names) == 1:
        raise ValueError(f"There is one class name, {printable(names[0])}. Type at least two, to choose from.")
    if len(names) > MAX_NAMES:
        raise ValueError(f"There are {len(names):,} class names; the page takes up to {MAX_NAMES:,}. Use predict.py.")
    return names


def read_upload(upload: dict[str, Any], uploads: Path, *, shorter_edge: int = 0) -> tuple[Image.Image, list[str]]:
    """Returns an uploaded image as training reads files, RGB, and sentences on what may surprise.

    Args:
        upload: Its `path` and `orig_name`, as gradio says them; what calls the page without a browser may name any.
        uploads: The folder of uploads; no other file is read.
        shorter_edge: See `to_rgb`.

    Raises:
        ValueError: If it is not there, empty, too large or no image.
    """
    name, path = printable(upload.get("orig_name") or "The image"), Path(str(upload.get("path"))).resolve()
    if not (path.is_relative_to(uploads.resolve()) and path.is_file()):
        raise ValueError(f"{name} is no longer here. Drop it again.")
    if not path.stat().st_size:
        raise ValueError(f"{name} is empty: it has 0 bytes. Choose another image.")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            doubts = [TURNED] if is_turned(image) else []
            return to_rgb(image, shorter_edge=shorter_edge), doubts
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} has more than {MAX_PIXELS / 1e6:.0f} megapixels. Make it smaller.") from error
    except Exception as error:  # each decoder raises its own kind
        raise ValueError(
            f"{name} cannot be read: it is damaged, or of a kind that is not known. Save it as JPEG or PNG."
        ) from error


def is_turned(image: Image.Image) -> bool:
    """Says whether a camera has marked the image as turned."""
    try:
        return image.getexif().get(ORIENTATION) in range(2, 9)
    except Exception:  # broken EXIF data, which training does not read
        return False
