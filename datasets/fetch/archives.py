"""Takes files and folders out of archives: safely, and without writing over anything.

An archive is unpacked into a hidden folder in the data set's own. What the data set lacks is moved on from there, once
the archive turned out to be whole: whatever fails, what was there before is as it was.
"""

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
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm import tqdm

from engine.files import write_atomically, writing

from ..verify.report import name_first

UNPACKING = ".unpacking"  # begins the name of the hidden folder
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)

logger = logging.getLogger(__name__)


def unpack(archive: Path, folder: Path, members: dict[str, str]) -> None:
    """Takes members out of a tar or zip archive and puts what is missing of them into folder.

    A folder is moved there whole where there is none; one that exists is completed file by file.

    Args:
        archive: The archive.
        folder: Where to put its members; the archive is unpacked beside them first, so room for it is needed.
        members: Path in the archive, or the end of one ("data/images" fits "2013b/data/images"; where several fit, the
            shortest is taken) -> path in folder.

    Raises:
        ValueError: If the archive is broken, lacks a member, or would write outside of folder.
        OSError: If the disk is full.
        NotImplementedError: If this Python does not unpack tar archives safely.
    """
    logger.info(f"Unpacking {archive}")
    with writing(folder):
        hidden = make_hidden_folder(folder)
        try:
            selection = Selection(archive, folder, hidden, members)
            extract(selection)
            for source, target in selection.moves():
                merge(source, target)
        finally:
            shutil.rmtree(hidden)


def make_hidden_folder(folder: Path) -> Path:
    """Returns a new folder to unpack in; those that a killed run has left are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(f"{UNPACKING}*"):
        shutil.rmtree(left_over)
    return Path(tempfile.mkdtemp(prefix=f"{UNPACKING}-", dir=folder))


class Selection:
    """Which entries of an archive are unpacked, and where to: each path that fits a member gets its own folder."""

    def __init__(self, archive: Path, folder: Path, hidden: Path, members: dict[str, str]):
        self.archive, self.folder, self.hidden = archive, folder, hidden
        self.members = {PurePosixPath(member).parts: path for member, path in members.items()}
        self.folders: dict[tuple[str, ...], Path] = {}  # by path in the archive
        self.top: set[str] = set()  # names at the archive's top

    def unpack_to(self, name: str) -> Iterator[tuple[Path, str]]:
        """Yields where an entry is unpacked, folder and path in it; nothing if it is not wanted, or there already."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise self.unsafe(name, "its path leads out")
        if any(part.startswith("._") or part in ("__MACOSX", ".DS_Store") for part in path.parts):
            return  # what macOS adds
        self.top.update(path.parts[:1])
        for member, target in self.members.items():
            if end := end_of(member, path.parts):
                folder = self.folders.setdefault(path.parts[:end], self.hidden / str(len(self.folders)))
                if not os.path.lexists(self.folder.joinpath(target, *path.parts[end:])):
                    yield folder, "/".join(path.parts[end - 1 :])

    def moves(self) -> list[tuple[Path, Path]]:
        """Returns what was unpacked and where it belongs; raises ValueError if the archive lacked a member."""
        moves = []
        for member, target in self.members.items():
            ends = [path for path in self.folders if path[-len(member) :] == member]
            if not ends:
                raise ValueError(
                    f"The archive {self.archive} holds no {'/'.join(member)}; at its top are: "
                    f"{name_first(sorted(self.top)) or 'no files'}. Replace it by the publisher's and run this command "
                    "again."
                )
            path = min(ends, key=len)
            moves.append((self.folders[path] / path[-1], self.folder / target))
        return moves

    def unsafe(self, name: str, reason: str) -> ValueError:
        return ValueError(
            f"The archive {self.archive} holds {name!r}, which is not safe to unpack ({reason}). Replace it by the "
            "publisher's archive and run this command again."
        )


def end_of(member: tuple[str, ...], path: tuple[str, ...]) -> int:
    """Returns how many parts of a path there are up to the end of the member in it; 0 if it is not there."""
    n = len(member)
    return next((i + n for i in range(len(path) - n + 1) if path[i : i + n] == member), 0)


def extract(selection: Selection) -> None:
    """Unpacks what is selected of an archive, whose kind is told from its content."""
    archive = selection.archive
    if not hasattr(tarfile, "data_filter"):  # without it, tarfile writes wherever an archive says
        raise NotImplementedError(
            f"Python {platform.python_version()} does not unpack archives safely; 3.10.12, 3.11.4, 3.12 and later do. "
            f"Update Python, or unpack {archive} by hand."
        )
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
            f"The archive {archive} does not unpack ({error}). Delete it and run this command again."
        ) from error


def extract_tar(stream: BinaryIO, selection: Selection) -> None:
    """Unpacks in one pass, since to list a compressed archive takes as long as to unpack it."""
    with tarfile.open(fileobj=stream) as tar:
        for entry in tar:
            for folder, path in selection.unpack_to(entry.name):
                try:
                    tar.extract(entry.replace(name=path, deep=False), folder, filter="data")
                except tarfile.FilterError as error:
                    raise selection.unsafe(entry.name, str(error)) from error


def extract_zip(stream: BinaryIO, selection: Selection) -> None:
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            for folder, path in selection.unpack_to(entry.filename):
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise selection.unsafe(entry.filename, "it is a link")
                entry.filename = path + "/" * entry.is_dir()
                archive.extract(entry, folder)


def merge(source: Path, target: Path) -> None:
    """Moves a file or folder to where there is none; a folder that is there gets what it lacks."""
    is_folder = source.is_dir() and not source.is_symlink()
    if is_folder and target.is_dir():
        for path in sorted(source.iterdir()):
            merge(path, target / path.name)
    elif os.path.lexists(source) and not os.path.lexists(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            if is_folder:  # to another disk, where a folder that is a link may lie
                target.mkdir()
                return merge(source, target)
            write = partial(shutil.copyfile, source, follow_symlinks=False)
            write_atomically(target, write, durable=False)  # it may be one of a million images
