"""How a copy is filled: the split file, then the images that it lists; else a split of our own.

What is there stays as it is: a folder is completed, never overwritten, and nothing complete is fetched twice.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.files import write_atomically, writing

from ..data_copy import DataCopy
from ..splits.split_file import write_split
from ..verify.misplaced import how_to_move
from ..verify.wrong_files import mend_links
from ..verify.wrong_items import list_labels
from .archives import UNPACKING, unpack
from .folder_lock import filling
from .sources import MIRROR, RemoteFile, by_hand, find_here, obtain, plan_file, require_right

MIRROR_DIR = "mirror"  # for its archives: some are called as the publisher's

logger = logging.getLogger(__name__)


def fill(copy: DataCopy) -> None:
    """Fetches and lays out what a copy lacks.

    Raises:
        NotImplementedError: If the data set does not say where its files are to be had.
        FileNotFoundError: If images are missing that no command fetches, or that lie nearby, in a wrong folder.
        ConnectionError: If the images are not to be had anywhere.
        ValueError: If a file that is there is broken.
        OSError: If the disk is full, or root not writable.
    """
    facts = copy.dataset
    if not (facts.is_fetched() or facts.by_hand):
        raise NotImplementedError(
            f"{copy.name} does not say how it is prepared. Put its files into {copy.folder}, or state where they are "
            "to be had, by `archives` or a `prepare` of its own (CONTRIBUTING.md)."
        )
    require_none_near(copy)
    with writing(copy.folder), filling(copy.folder):
        copy.folder.mkdir(parents=True, exist_ok=True)
        for file in files_beside_images(copy):
            fetch_file(copy, file)
        if not copy.is_complete():
            fetch_images(copy)
        if facts.split_id and not copy.split.exists():
            keep_own_split(copy)


def plan(copy: DataCopy) -> list[str]:
    """Returns what `fill` would do, a line for each file; nothing is fetched and no network is asked."""
    lines = [plan_file(file, copy.folder, source=copy.source) for file in files_beside_images(copy)]
    if copy.is_complete():
        return [*lines, f"{', '.join(filter(None, copy.dataset.contents())) or 'images'}: there"]
    for n_before, (archives, folder) in enumerate(ways_to_images(copy)):
        lines += ["or, where these are not to be had:"] * bool(n_before)
        lines += [plan_file(archive, folder, source=copy.source) for archive in archives]
    if copy.dataset.by_hand and not ways_to_images(copy):
        lines.append(copy.remedy)
    return lines or ["nothing is fetched"]


def require_none_near(copy: DataCopy) -> None:
    """Raises FileNotFoundError where what would be fetched lies nearby, in a wrong folder, or is a dead link."""
    missing = [path for path in copy.contents if not path.exists()]
    remedy = mend_links(copy, missing)
    if copy.folder.exists() or copy.folder.name in copy.root.parts:  # elsewhere, a name is no proof
        remedy = remedy or next(filter(None, (how_to_move(copy, path) for path in missing)), "")
    if remedy:
        raise FileNotFoundError(f"{copy.name} lacks images in {missing[0]}; none are fetched. {remedy}")


def files_beside_images(copy: DataCopy) -> list[RemoteFile]:
    """Returns the files that are fetched by themselves: `label_files` and the split file, if there is one."""
    facts = copy.dataset
    split = RemoteFile(facts.split_file, sources=(f"drive:{facts.split_id}", MIRROR))
    return [*facts.label_files, *([split] if facts.split_file and facts.split_id else [])]


def fetch_file(copy: DataCopy, file: RemoteFile) -> None:
    """Fetches a file; where it is not to be had, says why and goes on: the check names what is still missing."""
    target = copy.folder / file.name
    if target.exists():
        return
    accept = copy.require_papers_split if target == copy.split else None
    try:
        copy_file(obtain(file, copy.folder, source=copy.source, accept=accept), target)
    except ConnectionError as error:
        logger.warning(error)
        if copy.dataset.mirrored and not file.inside:
            take_from_mirror(copy, file.name, accept)


def take_from_mirror(copy: DataCopy, name: str, accept: Callable[[Path], None] | None) -> None:
    """Takes one file out of the mirror's archive, large as that is: without the papers' split no result compares."""
    logger.info(f"Looking for {name} in the mirror's archive of the whole folder")
    for source in dict.fromkeys((copy.source, "")):  # an archive in --from may be the publisher's, of the same name
        try:
            archive = obtain(mirror_archive(copy), copy.folder / MIRROR_DIR, source=source)
            with tempfile.TemporaryDirectory(prefix=UNPACKING, dir=copy.folder) as folder:
                unpack(archive, Path(folder), {name: name})
                if accept:
                    accept(Path(folder, name))
                copy_file(Path(folder, name), copy.folder / name)
            return
        except ConnectionError as error:
            logger.warning(error)
            return
        except ValueError as error:
            logger.warning(error)


def copy_file(found: Path, target: Path) -> None:
    """Copies a file in one step, unless there is one."""
    if not target.exists():
        write_atomically(target, lambda temporary: shutil.copyfile(found, temporary))


def fetch_images(copy: DataCopy) -> None:
    """Takes what the folder lacks out of the publisher's archives or, where these are not to be had, the mirror's.

    Archives that are here or in --from go before those that have to be fetched.
    """
    ways = ways_to_images(copy)
    if not ways:
        raise FileNotFoundError(
            f"{copy.name}'s images are not all in {copy.folder}, and no command fetches them. {copy.remedy}"
        )
    nearest_first = sorted(ways, key=lambda way: not all(is_near(file, way[1], copy.source) for file in way[0]))
    for archives, folder in nearest_first:
        try:
            for file in archives:
                archive = obtain(file, folder, source=copy.source)
                unpack(archive, copy.folder, file.members or {copy.dataset.image_dir: copy.dataset.image_dir})
            return
        except (ConnectionError, ValueError) as error:
            logger.warning(error)
    missing = [file for file in files_beside_images(copy) if not (copy.folder / file.name).exists()]
    images = "; or ".join(" and ".join(by_hand(file, folder) for file in files) for files, folder in ways)
    steps = [*(by_hand(file, copy.folder) for file in missing), images]
    raise ConnectionError(
        f"{copy.name}'s images are not to be had; what was tried is said above. By hand, and then this command "
        "again, with --from FOLDER for files that are saved elsewhere:"
        + "".join(f"\n  {number}. {step}" for number, step in enumerate(steps, start=1))
    )


def ways_to_images(copy: DataCopy) -> list[tuple[tuple[RemoteFile, ...], Path]]:
    """Returns sets of archives each of which holds all images, the publisher's first, and where they are kept."""
    ways = [(copy.dataset.archives, copy.folder)] if copy.dataset.archives else []
    return ways + ([((mirror_archive(copy),), copy.folder / MIRROR_DIR)] if copy.dataset.mirrored else [])


def mirror_archive(copy: DataCopy) -> RemoteFile:
    """Returns the mirror's archive of the data set's folder."""
    dataset_dir = copy.dataset.dataset_dir
    members = {name: name for name in copy.dataset.contents()}
    return RemoteFile(f"{dataset_dir}.zip", sources=(MIRROR,), members=members, aliases=(dataset_dir, copy.name))


def is_near(file: RemoteFile, folder: Path, source: str) -> bool:
    """Says whether a file, or the archive that holds it, is here or in the folder that --from names."""
    for found in find_here(file, folder, source):
        try:
            require_right(file, found)
            return True
        except ValueError:  # told where the file is used
            continue
    return file.inside is not None and is_near(file.inside, folder, source)


def keep_own_split(copy: DataCopy) -> None:
    """Draws a split by the data set's own rule and keeps it under another name than the papers'."""
    facts = copy.dataset
    if not copy.own_split.exists():
        for file in facts.annotations:
            fetch_file(copy, file)
        items = facts.own_items(copy.folder)
        n_classes = len(list_labels(items))
        if facts.n_classes and n_classes != facts.n_classes:
            raise ValueError(
                f"{copy.images} holds images of {n_classes} classes, not of {facts.n_classes}: no split of our own is "
                "drawn. Move it away, and run this command again to have all images."
            )
        write_split(copy.own_split, copy.images, *items)
    logger.warning(
        f"Until https://drive.google.com/file/d/{facts.split_id} lies at {copy.split}, {copy.own_split.name} is used: "
        f"{facts.own_split_rule}. It is NOT the papers' split: results do not compare with theirs"
    )
