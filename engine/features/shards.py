"""The files of a cache that processes share, side by side.

    FOLDER/SPACE/SHARD.npz or .npy        SHARD: the sha256 of the file

A shard is written whole and never changed, so processes need no lock. A file that does not fit its name is removed, and
what it held is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import remove_abandoned, write_atomically

logger = logging.getLogger(__name__)

KEY = "S32"  # of a hexadecimal digest

Rows = dict[bytes, Any]


class Shards:
    """The shards of one space.

    Args:
        folder: The cache's folder, shared by all spaces; None: there is none.
        space: The name of the space.
        suffix: .npz or .npy.
        rows_of: From a file's content to its rows by key; {} where it is not what the space holds.
        max_bytes: Of the folder; beyond it the shards that were used longest ago are removed.
    """

    def __init__(
        self, folder: Path | None, space: str, suffix: str, rows_of: Callable[[bytes], Rows], *, max_bytes: int
    ):
        self.folder, self.space, self.suffix, self.rows_of = folder, space, suffix, rows_of
        self.max_bytes = max_bytes
        self._read: set[str] = set()

    def read_new(self) -> Rows:
        """Returns the rows of the shards that other processes, or earlier ones, have written since the last call."""
        found: Rows = {}
        if self.folder and not self._read:
            remove_abandoned(self.folder / self.space)
        for shard in sorted((self.folder / self.space).glob(f"*{self.suffix}")) if self.folder else ():
            if shard.name in self._read:
                continue
            try:
                rows = read_shard(shard, self.rows_of)
            except OSError as error:  # another user's, perhaps
                logger.warning(f"The cache's file {shard} cannot be read ({error}): what it holds is made again")
                self._read.add(shard.name)
                continue
            found |= rows
            if rows or shard.exists():  # broken, and not this user's to remove
                self._read.add(shard.name)
        return found

    def write(self, content: bytes) -> None:
        """Writes a shard, and makes room for it.

        Raises:
            OSError: If the disk is full or the folder may not be written to.
        """
        shard = self.folder / self.space / f"{hashlib.sha256(content).hexdigest()}{self.suffix}"
        write_atomically(shard, lambda temporary: temporary.write_bytes(content))
        evict(self.folder, self.max_bytes)
        self._read.add(shard.name)


def read_shard(shard: Path, rows_of: Callable[[bytes], Rows]) -> Rows:
    """Returns the rows of a shard; nothing, and removes it, where it is cut or altered."""
    try:
        content = shard.read_bytes()
    except FileNotFoundError:  # another process made room
        return {}
    rows = rows_of(content) if hashlib.sha256(content).hexdigest() == shard.stem else {}
    with contextlib.suppress(OSError):  # of a folder that may only be read
        if rows:
            os.utime(shard)  # used now
        else:
            logger.warning(f"The cache's file {shard} is broken: it is removed, and what it held is made again")
            remove(shard)
    return rows


def shards_of(folder: Path) -> list[tuple[float, int, Path]]:
    """Returns (time of last use, bytes, path) of every shard, the longest unused first."""
    found = []
    for shard in folder.glob("*/*.np[yz]"):
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
