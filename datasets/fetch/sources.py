"""Where a data set's files can be had: in its folder, in what --from names, at their addresses; all tried in order.

An address is "https://...", "drive:ID" on Google Drive, or "hub:OWNER/NAME", a data set on the Hugging Face hub.
`source` is what --from names, a folder or a web address; "" for nothing.
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

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set that is fetched.

    What is taken out of one of `archives`, its `members`, is told by the end of its path there. Where it has none, the
    folder `image_dir` is taken.
    """

    name: str  # in the data set's folder, in --from and at its sources
    sources: tuple[str, ...] = ()  # addresses where it can be had, tried in order
    md5: str = ""  # "" where it is not known
    n_bytes: int = 0  # 0 where it is not known
    members: dict[str, str] = field(default_factory=dict)  # end of the path in the archive -> path in dataset_dir
    aliases: tuple[str, ...] = ()  # other stems of an archive's name, whatever their case, punctuation and suffix
    inside: RemoteFile | None = None  # the archive that holds this file, fetched where no source has it by itself


def obtain(file: RemoteFile, folder: Path, *, source: str = "", accept: Callable[[Path], None] | None = None) -> Path:
    """Returns where the whole, verified file lies: in folder, where it is fetched to, or in the folder `source`.

    Args:
        file: What is wanted.
        folder: The data set's folder; made if it is needed.
        source: What --from names.
        accept: Raises ValueError where the content is not what it should be; such a file is not kept.

    Raises:
        ConnectionError: If it is not to be had, with how to get it by hand; what went wrong where is logged.
        ValueError: If the file that lies in folder is not the right one, or `source` is neither folder nor address.
        OSError: If the disk is full.
    """
    check = partial(require_right, file, accept=accept)
    found_wrong = False
    for found in find_here(file, folder, source):
        try:
            check(found)
            return found
        except ValueError as error:
            if found == folder / file.name:
                raise ValueError(f"{found} is wrong: {error}. Delete it and run this command again.") from error
            logger.warning(f"{found} is wrong: {error}")
            found_wrong = True
    if source and not is_web_address(source) and not found_wrong:
        logger.warning(f"{source} holds no {file.name}")
    for address in list_addresses(file, folder, source):
        try:
            return fetch_from(address, file, folder, check)
        except ConnectionError as error:
            logger.warning(error)
    if file.inside:
        try:
            unpack(obtain(file.inside, folder, source=source), folder, {file.name: file.name})
            return obtain(file, folder, accept=accept)
        except ConnectionError as error:
            logger.warning(error)
    step = f" By hand: {by_hand(file, folder)}, or pass the folder that holds it as --from FOLDER."
    raise ConnectionError(f"{file.name} is not to be had.{step if file.sources else ''}")


def plan_file(file: RemoteFile, folder: Path, *, source: str = "") -> str:
    """Returns what `obtain` would do, in words; nothing is fetched and no network is asked."""
    if found := next(find_here(file, folder, source), None):
        return f"{file.name}: there" if found == folder / file.name else f"{file.name}: there, as {found}"
    ways = [f"fetched from {page_of(address)}" for address in list_addresses(file, folder, source)]
    if file.inside:
        ways.append(f"taken out of {plan_file(file.inside, folder, source=source)}")
    return f"{file.name}: would be {', else '.join(ways)}"


def find_here(file: RemoteFile, folder: Path, source: str) -> Iterator[Path]:
    """Yields what could be the file: in the data set's folder, then anywhere in the folder that --from names."""
    if folder.is_dir():
        beside = (folder / file.name).parent  # a name may start with a folder
        yield from matching(file, (path for path in beside.glob("*") if path.is_file()), folder.name)
    if not source or is_web_address(source):
        return
    if not Path(source).expanduser().is_dir():
        raise ValueError(
            f"--from is {source}, which is no folder and no address that begins with https:// or http://. Correct it; "
            "of an archive, name the folder."
        )
    below = (Path(parent, name) for parent, _, names in os.walk(Path(source).expanduser()) for name in names)
    yield from matching(file, below, folder.name)


def list_addresses(file: RemoteFile, folder: Path, source: str) -> list[str]:
    """Returns all addresses in the order in which they are tried, those under the one that --from names first."""
    if not is_web_address(source):
        return list(file.sources)
    base = source.rstrip("/")
    return [f"{base}/{file.name}", f"{base}/{folder.name}/{file.name}", *file.sources]


def is_web_address(source: str) -> bool:
    return source.startswith(("https://", "http://"))


def fetch_from(address: str, file: RemoteFile, folder: Path, check: Callable[[Path], None]) -> Path:
    """Fetches a file into folder and returns its path: under its own name, or the one that it has on the hub."""
    target = folder / file.name  # the name may start with a folder
    if address.startswith("hub:") and address.count("/") == 1:
        found = matching(file, map(PurePath, list_hub_files(address.removeprefix("hub:"))), folder.name)
        if not found:
            raise ConnectionError(f"{page_of(address)} has no {file.name}, nor an archive of its name or aliases")
        address, target = f"{address}/{found[0]}", target.with_name(found[0].name)
    if target.exists():  # as something that only resembles the file
        raise ConnectionError(f"{target} is in the way of the one on {page_of(address)}: move it elsewhere")
    target.parent.mkdir(parents=True, exist_ok=True)
    fetch(address, target, check=check)
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
        raise ValueError(f"it has {n_bytes:,} bytes, not {file.n_bytes:,}")
    if ARCHIVE_NAME.fullmatch(file.name) and not is_archive(path):
        raise ValueError(f"it is no whole zip or tar file ({n_bytes:,} bytes)")
    if file.md5:
        md5 = md5_of(path, n_bytes, path.stat().st_mtime_ns)
        if md5 != file.md5:
            raise ValueError(f"its md5 is {md5}, not {file.md5}")
    if accept:
        accept(path)


@cache
def md5_of(path: Path, n_bytes: int, changed_ns: int) -> str:
    """Returns a file's digest; the same file, by size and time of change, is read once: archives are large."""
    logger.info(f"Checking the {n_bytes / 1e6:,.1f} MB of {path}")
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
    pages = " or ".join(dict.fromkeys(page_of(address) for address in file.sources))
    return f"fetch {pages} with a browser and save it as {folder / file.name}"
