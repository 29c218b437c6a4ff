"""Where a data set's files can be had: in its folder, in what --from names, from their sources; all tried in order.

A source is an address, "https://...", "drive:ID" on Google Drive, or "hub:OWNER/NAME", a data set on
the Hugging Face hub.
"""

from __future__ import annotations

import logging
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path, PurePath

from torchvision.datasets.utils import calculate_md5

from .archives import unpack
from .download import fetch, list_hub_files, page_of

MIRROR = "hub:zhengli97/prompt_learning_dataset"  # of all but ImageNet, with the split files
ARCHIVE_NAME = re.compile(r"(.+)\.(zip|tar|tgz|tar\.gz)", re.IGNORECASE)
LONG_TO_CHECK = 100_000_000  # bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set that is fetched.

    Args:
        name: What it is called in the data set's folder, in --from and at its sources.
        sources: Where it can be had, tried in order.
        md5: Its digest, "" where it is not known.
        n_bytes: Its size, 0 where it is not known.
        members: Of an archive: what is taken out, path at the end of the one in the archive -> path in the data set's
            folder. Empty for a file that is kept as it is.
        optional: Those of the members that the archive may lack.
        aliases: Other stems of an archive's name, whatever their case, punctuation and suffix: a mirror chooses its
            own.
        inside: The archive that holds this file, fetched where no source has it by itself.
    """

    name: str
    sources: tuple[str, ...] = ()
    md5: str = ""
    n_bytes: int = 0
    members: dict[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    aliases: tuple[str, ...] = ()
    inside: RemoteFile | None = None


def obtain(file: RemoteFile, folder: Path, *, given: str = "", accept: Callable[[Path], None] | None = None) -> Path:
    """Returns where the whole, verified file lies: in folder, where it is fetched to, or in the folder `given`.

    Args:
        file: What is wanted.
        folder: The data set's folder; made if it is needed.
        given: What --from names: a folder that is searched, or the address of one; "" for nothing.
        accept: Raises ValueError where the content is not what it should be; such a file is not put in place.

    Raises:
        ConnectionError: If it is not to be had, with how to get it by hand; what went wrong where is logged.
        ValueError: If the file that lies in folder is not the right one, or `given` is neither folder nor address.
        OSError: If the disk is full.
    """
    check = partial(require_right, file, accept=accept)
    found_wrong = False
    for found in find_here(file, folder, given):
        try:
            check(found)
            return found
        except ValueError as error:
            if found == folder / file.name:
                raise ValueError(f"{found} is wrong: {error}. Delete it and run this command again.") from error
            logger.warning(f"{found} is wrong: {error}")
            found_wrong = True
    if given and not is_address(given) and not found_wrong:
        logger.warning(f"{given} holds no {file.name}")
    for source in list_sources(file, folder, given):
        try:
            return fetch_from(source, file, folder, check)
        except ConnectionError as error:
            logger.warning(error)
    if file.inside:
        try:
            unpack(obtain(file.inside, folder, given=given), folder, {file.name: file.name})
            return obtain(file, folder, accept=accept)
        except ConnectionError as error:
            logger.warning(error)
    step = (
        f" By hand: {by_hand(file, folder)}, or pass the folder that holds it as --from FOLDER." if file.sources else ""
    )
    raise ConnectionError(f"{file.name} is not to be had.{step}")


def plan(file: RemoteFile, folder: Path, *, given: str = "") -> str:
    """Returns what `obtain` would do, in words; nothing is fetched and no network is asked."""
    if found := next(find_here(file, folder, given), None):
        return f"{file.name}: there" if found == folder / file.name else f"{file.name}: there, as {found}"
    ways = [f"fetched from {page_of(source)}" for source in list_sources(file, folder, given)]
    if file.inside:
        ways.append(f"taken out of {plan(file.inside, folder, given=given)}")
    return f"{file.name}: would be {', else '.join(ways)}"


def find_here(file: RemoteFile, folder: Path, given: str) -> Iterator[Path]:
    """Yields what could be the file: in the data set's folder, then anywhere in the folder that --from names."""
    if folder.is_dir():
        place = (folder / file.name).parent  # a name may start with a folder
        yield from matching(file, (path for path in place.glob("*") if path.is_file()), folder.name)
    if not given or is_address(given):
        return
    if not Path(given).expanduser().is_dir():
        raise ValueError(
            f"--from is {given}, expected a folder that exists, or an address that begins with https:// or http://. "
            "Correct it; of an archive, name the folder."
        )
    below = (Path(parent, name) for parent, _, names in os.walk(Path(given).expanduser()) for name in names)
    yield from matching(file, below, folder.name)


def list_sources(file: RemoteFile, folder: Path, given: str) -> list[str]:
    """Returns all sources in the order in which they are tried, those under the address that --from names first."""
    if not is_address(given):
        return list(file.sources)
    base = given.rstrip("/")
    return [f"{base}/{file.name}", f"{base}/{folder.name}/{file.name}", *file.sources]


def is_address(given: str) -> bool:
    return given.startswith(("https://", "http://"))


def fetch_from(source: str, file: RemoteFile, folder: Path, check: Callable[[Path], None]) -> Path:
    """Fetches a file into folder and returns its path: under its own name, or the one that it has on the hub."""
    target = folder / file.name  # the name may start with a folder
    if source.startswith("hub:") and source.count("/") == 1:
        found = matching(file, map(PurePath, list_hub_files(source.removeprefix("hub:"))), folder.name)
        if not found:
            raise ConnectionError(f"{page_of(source)} has no {file.name}, nor an archive of its name or aliases")
        source, target = f"{source}/{found[0]}", target.with_name(found[0].name)
    if target.exists():  # as something that only resembles the file
        raise ConnectionError(f"{target} is in the way of the one on {page_of(source)}: move it elsewhere")
    target.parent.mkdir(parents=True, exist_ok=True)
    fetch(source, target, check=check)
    return target


def matching(file: RemoteFile, paths: Iterable[PurePath], near: str) -> list:
    """Returns the paths that have the file's name, then archives with its stem or an alias, whatever their suffix.

    Those in a folder called `near` come first, then those that lie less deep.
    """
    stems = {plain_stem(file.name), *(plain(alias) for alias in file.aliases)} if plain_stem(file.name) else set()
    parts = PurePath(file.name).parts

    def is_named(path: PurePath) -> bool:
        return path.parts[-len(parts) :] == parts

    fits = {path for path in paths if is_named(path) or plain_stem(path.name) in stems}  # of what may be a million
    return sorted(fits, key=lambda path: (not is_named(path), near not in path.parts, len(path.parts), path))


def plain_stem(name: str) -> str:
    """Returns the letters and digits of an archive's name without its suffix; "" where it is not an archive's name."""
    archive = ARCHIVE_NAME.fullmatch(name)
    return plain(archive[1]) if archive else ""


def plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def require_right(file: RemoteFile, path: Path, accept: Callable[[Path], None] | None = None) -> None:
    """Raises ValueError if path has not the size, digest or kind of the file, or `accept` does."""
    n_bytes = path.stat().st_size
    if file.n_bytes and n_bytes != file.n_bytes:
        raise ValueError(f"it has {n_bytes:,} bytes, expected {file.n_bytes:,}")
    if ARCHIVE_NAME.fullmatch(file.name) and not is_archive(path):
        raise ValueError(f"it is no whole zip or tar file ({n_bytes:,} bytes)")
    if file.md5:
        md5 = md5_of(path, n_bytes, path.stat().st_mtime_ns)
        if md5 != file.md5:
            raise ValueError(f"its md5 is {md5}, expected {file.md5}")
    if accept:
        accept(path)


@cache
def md5_of(path: Path, n_bytes: int, changed_ns: int) -> str:
    """Returns a file's digest; the same file, by size and time of change, is read once: archives are large."""
    if n_bytes > LONG_TO_CHECK:
        logger.info(f"Checking the {n_bytes / 1e6:,.0f} MB of {path}")
    return calculate_md5(str(path))


def is_archive(path: Path) -> bool:
    """Says whether a file begins, a zip archive also ends, as archives do."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except (EOFError, zlib.error):  # a compressed one of a few bytes
        return False


def by_hand(file: RemoteFile, folder: Path) -> str:
    """Returns what a person does to fetch the file, or the archive that it comes out of."""
    if not file.sources and file.inside:
        return by_hand(file.inside, folder)
    pages = " or ".join(dict.fromkeys(page_of(source) for source in file.sources))
    return f"fetch {pages} with a browser and save it as {folder / file.name}"
