"""Image features on disk, shared by all runs with the same tower and transform, side by side.

    FOLDER/SPACE/SHARD.npz        SPACE: what decides a feature, besides the image; SHARD: the sha256 of the file

A shard holds the keys (N,) and the features (N, E) of the images that one pass encoded. It is written whole and never
changed, so processes need no lock; a file that does not fit its name is removed, and its features are made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import write_atomically

logger = logging.getLogger(__name__)

KEY = "S32"  # of a hexadecimal digest


class FeatureCache:
    """The features of one space, in memory and on disk.

    Args:
        folder: The cache's folder, shared by all spaces; None keeps features in memory alone.
        space: A digest of what decides a feature besides the image.
        max_bytes: Of the folder; beyond it the shards that were used longest ago are removed.
    """

    def __init__(self, folder: Path | None, space: str, *, max_bytes: int):
        self.folder, self.space, self.max_bytes = folder, space, max_bytes
        self.rows: dict[bytes, np.ndarray] = {}
        self._read: set[str] = set()

    def lookup(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """Returns the feature (E,) float32 of each key, None where there is none."""
        if any(key not in self.rows for key in keys):
            self._read_shards()
        return [self.rows.get(key) for key in keys]

    def add(self, keys: Sequence[bytes], features: np.ndarray, *, write: bool = True) -> None:
        """Keeps features (N, E) float32, with `write` also on disk; a folder that cannot be written is told once."""
        self.rows.update(zip(keys, features))
        if self.folder is None or not len(keys) or not write:
            return
        file = io.BytesIO()
        np.savez(file, keys=np.array(keys, dtype=KEY), features=features)
        content = file.getvalue()
        shard = self.folder / self.space / f"{hashlib.sha256(content).hexdigest()}.npz"
        try:
            write_atomically(shard, lambda temporary: temporary.write_bytes(content))
            evict(self.folder, self.max_bytes)
        except OSError as error:
            logger.warning(
                f"FEATURES.DIR is {self.folder}, which cannot be written ({error}): this run keeps features in memory"
            )
            self.folder = None
        else:
            self._read.add(shard.name)

    def _read_shards(self) -> None:
        """Reads the shards that other processes, or earlier ones, have written."""
        shards = sorted((self.folder / self.space).glob("*.npz")) if self.folder else []
        for shard in shards:
            if shard.name in self._read:
                continue
            try:
                rows = read_shard(shard)
            except OSError as error:  # another user's, perhaps
                logger.warning(f"The cached features in {shard} cannot be read ({error}): they are made again")
                self._read.add(shard.name)
                continue
            self.rows.update(rows)
            if rows:
                self._read.add(shard.name)


def read_shard(shard: Path) -> dict[bytes, np.ndarray]:
    """Returns key -> feature of a shard; nothing, and removes it, where it is cut or altered."""
    try:
        content = shard.read_bytes()
    except FileNotFoundError:  # another process made room
        return {}
    rows = rows_of(content) if hashlib.sha256(content).hexdigest() == shard.stem else {}
    with contextlib.suppress(OSError):  # of a folder that may only be read
        if rows:
            os.utime(shard)  # used now
        else:
            logger.warning(f"The cached features in {shard} are broken: they are removed and made again")
            remove(shard)
    return rows


def rows_of(content: bytes) -> dict[bytes, np.ndarray]:
    """Returns key -> feature of a shard's content; nothing where it is not what `add` writes."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:  # a pickle could run code
            keys, features = arrays["keys"], arrays["features"]
    except Exception:  # what a broken file raises is not documented
        return {}
    fits = keys.dtype == KEY and features.dtype == np.float32 and features.ndim == 2 and len(keys) == len(features)
    return dict(zip(keys.tolist(), features)) if fits else {}


def shards_of(folder: Path) -> list[tuple[float, int, Path]]:
    """Returns (time of last use, bytes, path) of every shard, the longest unused first."""
    found = []
    for shard in folder.glob("*/*.npz"):
        try:
            status = shard.stat()
        except OSError:  # removed meanwhile, or not this user's to see
            continue
        found.append((status.st_mtime, status.st_size, shard))
    return sorted(found)


def evict(folder: Path, max_bytes: int) -> None:
    """Removes the shards that were used longest ago until the folder holds at most `max_bytes`."""
    shards = shards_of(folder)
    n_bytes = sum(size for _, size, _ in shards)
    for _, size, shard in shards:
        if n_bytes <= max_bytes:
            return
        remove(shard)
        n_bytes -= size


def remove(shard: Path) -> None:
    shard.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other shards lie there
        shard.parent.rmdir()
