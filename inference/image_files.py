"""Which files of a folder are images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from engine.data.image_io import FORMATS


def images_below(folder: Path) -> Iterator[Path]:
    """Yields the image files in a folder and below, by path; hidden ones are left out."""
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in known:
                yield Path(above, name)
