"""An image file becomes RGB of 8 bits a channel, or an error that names it. DATASETS.md has what each kind gives."""

from __future__ import annotations

import os
import warnings
from functools import cache

import numpy as np
from PIL import Image

from ..text import printable

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # not EPS: Pillow would call Ghostscript
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose integers are of 16 bits, in whatever mode Pillow keeps them


def read_image(path: str | os.PathLike) -> Image.Image:
    """Returns the image file as RGB.

    Raises:
        MissingImageError: If there is no such file; a FileNotFoundError.
        BrokenImageError: If it does not decode, or is too large; a ValueError.
    """
    _hush_pillow()
    shown = printable(str(path))
    try:
        with Image.open(path, formats=FORMATS) as image:
            return _to_rgb(image)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingImageError(
            f"Image {shown} is missing, expected every file that the split lists. Put it there; "
            "`python -m datasets.check NAME --root FOLDER` lists all that are missing."
        ) from error
    except Image.DecompressionBombError as error:
        raise BrokenImageError(
            f"Image {shown} has too many pixels ({error}), expected what fits into memory. Make it smaller."
        ) from error
    except Exception as error:  # what a decoder raises on a broken file depends on the format
        raise BrokenImageError(
            f"Image {shown} does not decode ({type(error).__name__}: {error}), expected a whole image file. "
            "Replace it, or go on without such images: INPUT.ON_BAD_IMAGE skip. `python -m datasets.check NAME --root "
            "FOLDER --decode` finds them all."
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Returns an opened file's first frame as it is stored: not turned, its transparency and colour profile left out.

    Raises:
        ValueError: If it does not say which of its values are black and white.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BITS):
        # Differs from the original: there all values above 255 become white, which is nearly the whole image.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    # Differs from the original: there they are cut off at 0 and 255, whatever they mean.
    if image.mode in ("I", "F"):
        raise ValueError("its values have 32 bits and no known range, expected 8 or 16 bits")
    return image.convert("RGB")


@cache
def _hush_pillow() -> None:
    """Once in a process. What Pillow warns of changes no pixel, and every worker would say it of every such image."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


class _ImageError(Exception):
    """An error that reads the same from a worker process, where torch makes the text a traceback, its message last."""

    def __init__(self, text: str):
        name = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(text.rpartition(name)[2].strip())


class MissingImageError(_ImageError, FileNotFoundError):
    """An image file that is not there."""


class BrokenImageError(_ImageError, ValueError):
    """An image file that does not decode."""
