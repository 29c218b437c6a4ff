"""How a data set's folder is filled: the split file, then the images that it lists; else a split of our own.

What is there stays as it is: a folder is completed, never overwritten, and nothing complete is fetched twice.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.files import write_atomically, writing

from ..splits.few_shot import write_split
from ..verify.wrong_copies import how_to_move
from ..verify.wrong_files import mend_links
from ..verify.wrong_items import count_classes
from .archives import WORKPLACE, unpack
from .folder_lock import filling
from .sources import MIRROR, RemoteFile, by_hand, find_here, obtain, plan, require_right

MIRROR_DIR = "mirror"  # for its archives: some are called as the publisher's

logger = logging.getLogger(__name__)


def fill_folder(dataset: type, root: Path, given: str = "") -> None:
    """Fetches and lays out what the data set lacks under root.

    Args:
        dataset: The data set's class, with the facts of `DatasetFiles`.
        root: The folder that holds `dataset_dir`.
        given: A folder or an address where files are looked for first; "" for none.

    Raises:
        FileNotFoundError: If images are missing and no command fetches them, or they lie in a wrong place, or are
            links that lead nowhere.
        ConnectionError: If the images are not to be had anywhere.
        ValueError: If a file that is there is broken.
        OSError: If the disk is full, or root not writable.
    """
    folder = root / dataset.dataset_dir
    require_none_near(dataset, root)
    with writing(folder), filling(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in files_beside_images(dataset):
            fetch_file(dataset, file, folder, given)
        if not dataset.is_complete(root):
            fetch_images(dataset, folder, given)
        if dataset.split_id and not (folder / dataset.split_file).exists():
            keep_own_split(dataset, folder, given)


def plan_folder(dataset: type, root: Path, given: str = "") -> list[str]:
    """Returns what `fill_folder` would do, a line for each file; nothing is fetched and no network is asked."""
    folder = root / dataset.dataset_dir
    lines = [plan(file, folder, given=given) for file in files_beside_images(dataset)]
    if dataset.is_complete(root):
        return [*lines, f"{', '.join(filter(None, dataset.contents())) or 'images'}: there"]
    for n_before, (archives, place) in enumerate(ways_to_images(dataset, folder)):
        lines += ["or, where these are not to be had:"] * bool(n_before)
        lines += [plan(archive, place, given=given) for archive in archives]
    if dataset.by_hand and not (dataset.archives or dataset.mirrored):
        lines.append(dataset.remedy())
    return lines or ["nothing is fetched"]


def require_none_near(dataset: type, root: Path) -> None:
    """Raises FileNotFoundError where what would be fetched lies nearby, in a wrong place, or is a link that is dead."""
    folder = root / dataset.dataset_dir
    missing = [folder / name for name in dataset.contents() if not (folder / name).exists()]
    remedy = mend_links(dataset, root, missing)
    if folder.exists() or folder.name in root.parts:  # elsewhere, a name is no proof
        remedy = remedy or next(filter(None, (how_to_move(dataset, path) for path in missing)), "")
    if remedy:
        raise FileNotFoundError(f"{dataset.__name__} lacks images, expected {missing[0]}; none are fetched. {remedy}")


def files_beside_images(dataset: type) -> list[RemoteFile]:
    """Returns the files that are fetched by themselves: `label_files` and the split file, if there is one."""
    files = list(dataset.label_files)
    if dataset.split_file and dataset.split_id:
        files.append(RemoteFile(dataset.split_file, sources=(f"drive:{dataset.split_id}", MIRROR)))
    return files


def fetch_file(dataset: type, file: RemoteFile, folder: Path, given: str) -> None:
    """Puts a file in place; where it is not to be had, says why and goes on: the check names what is still missing."""
    if (folder / file.name).exists():
        return
    accept = dataset.require_papers_split if file.name == dataset.split_file else None
    try:
        put_in_place(obtain(file, folder, given=given, accept=accept), folder / file.name)
    except ConnectionError as error:
        logger.warning(error)
        if dataset.mirrored and not file.inside:
            take_from_mirror(dataset, file.name, folder, given, accept)


def take_from_mirror(dataset: type, name: str, folder: Path, given: str, accept: Callable[[Path], None] | None) -> None:
    """Takes one file out of the mirror's archive, large as that is: without the papers' split no result compares."""
    logger.info(f"Looking for {name} in the mirror's archive of the whole folder")
    archive = mirror_archive(dataset)
    for looked_in in dict.fromkeys((given, "")):  # an archive in --from may be the publisher's, under the same name
        try:
            found = obtain(archive, folder / MIRROR_DIR, given=looked_in)
            with tempfile.TemporaryDirectory(prefix=WORKPLACE, dir=folder) as workplace:
                unpack(found, Path(workplace), {name: name})
                if accept:
                    accept(Path(workplace, name))
                put_in_place(Path(workplace, name), folder / name)
            return
        except ConnectionError as error:
            logger.warning(error)
            return
        except ValueError as error:
            logger.warning(error)


def put_in_place(found: Path, target: Path) -> None:
    """Copies a file to where it belongs, in one step, unless it is there."""
    if not target.exists():
        write_atomically(target, lambda temporary: shutil.copyfile(found, temporary))


def fetch_images(dataset: type, folder: Path, given: str) -> None:
    """Takes what the folder lacks out of the publisher's archives or, where these are not to be had, the mirror's.

    Archives that are here or in --from go before those that have to be fetched.
    """
    ways = ways_to_images(dataset, folder)
    ways.sort(key=lambda way: not all(is_near(archive, way[1], given) for archive in way[0]))
    if not ways:
        raise FileNotFoundError(
            f"{dataset.__name__}'s images are not all in {folder}, and no command fetches them. {dataset.remedy()}"
        )
    for archives, place in ways:
        try:
            for archive in archives:
                unpack(obtain(archive, place, given=given), folder, archive.members, optional=archive.optional)
            return
        except (ConnectionError, ValueError) as error:
            logger.warning(error)
    raise ConnectionError(
        f"{dataset.__name__}'s images are not to be had; what was tried is said above. By hand, and then this command "
        "again, with --from FOLDER for files that are saved elsewhere:"
        + "".join(f"\n  {number}. {step}" for number, step in enumerate(steps_by_hand(dataset, folder), start=1))
    )


def steps_by_hand(dataset: type, folder: Path) -> list[str]:
    """Returns the steps by which a person fetches what the folder lacks."""
    missing = [file for file in files_beside_images(dataset) if not (folder / file.name).exists()]
    ways = [" and ".join(by_hand(file, place) for file in files) for files, place in ways_to_images(dataset, folder)]
    return [*(by_hand(file, folder) for file in missing), *filter(None, ["; or ".join(ways)])]


def ways_to_images(dataset: type, folder: Path) -> list[tuple[tuple[RemoteFile, ...], Path]]:
    """Returns sets of archives each of which holds all images, the publisher's first, and where they are put."""
    ways = [(dataset.archives, folder)] if dataset.archives else []
    if dataset.mirrored:
        ways.append(((mirror_archive(dataset),), folder / MIRROR_DIR))
    return ways


def mirror_archive(dataset: type) -> RemoteFile:
    """Returns the mirror's archive of the data set's folder."""
    return RemoteFile(
        f"{dataset.dataset_dir}.zip",
        sources=(MIRROR,),
        members={name: name for name in dataset.contents()},
        aliases=(dataset.dataset_dir, dataset.__name__),
    )


def is_near(file: RemoteFile, place: Path, given: str) -> bool:
    """Says whether a file, or the archive that holds it, is here or in the folder that --from names."""
    for found in find_here(file, place, given):
        try:
            require_right(file, found)
            return True
        except ValueError:  # told where the file is used
            continue
    return file.inside is not None and is_near(file.inside, place, given)


def keep_own_split(dataset: type, folder: Path, given: str) -> None:
    """Draws a split by the data set's own rule and keeps it under another name than the papers'."""
    own_split = dataset.own_split_path(folder)
    if not own_split.exists():
        for file in dataset.annotations:
            fetch_file(dataset, file, folder, given)
        items = dataset.own_items(folder)
        n_classes = count_classes(items)
        if dataset.n_classes and n_classes != dataset.n_classes:
            raise ValueError(
                f"{folder / dataset.image_dir} holds images of {n_classes} classes, expected {dataset.n_classes}: no "
                "split of our own is drawn. Move it away, and run this command again to have all images."
            )
        write_split(own_split, folder / dataset.image_dir, *items)
    logger.warning(
        f"Until https://drive.google.com/file/d/{dataset.split_id} lies at {folder / dataset.split_file}, "
        f"{own_split.name} is used: {dataset.own_split_rule}. It is NOT the papers' split: results do not compare with "
        "theirs"
    )
