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

N_CLASSES = 1000
WORKPLACE = ".unpacking"

logger = logging.getLogger(__name__)


def unpack_ilsvrc(images: Path, places: list[Path]) -> None:
    """Makes images/train and images/val of the archives that lie in one of the places; leaves alone what is there.

    Raises:
        FileNotFoundError: If there are validation images, but not the development kit, which has their classes.
        ValueError: If an archive is not whole.
    """
    workplace = images / WORKPLACE
    for split, unpack in (("val", unpack_val), ("train", unpack_train)):
        archive = find_archive(split, places)
        if (images / split).exists() or not archive:
            continue
        if workplace.exists():  # of a run that was killed
            shutil.rmtree(workplace)
        workplace.mkdir(parents=True)
        try:
            unpack(archive, workplace, places)
            (workplace / split).rename(images / split)
        finally:
            shutil.rmtree(workplace)


def plan_ilsvrc(images: Path, places: list[Path]) -> list[str]:
    """Returns what `unpack_ilsvrc` would do, in words."""
    lines = []
    for split in ("train", "val"):
        file, _ = ARCHIVE_META[split]
        archive = next((place / file for place in places if (place / file).exists()), None)
        would_be = f"would be unpacked from {archive}" if archive else f"to be had by hand: {file} is not here"
        lines.append(f"{images / split}: {'there' if (images / split).exists() else would_be}")
    return lines


def find_archive(name: str, places: list[Path]) -> Path | None:
    """Returns the archive of "train", "val" or "devkit", whole, or None.

    Raises:
        ValueError: If it is not whole.
    """
    file, md5 = ARCHIVE_META[name]
    archive = next((place / file for place in places if (place / file).exists()), None)
    if archive:
        logger.info(f"Checking the {archive.stat().st_size / 1e9:,.1f} GB of {archive}")
        if not check_integrity(archive, md5):
            raise ValueError(f"{archive} has another md5 than {md5}, expected the whole archive. Fetch it again.")
    return archive


def unpack_val(archive: Path, workplace: Path, places: list[Path]) -> None:
    devkit = find_archive("devkit", places)
    if not devkit:
        raise FileNotFoundError(
            f"{ARCHIVE_META['devkit'][0]} is missing, expected it beside {archive}: it has the classes of these "
            "images. Fetch it from https://www.image-net.org/ too."
        )
    logger.info(f"Unpacking {archive}")
    parse_devkit_archive(workplace, devkit)
    parse_val_archive(workplace, archive)


def unpack_train(archive: Path, workplace: Path, places: list[Path]) -> None:
    """Unpacks an archive of archives, one for each class, without laying these down."""
    with tarfile.open(archive) as classes:
        for member in tqdm(classes, desc=f"unpacking {archive.name}", total=N_CLASSES, unit="class"):
            with tarfile.open(fileobj=classes.extractfile(member)) as images:
                images.extractall(workplace / "train" / Path(member.name).stem, filter="data")
