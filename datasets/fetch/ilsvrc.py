"""Unpacks the archives of ILSVRC 2012 to a folder for each class; only a person can fetch them.

torchvision knows their digests and the classes of the validation images. What is half unpacked lies in a hidden folder.
"""

import logging
import shutil
import tarfile
from pathlib import Path

from torchvision.datasets.imagenet import ARCHIVE_META, parse_devkit_archive, parse_val_archive
from torchvision.datasets.utils import check_integrity
from tqdm import tqdm

from ..data_copy import DataCopy
from ..splits.imagenet_names import N_CLASSES
from .archives import make_hidden_folder, merge
from .sources import RemoteFile, find_here

logger = logging.getLogger(__name__)


def unpack_ilsvrc(copy: DataCopy) -> None:
    """Makes images/train and images/val of the archives, or completes them; leaves alone what is there.

    The archives lie in ImageNet's folder or, however deep, in the folder that --from names. FileNotFoundError if the
    development kit, with the classes of the validation images, is not there too; ValueError if one is not whole.
    """
    for split, unpack in (("val", unpack_val), ("train", unpack_train)):
        archive = find_archive(copy, split)
        if not archive or has_all(copy, split):
            continue
        require_whole(split, archive)
        hidden = make_hidden_folder(copy.images)
        try:
            unpack(archive, hidden, find_archive(copy, "devkit"))
            merge(hidden / split, copy.images / split)
        finally:
            shutil.rmtree(hidden)


def plan_ilsvrc(copy: DataCopy) -> list[str]:
    """Returns what `unpack_ilsvrc` would do, in words, and the steps by hand where an archive is not here."""
    lines, by_hand = [], []
    for split in ("train", "val"):
        target, archive = copy.images / split, find_archive(copy, split)
        if archive and not has_all(copy, split):
            lines.append(f"{target}: would be unpacked from {archive}")
        elif target.exists():
            lines.append(f"{target}: there")
        else:
            lines.append(f"{target}: to be had by hand: {ARCHIVE_META[split][0]} is not here")
            by_hand = [copy.remedy]
    return lines + by_hand


def has_all(copy: DataCopy, split: str) -> bool:
    """Says whether "train" or "val" has as many images as it should have."""
    n_train, _, n_val = copy.dataset.n_items
    return sum(1 for _ in (copy.images / split).glob("*/*.JPEG")) >= {"train": n_train, "val": n_val}[split]


def find_archive(copy: DataCopy, name: str) -> Path | None:
    """Returns the archive of "train", "val" or "devkit", or None."""
    found = next(find_here(RemoteFile(ARCHIVE_META[name][0]), copy.folder, copy.source), None)
    return found and found.absolute()  # torchvision takes another path as one from its root


def require_whole(name: str, archive: Path) -> None:
    """Raises ValueError if the archive is not whole."""
    md5 = ARCHIVE_META[name][1]
    logger.info(f"Checking the {archive.stat().st_size / 1e9:,.1f} GB of {archive}")
    if not check_integrity(archive, md5):
        raise ValueError(f"{archive} is not the whole archive: its md5 is not {md5}. Fetch it again.")


def unpack_val(archive: Path, hidden: Path, devkit: Path | None) -> None:
    if not devkit:
        raise FileNotFoundError(
            f"{ARCHIVE_META['devkit'][0]} is missing; it has the classes of the images in {archive}. Fetch it from "
            "https://www.image-net.org/ too."
        )
    require_whole("devkit", devkit)
    logger.info(f"Unpacking {archive}")
    parse_devkit_archive(hidden, devkit)
    parse_val_archive(hidden, archive)


def unpack_train(archive: Path, hidden: Path, devkit: Path | None) -> None:
    """Unpacks an archive of archives, one for each class, without laying these down."""
    with tarfile.open(archive) as classes:
        for member in tqdm(classes, desc=f"unpacking {archive.name}", total=N_CLASSES, unit="class"):
            with tarfile.open(fileobj=classes.extractfile(member)) as images:
                images.extractall(hidden / "train" / Path(member.name).stem, filter="data")
