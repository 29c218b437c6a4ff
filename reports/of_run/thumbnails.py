"""Images of a page, small and inside it."""

from __future__ import annotations

import base64
import io
import os
from html import escape
from pathlib import Path

from engine.data.image_io import BrokenImageError, MissingImageError, read_image
from engine.text import printable

MAX_PX, QUALITY = 160, 82


def thumbnail(path: Path) -> str:
    """Returns an image file as an <img> element, upright as it is stored; what is wrong with it, where it is."""
    if os.path.exists(path) and not os.path.isfile(path):  # of any name, however long
        return _absent("The image is no file.")  # opening a pipe would wait for ever
    try:
        image = read_image(path)
    except MissingImageError:
        return _absent("The image is gone.")
    except BrokenImageError as error:
        return _absent(error.fault)
    image.thumbnail((MAX_PX, MAX_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" width="{image.width}" height="{image.height}" alt="">'


def _absent(reason: str) -> str:
    return f'<div class="absent">{escape(printable(reason))}</div>'
