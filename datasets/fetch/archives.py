"""Takes files and folders out of archives: safely, and without writing over anything.

An archive is unpacked into a hidden workplace in the data set's folder, and only when it turned out to be whole is
what the folder lacks moved on from there: whatever fails, what was there before is as it was.
"""

from __future__ import annotations

import errno
import logging
import lzma
import os
import platform
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm import tqdm

from engine.files import DISK_IS_FULL, write_atomically

from ..verify.report import name_first

WORKPLACE = ".unpacking-"
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)

logger = logging.getLogger(__name__)


def unpack(archive: Path, folder: Path, members: dict[str, str], *, optional: Collection[str] = ()) -> None:
    """Takes members out of a tar or zip archive and puts what is missing of them into folder.

    A folder is moved there whole where there is none; one that exists is completed file by file.

    Args:
        archive: The archive.
        folder: Where to put its members; the archive is unpacked beside them first, so room for it is needed.
        members: Path in the archive, or the end of one ("data/images" fits "2013b/data/images"; where several fit, the
            shortest is taken) -> path in folder.
        optional: Members that the archive may lack.

    Raises:
        ValueError: If the archive is broken, lacks a member, or would write outside of folder.
        OSError: If the disk is full.
        NotImplementedError: If this Python does not unpack tar archives safely.
    """
    logger.info(f"Unpacking {archive}")
    workplace = make_workplace(folder)
    n_free_bytes = shutil.disk_usage(folder).free
    selection = Selection(archive, folder, workplace, members)
    try:
        extract(selection)
        selection.require_members(optional)
        for source, target in selection.moves():
            merge(source, target)
    except OSError as error:
        if error.errno not in DISK_IS_FULL:
            raise
        reason = error.strerror or os.strerror(error.errno)
        raise OSError(
            f"{folder} has {n_free_bytes / 1e6:,.1f} MB free, expected room for what {archive} holds "
            f"({reason}). Free some and run this command again; what was there before is as it was."
        ) from error
    finally:
        shutil.rmtree(workplace)


def make_workplace(folder: Path) -> Path:
    """Returns a new folder to unpack in; those that a killed run has left are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(f"{WORKPLACE}*"):
        shutil.rmtree(left_over)
    return Path(tempfile.mkdtemp(prefix=WORKPLACE, dir=folder))


class Selection:
    """Which entries of an archive are unpacked, and where to: each path that fits a member gets a place of its own."""

    def __init__(self, archive: Path, folder: Path, workplace: Path, members: dict[str, str]):
        self.archive, self.folder, self.workplace = archive, folder, workplace
        self.members = {PurePosixPath(member).parts: path for member, path in members.items()}
        self.places: dict[tuple[str, ...], Path] = {}  # by path in the archive
        self.top: set[str] = set()  # names at the archive's top

    def unpack_to(self, name: str) -> Iterator[tuple[Path, str]]:
        """Yields where an entry is unpacked, place and path in it; nothing if it is not wanted, or there already."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise self.unsafe(name, "its path leads out")
        if any(part.startswith("._") or part in ("__MACOSX", ".DS_Store") for part in path.parts):
            return  # what macOS adds
        self.top.update(path.parts[:1])
        for member, target in self.members.items():
            if end := end_of(member, path.parts):
                place = self.places.setdefault(path.parts[:end], self.workplace / str(len(self.places)))
                if not os.path.lexists(self.folder.joinpath(target, *path.parts[end:])):
                    yield place, "/".join(path.parts[end - 1 :])

    def require_members(self, optional: Collection[str]) -> None:
        """Raises ValueError if the archive lacked a member."""
        for member in self.members:
            if self.path_of(member) is None and "/".join(member) not in optional:
                raise ValueError(
                    f"Archive {self.archive} holds no {'/'.join(member)}, expected the publisher's archive; at its top "
                    f"are: {name_first(sorted(self.top)) or 'no files'}. Replace it and run this command again."
                )

    def moves(self) -> Iterator[tuple[Path, Path]]:
        """Yields what was unpacked and where it belongs."""
        for member, target in self.members.items():
            if path := self.path_of(member):
                yield self.places[path] / path[-1], self.folder / target

    def path_of(self, member: tuple[str, ...]) -> tuple[str, ...] | None:
        """Returns the shortest path in the archive that ends as a member does."""
        return min((path for path in self.places if path[-len(member) :] == member), key=len, default=None)

    def unsafe(self, name: str, reason: str) -> ValueError:
        return ValueError(
            f"Archive {self.archive} holds {name!r}, which is not safe to unpack ({reason}), expected files that stay "
            "in their folder. Replace it by the publisher's archive and run this command again."
        )


def end_of(member: tuple[str, ...], path: tuple[str, ...]) -> int:
    """Returns how many parts of a path there are up to the end of the member in it; 0 if it is not there."""
    n = len(member)
    return next((i + n for i in range(len(path) - n + 1) if path[i : i + n] == member), 0)


def extract(selection: Selection) -> None:
    """Unpacks what is selected of an archive, whose kind is told from its content."""
    archive = selection.archive
    require_safe_tarfile(archive)
    try:
        is_tar = tarfile.is_tarfile(archive)
        if not is_tar and not zipfile.is_zipfile(archive):
            raise tarfile.ReadError("it is no tar or zip archive")
        n_bytes, title = archive.stat().st_size, f"unpacking {archive.name}"
        with archive.open("rb") as file, tqdm.wrapattr(file, "read", total=n_bytes, desc=title, leave=False) as stream:
            (extract_tar if is_tar else extract_zip)(stream, selection)
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # of the disk; those of a decompressor have no number
        raise ValueError(
            f"Archive {archive} does not unpack ({error}), expected a whole one. Delete it and run this command again."
        ) from error


def require_safe_tarfile(archive: Path) -> None:
    """Raises NotImplementedError if this Python's tarfile writes wherever an archive says."""
    if not hasattr(tarfile, "data_filter"):
        raise NotImplementedError(
            f"Python is {platform.python_version()}, expected 3.10.12, 3.11.4, 3.12 or later, which unpack archives "
            f"safely. Update Python, or unpack {archive} by hand."
        )


def extract_tar(stream: BinaryIO, selection: Selection) -> None:
    """Unpacks in one pass, since to list a compressed archive takes as long as to unpack it."""
    with tarfile.open(fileobj=stream) as tar:
        for entry in tar:
            for place, path in selection.unpack_to(entry.name):
                try:
                    tar.extract(entry.replace(name=path, deep=False), place, filter="data")
                except tarfile.FilterError as error:
                    raise selection.unsafe(entry.name, str(error)) from error


def extract_zip(stream: BinaryIO, selection: Selection) -> None:
    """Unpacks once it is known that there is room."""
    with zipfile.ZipFile(stream) as archive:
        jobs = [
            (entry, place, path) for entry in archive.infolist() for place, path in selection.unpack_to(entry.filename)
        ]
        n_bytes = sum(entry.file_size for entry, *_ in jobs)
        if n_bytes > shutil.disk_usage(selection.folder).free:
            raise OSError(errno.ENOSPC, f"{n_bytes / 1e6:,.1f} MB")
        for entry, place, path in jobs:
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise selection.unsafe(entry.filename, "it is a link")
            entry.filename = path + "/" * entry.is_dir()
            archive.extract(entry, place)


def merge(source: Path, target: Path) -> None:
    """Moves a file or folder to where there is none; a folder that is there gets what it lacks."""
    if source.is_dir() and not source.is_symlink() and target.is_dir():
        for path in sorted(source.iterdir()):
            merge(path, target / path.name)
    elif os.path.lexists(source) and not os.path.lexists(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy(source, target)


def copy(source: Path, target: Path) -> None:
    """Copies to another disk, where a folder that is a link may lie."""
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        merge(source, target)
    else:
        write_atomically(  # not durably: it may be one of a million images
            target, lambda temporary: shutil.copyfile(source, temporary, follow_symlinks=False), durable=False
        )
