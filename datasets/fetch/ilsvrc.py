"""Unpacks the archives of ILSVRC 2012 to a folder for each class; only a person can fetch them.

torchvision knows their digests and the classes of the validation images. What is half unpacked lies in a hidden folder.
"""

from __future__ import annotations

import logging
import shutil
import tarfile
from pathlib import Path

from torchvision.datasets.imagenet import ARCHIVE_META, parse_devkit_archive, parse_val_archive
from torchvision.datasets.utils import check_integrity
from tqdm import tqdm

from ..splits.classnames import N_CLASSES
from .archives import merge
from .sources import RemoteFile, find_here

WORKPLACE = ".unpacking"

logger = logging.getLogger(__name__)


def unpack_ilsvrc(folder: Path, given: str, n_images: dict[str, int]) -> None:
    """Makes images/train and images/val of the archives, or completes them; leaves alone what is there.

    Args:
        folder: ImageNet's folder, where the archives may lie.
        given: Another folder where they may lie, however deep; "" for none.
        n_images: Images of "train" and "val" when all are there.

    Raises:
        FileNotFoundError: If there are validation images, but not the development kit, which has their classes.
        ValueError: If an archive is not whole, or `given` is neither folder nor address.
    """
    images = folder / "images"
    workplace = images / WORKPLACE
    for split, unpack in (("val", unpack_val), ("train", unpack_train)):
        archive = find_archive(split, folder, given)
        if not archive or count_images(images / split) >= n_images[split]:
            continue
        require_whole(split, archive)
        if workplace.exists():  # of a run that was killed
            shutil.rmtree(workplace)
        workplace.mkdir(parents=True)
        try:
            unpack(archive, workplace, find_archive("devkit", folder, given))
            merge(workplace / split, images / split)
        finally:
            shutil.rmtree(workplace)


def plan_ilsvrc(folder: Path, given: str, n_images: dict[str, int], steps: str) -> list[str]:
    """Returns what `unpack_ilsvrc` would do, in words, and the steps by hand where an archive is not here."""
    lines, by_hand = [], []
    for split in ("train", "val"):
        target, archive = folder / "images" / split, find_archive(split, folder, given)
        if archive and count_images(target) < n_images[split]:
            lines.append(f"{target}: would be unpacked from {archive}")
        elif target.exists():
            lines.append(f"{target}: there")
        else:
            lines.append(f"{target}: to be had by hand: {ARCHIVE_META[split][0]} is not here")
            by_hand = [steps]
    return lines + by_hand


def count_images(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*/*.JPEG"))


def find_archive(name: str, folder: Path, given: str) -> Path | None:
    """Returns the archive of "train", "val" or "devkit", or None."""
    found = next(find_here(RemoteFile(ARCHIVE_META[name][0]), folder, given), None)
    return found and found.absolute()  # torchvision takes another path as one from its root


def require_whole(name: str, archive: Path) -> None:
    """Raises ValueError if the archive is not whole."""
    md5 = ARCHIVE_META[name][1]
    logger.info(f"Checking the {archive.stat().st_size / 1e9:,.1f} GB of {archive}")
    if not check_integrity(archive, md5):
        raise ValueError(f"{archive} has another md5 than {md5}, expected the whole archive. Fetch it again.")


def unpack_val(archive: Path, workplace: Path, devkit: Path | None) -> None:
    if not devkit:
        raise FileNotFoundError(
            f"{ARCHIVE_META['devkit'][0]} is missing, expected it beside {archive}: it has the classes of these "
            "images. Fetch it from https://www.image-net.org/ too."
        )
    require_whole("devkit", devkit)
    logger.info(f"Unpacking {archive}")
    parse_devkit_archive(workplace, devkit)
    parse_val_archive(workplace, archive)


def unpack_train(archive: Path, workplace: Path, devkit: Path | None) -> None:
    """Unpacks an archive of archives, one for each class, without laying these down."""
    with tarfile.open(archive) as classes:
        for member in tqdm(classes, desc=f"unpacking {archive.name}", total=N_CLASSES, unit="class"):
            with tarfile.open(fileobj=classes.extractfile(member)) as images:
                images.extractall(workplace / "train" / Path(member.name).stem, filter="data")
