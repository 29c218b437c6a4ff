"""One run in a folder at a time: whoever has its lock keeps other processes out until it ends, however it ends.

The lock is the kernel's, on the file .lock in the folder: it goes with its process, the loaders' processes do not
inherit it, and it reaches over NFS. The file stays and says who had it last.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

from ..distributed import on_first_rank
from ..files import remove_unfinished, writing
from ..text import printable

LOCK = ".lock"
PATIENCE_S = 5.0  # a process that is being ended may take so long
HELD = (errno.EACCES, errno.EAGAIN)  # by another process

logger = logging.getLogger(__name__)


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder; of several ranks the first does. What killed ones left is removed.

    Raises:
        BlockingIOError: If another process has the folder and keeps it; the message says which. An OSError.
        OSError: If the folder may not be written to.
    """
    with ExitStack() as until_the_end:
        on_first_rank(partial(_lock, Path(folder), until_the_end))
        yield


def _lock(folder: Path, until_the_end: ExitStack) -> None:
    path = folder / LOCK
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = until_the_end.enter_context(path.open("a+b", buffering=0))
        _wait_for(file, path)
        sign(file)
    remove_unfinished(folder)


def _wait_for(file: io.FileIO, path: Path) -> None:
    """Returns when the lock is this process's; raises if another keeps it."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not take(file, path):
        if time.monotonic() > deadline_s:
            raise BlockingIOError(
                f"The folder {path.parent} is in use by {holder(path)}. Wait until that run ends, or choose another "
                "--output-dir."
            )
        time.sleep(0.1)


def take(file: io.FileIO, path: Path) -> bool:
    """Takes the lock on an open file, unless another process has it; says whether it did."""
    try:
        import fcntl  # here, because Windows has none

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except OSError as error:
        if error.errno in HELD:
            return False
        logger.warning(f"{path} cannot be locked ({error.strerror}): see that no other process works in its folder")
    return True


def sign(file: io.FileIO) -> None:
    """Writes into the locked file whose it is."""
    file.truncate(0)
    file.write(f"{os.getpid()} {socket.gethostname()} {datetime.now().astimezone():%Y-%m-%dT%H:%M:%S%z}\n".encode())


def holder(path: Path) -> str:
    """Returns in words who has signed a lock's file."""
    fields = path.read_text(encoding="utf-8", errors="replace").split()
    if len(fields) != 3:
        return "another process"
    process, host, since = fields
    return printable(f"process {process} on {host} since {since}")
