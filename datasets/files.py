"""A data set's files under the root: where they lie, how they are read, prepared and checked.

`root/dataset_dir/image_dir` holds the images and `root/dataset_dir/split_file` lists the items.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import ClassVar

from engine import Datum
from engine.files import existing_part

from .download import fetch_from_drive
from .report import Report, report_items
from .split import Items, draw_split, items_digest, list_class_images, read_split, write_split

OWN_SPLIT_SEED = 1

logger = logging.getLogger(__name__)


class DatasetFiles:
    """The files of one data set; a subclass states facts and says in `prepare` how the images are fetched.

    Attributes:
        dataset_dir: Its folder under the root.
        image_dir: Folder in dataset_dir that the split file's paths start from; "" is dataset_dir itself.
        split_file: Name of the split file in dataset_dir.
        split_id: The split file on Google Drive.
        split_sha256: Digest of a copy of it that is known to be right.
        split_items_sha256: `items_digest` of its items, whatever the bytes.
        n_classes: Number of classes; 0 accepts any.
        n_items: Number of train, val and test items; zeros accept any.
        ignored_folders: Folders of images that are no classes.
        renamed_folders: Folder -> class name, where they differ.
        default_root: Root where DATASET.ROOT is empty; "" means that the user has to name one.
        by_hand: Where no command fetches the files, the steps that lay them out in dataset_dir; that of the split file
            is added.
    """

    dataset_dir = ""
    image_dir = ""
    split_file = ""
    split_id = ""
    split_sha256 = ""
    split_items_sha256 = ""
    n_classes = 0
    n_items = (0, 0, 0)
    ignored_folders: frozenset[str] = frozenset()
    renamed_folders: ClassVar[dict[str, str]] = {}
    default_root = ""
    by_hand: tuple[str, ...] = ()

    @classmethod
    def prepare(cls, root: Path) -> None:
        """Fetches or makes what is missing under root and leaves the rest alone; here the user does it by hand.

        Raises:
            FileNotFoundError: If something is missing, with the steps.
        """
        if not cls.by_hand:
            raise NotImplementedError(f"{cls.__name__} does not say how it is prepared")
        cls.read_items(root)

    @classmethod
    def find_root(cls, root: str) -> Path:
        """Returns the folder that holds `dataset_dir`, absolute.

        Raises:
            ValueError: If root is empty and the data set has no default.
        """
        root = root or cls.default_root
        if not root:
            raise ValueError(
                "DATASET.ROOT is empty, expected the folder that holds the data sets' folders. Pass --root FOLDER, or "
                f"DATA=FOLDER to the scripts; `python -m datasets.prepare {cls.__name__} --root FOLDER` fills it."
            )
        return Path(root).expanduser().absolute()

    @classmethod
    def read_items(cls, root: Path) -> Items:
        """Returns all items; where the papers' split is missing, those of a split drawn by `prepare_split`.

        Raises:
            FileNotFoundError: If the folder of the images or the split file is missing.
            ValueError: If the split file is broken.
        """
        folder = root / cls.dataset_dir
        images, split, own_split = folder / cls.image_dir, folder / cls.split_file, cls.own_split_path(folder)
        cls.require(images)
        if not split.exists() and own_split.exists():
            logger.warning(f"{own_split} is used. It is NOT the papers' split: results do not compare with theirs")
            split = own_split
        cls.require(split)
        return read_split(split, images)

    @classmethod
    def require(cls, path: Path) -> None:
        """Raises FileNotFoundError if path is missing, saying how far it exists and what to do."""
        if not path.exists():
            raise FileNotFoundError(
                f"{cls.__name__}'s {path} is missing, expected {cls.dataset_dir or 'it'} under the root; of this path "
                f"{existing_part(path)} exists. {cls.remedy()}"
            )

    @classmethod
    def remedy(cls) -> str:
        """Returns what to do where files are missing: the command that fetches them, or the steps by hand."""
        if not cls.by_hand:
            return (
                f"Run `python -m datasets.prepare {cls.__name__} --root FOLDER`, or correct --root (DATA in the "
                "scripts)."
            )
        drive = f"save https://drive.google.com/file/d/{cls.split_id} as {cls.split_file}"
        steps = [*cls.by_hand, drive] if cls.split_id else cls.by_hand
        return f"Correct --root (DATA in the scripts), or by hand, in {cls.dataset_dir}/ under it:" + "".join(
            f"\n  {number}. {step}" for number, step in enumerate(steps, start=1)
        )

    @classmethod
    def prepare_split(cls, folder: Path) -> None:
        """Fetches the papers' split file; where it is not to be had, draws a split of another name from the images."""
        split, own_split, images = folder / cls.split_file, cls.own_split_path(folder), folder / cls.image_dir
        if split.exists():
            return
        try:
            fetched = fetch_from_drive(cls.split_id, split)
            cls._require_papers_items(fetched, images)
            fetched.replace(split)
        except (ConnectionError, ValueError) as error:
            logger.warning(error)
            if not own_split.exists():
                write_split(own_split, images, *draw_split(cls.list_items(images), OWN_SPLIT_SEED))
            logger.warning(
                f"Until https://drive.google.com/file/d/{cls.split_id} lies at {split}, {own_split.name} is used: half "
                "of each class to train on, a fifth for val, the rest to test on. It is NOT the papers' split: results "
                "do not compare with theirs"
            )

    @classmethod
    def own_split_path(cls, folder: Path) -> Path:
        return folder / f"split_seed{OWN_SPLIT_SEED}_{cls.__name__}.json"

    @classmethod
    def list_items(cls, images: Path) -> list[Datum]:
        """Returns an item for every image in the class folders, classes numbered in the folders' order."""
        classes = {name: paths for name, paths in list_class_images(images).items() if name not in cls.ignored_folders}
        return [
            Datum(str(path), label, classname=cls.renamed_folders.get(name, name))
            for label, (name, paths) in enumerate(classes.items())
            for path in paths
        ]

    @classmethod
    def check(cls, root: Path, *, decode: bool = False) -> Report:
        """Compares what is under root with what is known of the data set; `decode` also reads every image."""
        folder = root / cls.dataset_dir
        report = Report(f"{cls.__name__} in {folder}")
        try:
            items = cls.read_items(root)
        except (FileNotFoundError, ValueError) as error:
            report.problems.append(str(error))
            return report
        report_items(report, items, n_classes=cls.n_classes, n_items=cls.n_items, decode=decode)
        split = folder / cls.split_file
        if cls.split_file and not split.exists():
            report.problems.append(f"{split} is missing, {cls.own_split_path(folder).name} is NOT the papers' split")
        elif cls.split_sha256 and not cls.is_papers_split(split, items, folder / cls.image_dir):
            known = report.problems if cls.split_items_sha256 else report.notes
            known.append(f"{split} is not a known copy of the papers' split")
        return report

    @classmethod
    def is_papers_split(cls, split: Path, items: Items, images: Path) -> bool:
        """Says whether the file is a known one, or another with the very items of the papers' split."""
        return (
            hashlib.sha256(split.read_bytes()).hexdigest() == cls.split_sha256
            or items_digest(images, *items) == cls.split_items_sha256
        )

    @classmethod
    def _require_papers_items(cls, fetched: Path, images: Path) -> None:
        items = read_split(fetched, images)
        counts = tuple(len(split) for split in items)
        if cls.is_papers_split(fetched, items, images) or (not cls.split_items_sha256 and counts == cls.n_items):
            return
        raise ValueError(
            f"The download {fetched} has {counts} train, val and test items, expected the papers' {cls.n_items} and in "
            "their order. Prepare again, or fetch the split file by hand."
        )
