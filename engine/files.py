"""Files: written whole or not at all, what to say of a disk that takes none, and of a file that is missing."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
MAY_NOT_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # of a file system that cannot be asked to
# A machine out of memory or files, or whose disk does not answer: perhaps the file that is read is whole.
FAULTS_OF_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
UNFINISHED = ".unfinished"  # the end of a temporary file's name


def write_atomically(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Calls `write(temporary path)` and moves the result to `path`: a reader sees the old file or the whole new one.

    Args:
        path: Its folder is made if need be. A link leads to the file that is written; what is no file, such as
            /dev/stdout, is written to as it is.
        write: Writes and closes the file that it is given.
        durable: Whether that holds after a power cut too, which costs milliseconds; not worth it for one of a million
            images.

    Raises:
        OSError: If the disk is full or may not be written to; the old file is as it was.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        write(path)
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}{UNFINISHED}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            if durable:
                _sync(temporary)
            os.replace(temporary, path)
            if durable:
                _sync(path.parent)
        finally:
            if os.path.lexists(temporary):
                temporary.unlink()


def remove_unfinished(folder: Path) -> None:
    """Removes the temporary files that killed processes have left in a folder and in those directly in it."""
    for pattern in (f".*{UNFINISHED}", f"*/.*{UNFINISHED}"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes clear what could not be written, and what to do, where the disk is full or may not be written to.

    Raises:
        OSError: Of the kind and with the `errno` of the error that it makes clear.
    """
    try:
        yield
    except OSError as error:
        its_folder = error.filename is None or path.is_relative_to(Path(error.filename).parent)
        if error.strerror is None or error.errno not in DISK_IS_FULL + MAY_NOT_WRITE or not its_folder:
            raise  # made clear already, or another fault, or that of a file that is read
        clear = type(error)(_cannot_write(path, error))
        clear.errno = error.errno
        raise clear from error


def _cannot_write(path: Path, error: OSError) -> str:
    if error.errno in DISK_IS_FULL:
        free_mb = shutil.disk_usage(existing_part(path.absolute())).free / 1e6
        rule = f"expected room for it, where {free_mb:,.1f} MB are free. Free some room"
    else:
        rule = "expected a folder that may be written to. Mend its rights, or choose another one"
    return f"{path} could not be written ({error.strerror}), {rule}; the same command goes on."


def _sync(path: Path) -> None:
    """Returns when what a file holds, or what a folder lists, is on the disk."""
    if os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def existing_part(path: Path) -> Path:
    """Returns the deepest folder above an absolute `path` that exists."""
    return next(parent for parent in path.parents if parent.exists())


def missing_path(path: str | Path, what: str, remedy: str) -> str:
    """Returns the message for a file or folder that is not there: its full path, the part that exists, what to do."""
    path = Path(path).expanduser().absolute()
    return f"{what} {path} does not exist (the part that does: {existing_part(path)}). {remedy}"
