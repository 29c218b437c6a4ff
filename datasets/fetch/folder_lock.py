"""The lock of a data set's folder: one process fills it at a time, and another waits until that one ends.

It is of the kind that a run's folder has (engine/run/lock.py), on a file beside the data set's folder, which holds
nothing but data. Where that file cannot be written, nothing else can: then there is no lock.
"""

import io
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.files import DISK_IS_FULL, MAY_NOT_WRITE
from engine.run.lock import LOCK, holder, sign, take

logger = logging.getLogger(__name__)


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Lets no other process fill the folder meanwhile; first waits for one that does, and says which."""
    path = folder.with_name(f".{folder.name}{LOCK}")
    with ExitStack() as until_the_end:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = until_the_end.enter_context(path.open("a+b", buffering=0))
            _wait_for(file, path, folder)
            sign(file)
        except OSError as error:
            if error.errno not in MAY_NOT_WRITE + DISK_IS_FULL:
                raise
        yield


def _wait_for(file: io.FileIO, path: Path, folder: Path) -> None:
    """Returns when the lock is this process's, however long that takes: a download may take hours."""
    told = ""
    while not take(file, path):
        if told != (now := holder(path)):  # it signs after it has taken the lock, and another one may follow it
            logger.info(f"Waiting for {now}, which fills {folder}")
            told = now
        time.sleep(0.1)
