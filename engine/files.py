"""Files: written whole or not at all; clear messages for a full or read-only disk and for a missing file."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
MAY_NOT_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # of a file system that has no sync
# The machine is out of memory or of open files, or its disk does not answer: the file itself may be fine.
FAULTS_OF_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
UNFINISHED = ".unfinished"  # the end of a temporary file's name
MACHINE = socket.gethostname().partition(".")[0]


def write_atomically(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Calls `write(temporary path)` and moves the result to `path`: a reader sees the old file or the whole new one.

    Args:
        path: Its folder is made if need be. Of a link the file behind it is written; a device or a pipe directly.
        write: Writes and closes the file at the path it is called with.
        durable: Whether the file is safe from a power cut, too. That costs milliseconds.

    Raises:
        OSError: If the disk is full or write-protected; the old file is then unchanged.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        write(path)
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}.{MACHINE}.{os.getpid()}.{threading.get_ident()}{UNFINISHED}")
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


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Writes rows as CSV, atomically: UTF-8, with escapes for names that are no text."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            csv_writer(stream).writerows(rows)

    write_atomically(path, write)


def csv_writer(stream: TextIO):
    """Returns a `csv.writer` whose rows end with a newline. A carriage return in a name does not end one."""
    return csv.writer(_Rows(stream))


class _Rows:
    """Gets each row with the default end: before 3.13, Python quotes the characters of the end alone."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, row: str) -> None:
        self.stream.write(row.removesuffix("\r\n") + "\n")


def remove_unfinished(folder: Path) -> None:
    """Removes the temporary files of killed processes from a folder and from the folders directly in it."""
    for pattern in (f".*{UNFINISHED}", f"*/.*{UNFINISHED}"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Removes the temporary files that killed processes of this machine have left in a folder that others write to."""
    for path in folder.glob(f".*.{MACHINE}.*{UNFINISHED}"):
        pid, _ = path.name.removesuffix(UNFINISHED).split(".")[-2:]
        if pid.isdecimal() and not _is_running(int(pid)):
            with suppress(OSError):  # of a folder that may only be read
                path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # where the call below would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Replaces the error of a full or write-protected disk by one of its kind that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        its_folder = error.filename is None or path.is_relative_to(Path(error.filename).parent)
        if error.strerror is None or error.errno not in DISK_IS_FULL + MAY_NOT_WRITE or not its_folder:
            raise  # replaced already, another fault, or that of a file that is read
        remedy = "Change the permissions of its folder, or choose another folder"
        if error.errno in DISK_IS_FULL:
            free_mb = shutil.disk_usage(existing_part(path.absolute())).free / 1e6
            remedy = f"{free_mb:,.1f} MB are free. Free some space"
        clear = type(error)(f"{path} could not be written ({error.strerror}). {remedy}, then repeat the command.")
        clear.errno = error.errno
        raise clear from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts a file's path before what is wrong with its content, a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of files, is on the disk."""
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
    """Returns the message for a missing file or folder: its full path, the part that exists, what to do."""
    path = Path(path).expanduser().absolute()
    return f"{what} {path} does not exist (the part that does: {existing_part(path)}). {remedy}"
