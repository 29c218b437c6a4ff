"""Image features in memory and on disk, shared by all runs with the same tower and transform.

A shard (engine/features/shards.py) of a space, which is all that decides a feature besides the image, holds the keys
(N,) and the features (N, E) of the images that one pass encoded.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .shards import KEY, Shards

logger = logging.getLogger(__name__)


class FeatureCache:
    """The features of one space.

    Args:
        folder: The cache's folder, shared by all spaces; None keeps features in memory alone.
        space: A digest of what decides a feature besides the image.
        max_bytes: Of the folder; beyond it the shards that were used longest ago are removed.
    """

    def __init__(self, folder: Path | None, space: str, *, max_bytes: int):
        self.shards = Shards(folder, space, ".npz", rows_of, max_bytes=max_bytes)
        self.rows: dict[bytes, np.ndarray] = {}

    def is_empty(self) -> bool:
        """Says whether no feature is kept."""
        self.rows = self.rows or self.shards.read_new()
        return not self.rows

    def lookup(self, keys: Sequence[bytes | None]) -> list[np.ndarray | None]:
        """Returns the feature (E,) float32 of each key, None where there is none."""
        if any(key not in self.rows for key in keys):
            self.rows |= self.shards.read_new()
        return [self.rows.get(key) for key in keys]

    def add(self, keys: Sequence[bytes], features: np.ndarray, *, write: bool = True) -> None:
        """Keeps features (N, E) float32, with `write` also on disk; a folder that cannot be written is told once."""
        self.rows.update(zip(keys, features))
        folder = self.shards.folder
        if folder is None or not len(keys) or not write:
            return
        file = io.BytesIO()
        np.savez(file, keys=np.array(keys, dtype=KEY), features=features)
        try:
            self.shards.write(file.getvalue())
        except OSError as error:
            logger.warning(
                f"FEATURES.DIR is {folder}, which cannot be written ({error}): this run keeps features in memory"
            )
            self.shards.folder = None


def rows_of(content: bytes) -> dict[bytes, np.ndarray]:
    """Returns key -> feature of a shard's content; nothing where it is not what `add` writes."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:  # a pickle could run code
            keys, features = arrays["keys"], arrays["features"]
    except Exception:  # what a broken file raises is not documented
        return {}
    fits = keys.dtype == KEY and features.dtype == np.float32 and features.ndim == 2 and len(keys) == len(features)
    return dict(zip(keys.tolist(), features)) if fits else {}
