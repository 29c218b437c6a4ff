"""Reads an image file as RGB of 8 bits a channel, or raises an error that names it. DATASETS.md lists all cases."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ..files import FAULTS_OF_MACHINE
from ..text import printable

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # not EPS: Pillow would call Ghostscript
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose integers have 16 bits, whatever Pillow's mode
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of a TIFF
WHITE_IS_ZERO = 0  # a value of the latter


def read_image(
    path: str | os.PathLike,
    read: Callable[[str | os.PathLike], Any] = lambda path: path,
    *,
    shorter_edge: int = 0,
) -> Image.Image:
    """Returns the image file as RGB.

    Args:
        path: The file.
        read: From the path to what Pillow opens: itself, or a file with its bytes.
        shorter_edge: See `to_rgb`.

    Raises:
        MissingImageError: If there is no such file (a FileNotFoundError).
        BrokenImageError: If it does not decode or is too large (a ValueError).
    """
    _hush_pillow()
    shown = printable(str(path))
    try:
        with Image.open(read(path), formats=FORMATS) as image:
            return to_rgb(image, shorter_edge=shorter_edge)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingImageError(
            f"Image {shown} is missing.",
            "If a split lists it, add it. `python -m datasets.check NAME --root FOLDER` lists all missing images.",
        ) from error
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"Image {shown} has too many pixels ({error}).", "Make it smaller.") from error
    except Exception as error:  # each decoder raises its own kind
        raise BrokenImageError(
            f"Image {shown} does not decode ({type(error).__name__}: {error}).",
            "Replace it, or leave such images out with INPUT.ON_BAD_IMAGE skip. `python -m datasets.check NAME --root "
            "FOLDER --decode` finds them all.",
        ) from error


def is_readable(path: str | os.PathLike) -> bool:
    """Says whether a file begins as an image that `read_image` knows, whatever its name; no pixel is decoded."""
    _hush_pillow()
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception as error:  # each format raises its own kind
        if getattr(error, "errno", None) in FAULTS_OF_MACHINE:
            raise  # else a disk that does not answer would change a list of images
        return False


def to_rgb(image: Image.Image, *, shorter_edge: int = 0) -> Image.Image:
    """Returns the first frame as it is stored: EXIF rotation, transparency and colour profile are ignored.

    Args:
        image: As Pillow opens it.
        shorter_edge: A JPEG file that is not read yet is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its edges
            that leaves its shorter edge so many pixels. 0: decoded whole, as other files always are.

    Raises:
        ValueError: If black and white are not defined: values of 32 bits.
    """
    if shorter_edge:
        image.draft(None, (shorter_edge, shorter_edge))
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BITS):
        # Differs from the original: there all values above 255 become white, nearly the whole image.
        return Image.fromarray(_upper_bits(image)).convert("RGB")
    if image.mode in ("I", "F"):  # Differs from the original: there they are cut off at 0 and 255, whatever they mean.
        raise ValueError("its values have 32 bits and no known range; save it with 8 or 16 bits")
    return image.convert("RGB")


def _upper_bits(image: Image.Image) -> np.ndarray:
    """Returns the upper 8 bits of 12 or 16 bits of grey, (H, W) uint8; Pillow leaves both, and the sign, as stored."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    (n_bits,) = tags.get(BITS_PER_SAMPLE, (16,))
    grey = (np.asarray(image) >> (n_bits - 8)).astype(np.uint8)
    return 255 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey


@cache
def _hush_pillow() -> None:
    """Turns off Pillow's warnings, once in a process: they concern no pixel, and each worker would repeat them."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


class _ImageError(Exception):
    """An error with the same text from a worker process: torch makes it again from a traceback, the message last.

    Attributes:
        fault: What is wrong with the image, without what to do in a data set; not known of a worker's.
    """

    def __init__(self, fault: str, advice: str = ""):
        name = f"{type(self).__module__}.{type(self).__qualname__}: "
        self.fault = fault.rpartition(name)[2].strip()
        super().__init__(f"{self.fault} {advice}".strip())


class MissingImageError(_ImageError, FileNotFoundError):
    """An image file that is not there."""


class BrokenImageError(_ImageError, ValueError):
    """An image file that does not decode."""
