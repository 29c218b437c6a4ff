"""Which bytes a file holds: each file is read once, and its digest remembered until the file may have changed.

A file is known by its path, inode, size and times of change. st_mtime can be set back and st_ctime cannot; a file or a
folder that is renamed brings another inode to a path. The shards (engine/features/shards.py) of the space `files` hold
rows of (file, content), both as 32 hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
from collections.abc import Iterable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from ..log import progress
from .shards import KEY, Shards

SPACE = "files"
ROW = np.dtype([("file", KEY), ("content", KEY)])
SETTLED_NS = 100_000_000  # since its last change; a later one may get the same time, whose clock ticks slowly

Row = tuple[bytes, bytes | None]  # the keys of a file, b"" where it is not to be remembered, and of its content


class FileDigests:
    """The keys of files' contents, in memory and on disk.

    Args:
        folder: The cache's folder; None keeps them in memory alone.
        max_bytes: Of the folder.
    """

    def __init__(self, folder: Path | None, *, max_bytes: int):
        self.shards = Shards(folder, SPACE, ".npy", rows_of, max_bytes=max_bytes)
        self.known: dict[bytes, bytes] = {}

    def lookup(self, paths: Sequence[str]) -> list[bytes | None]:
        """Returns the key of each file's content; None where it has to be read.

        Raises:
            OSError: If a file is not there.
        """
        keys = [file_key(path, os.stat(path)) for path in paths]
        found = [self.known.get(key) for key in keys]
        if None in found:
            self.known |= self.shards.read_new()
            found = [self.known.get(key) for key in keys]
        return found

    def read(self, paths: Sequence[str], n_threads: int) -> list[bytes | None]:
        """Returns the key of each file's content, None where it may not be read; remembers what it has to read."""
        found = self.lookup(paths)
        unknown = list(dict.fromkeys(path for path, content in zip(paths, found) if content is None))
        if not unknown:
            return found
        with ThreadPool(max(n_threads, 1)) as pool:
            rows = list(progress(pool.imap(_row_of, unknown, chunksize=16), "digests", n=len(unknown)))
        self.add(rows)
        read = {path: content for path, (_, content) in zip(unknown, rows)}
        return [content or read[path] for path, content in zip(paths, found)]

    def add(self, rows: Iterable[Row], *, write: bool = True) -> None:
        """Remembers files, with `write` also on disk, if that can be written."""
        new = {file: content for file, content in rows if file and content}
        self.known |= new
        if self.shards.folder is None or not new or not write:
            return
        file = io.BytesIO()
        np.save(file, np.array(list(new.items()), dtype=ROW))
        with contextlib.suppress(OSError):  # the files are read again; features tell of the folder
            self.shards.write(file.getvalue())


def read_file(path: str) -> tuple[bytes, Row]:
    """Returns a file's content, and the keys by which both are known."""
    with open(path, "rb") as file:
        before = file_key(path, os.fstat(file.fileno()))
        content = file.read()
        status = os.fstat(file.fileno())
    is_settled = file_key(path, status) == before and time.time_ns() - status.st_ctime_ns > SETTLED_NS
    return content, (before if is_settled else b"", short_digest(content))


def _row_of(path: str) -> Row:
    try:
        return read_file(path)[1]
    except OSError:
        return b"", None


def file_key(path: str, status: os.stat_result) -> bytes:
    """Returns what names a file as long as nothing changes it."""
    name = f"{path}\n{status.st_ino}\n{status.st_size}\n{status.st_mtime_ns}\n{status.st_ctime_ns}"
    return short_digest(os.fsencode(name))


def short_digest(content: bytes) -> bytes:
    """Returns the first 32 hexadecimal digits of the sha256."""
    return hashlib.sha256(content).hexdigest()[:32].encode()


def rows_of(content: bytes) -> dict[bytes, bytes]:
    """Returns file -> content of a shard; nothing where it is not what `add` writes."""
    try:
        rows = np.load(io.BytesIO(content), allow_pickle=False)  # a pickle could run code
        return dict(zip(rows["file"].tolist(), rows["content"].tolist())) if rows.dtype == ROW else {}
    except Exception:  # what a broken file raises is not documented
        return {}
