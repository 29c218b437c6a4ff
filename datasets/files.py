"""A data set's files under the root: what is known of them, and how they are found, read, prepared and checked.

`root/dataset_dir/image_dir` holds the images and `root/dataset_dir/split_file` lists the items.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import ClassVar

from engine import Datum
from engine.data.datum import items_digest
from engine.files import existing_part

from .fetch.fill import fill_folder, plan_folder
from .fetch.sources import RemoteFile
from .splits.few_shot import Items, draw_split, list_class_images, read_split
from .verify.copy import check_copy
from .verify.report import Report
from .verify.wrong_copies import find_folder, how_to_move
from .verify.wrong_files import find_unusable, mend_links, require_links
from .verify.wrong_items import preparing

OWN_SPLIT_SEED = 1

logger = logging.getLogger(__name__)


class DatasetFiles:
    """The files of one data set; a subclass states facts.

    Attributes:
        dataset_dir: Its folder under the root.
        image_dir: Folder in dataset_dir that the split file's paths start from; "" is dataset_dir itself.
        split_file: Name of the split file in dataset_dir.
        split_id: The split file on Google Drive.
        split_sha256: Digest of a copy of it that is known to be right.
        split_items_sha256: `items_digest` of its items, whatever the bytes.
        n_classes: Number of classes; 0 accepts any.
        n_items: Number of train, val and test items; zeros accept any.
        n_base_new: Number of test items of the base and of the new classes; zeros where it is not known.
        archives: The publisher's archives of the images.
        mirrored: Whether the mirror has an archive of the whole folder.
        label_files: Files beside the images, other than the split file.
        annotations: The publisher's own labels, fetched only where the papers' split is not to be had.
        own_split_rule: How `own_items` then splits, in words.
        ignored_folders: Folders of images that are no classes.
        renamed_folders: Folder -> class name, where they differ.
        default_root: Root where DATASET.ROOT is empty; "" means that the user has to name one.
        listed_from_disk: Whether the items are what the folders hold: then none of them can be missing or listed twice.
        by_hand: Where no command fetches the images, the steps that lay them out in dataset_dir.
    """

    dataset_dir = ""
    image_dir = ""
    split_file = ""
    split_id = ""
    split_sha256 = ""
    split_items_sha256 = ""
    n_classes = 0
    n_items = (0, 0, 0)
    n_base_new = (0, 0)
    archives: tuple[RemoteFile, ...] = ()
    mirrored = False
    label_files: tuple[RemoteFile, ...] = ()
    annotations: tuple[RemoteFile, ...] = ()
    own_split_rule = "half of each class to train on, a fifth for val, the rest to test on"
    ignored_folders: frozenset[str] = frozenset()
    renamed_folders: ClassVar[dict[str, str]] = {}
    default_root = ""
    listed_from_disk = False
    by_hand: tuple[str, ...] = ()

    @classmethod
    def prepare(cls, root: Path, *, given: str = "") -> None:
        """Fetches or makes what is missing under root and leaves the rest alone.

        Args:
            root: The folder that holds `dataset_dir`.
            given: What --from names: a folder or an address where files are looked for first.

        Raises:
            FileNotFoundError: If something is missing that only the user can fetch, with the steps.
            ConnectionError: If files are not to be had.
        """
        if not (cls.is_fetched() or cls.by_hand):
            raise NotImplementedError(
                f"{cls.__name__} does not say how it is prepared, expected `archives` or a `prepare` of its own. Put "
                f"its files into {root / cls.dataset_dir}, or state where they are to be had (CONTRIBUTING.md)."
            )
        fill_folder(cls, root, given)

    @classmethod
    def plan(cls, root: Path, *, given: str = "") -> list[str]:
        """Returns what `prepare` would do, a line for each file; nothing is fetched and no network is asked."""
        return plan_folder(cls, root, given)

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
        """Returns all items; where the papers' split is missing, those of a split of our own.

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
            folder = find_folder(cls, path)
            remedy = cls.remedy(folder.parent) if folder else cls.remedy()
            if path.name in [file.name for file in cls.label_files]:  # fetched, even where the images are not
                remedy = f"Run {preparing(cls, folder.parent)}."
            remedy = mend_links(cls, folder.parent if folder else path, [path]) or how_to_move(cls, path) or remedy
            raise FileNotFoundError(
                f"{cls.__name__}'s {path} is missing, expected {cls.dataset_dir or 'it'} under the root; of this path "
                f"{existing_part(path)} exists. {remedy}"
            )

    @classmethod
    def remedy(cls, root: Path = Path("FOLDER")) -> str:
        """Returns what to do where files are missing: the command that fetches them, or the steps by hand."""
        if not cls.by_hand and cls.prepare.__func__ is DatasetFiles.prepare.__func__ and not cls.is_fetched():
            return "Put the files there, or correct --root (DATA in the scripts)."
        if not cls.by_hand:
            return f"Run {preparing(cls, root)}, or correct --root (DATA in the scripts)."
        return f"Correct --root (DATA in the scripts), or by hand, in {cls.dataset_dir}/ under it:" + "".join(
            f"\n  {number}. {step}" for number, step in enumerate(cls.by_hand, start=1)
        )

    @classmethod
    def is_fetched(cls) -> bool:
        """Says whether it is known where its files are to be had."""
        return bool(cls.archives or cls.mirrored or cls.label_files)

    @classmethod
    def contents(cls) -> tuple[str, ...]:
        """Returns the names in dataset_dir that hold the images."""
        return (cls.image_dir,)

    @classmethod
    def is_complete(cls, root: Path) -> bool:
        """Says whether all images are there; where no split tells which, whether their folders are.

        Raises:
            FileNotFoundError: If some are links that lead nowhere.
        """
        folder = root / cls.dataset_dir
        if not all((folder / name).exists() for name in cls.contents()):
            return False
        if cls.split_file and not any(
            split.exists() for split in (folder / cls.split_file, cls.own_split_path(folder))
        ):
            return True
        missing, _ = find_unusable(*cls.read_items(root))
        require_links(cls, root, missing)
        return not missing

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
    def own_items(cls, folder: Path) -> Items:
        """Returns all items, split by `own_split_rule`; used where the papers' split is not to be had."""
        return draw_split(cls.list_items(folder / cls.image_dir), OWN_SPLIT_SEED)

    @classmethod
    def check(cls, root: Path, *, decode: bool = False) -> Report:
        """Compares what is under root with what is known of the data set; `decode` also reads every image."""
        return check_copy(cls, root, decode=decode)

    @classmethod
    def is_papers_split(cls, split: Path, items: Items) -> bool | None:
        """Says whether the file is a known one or another with the very items of the papers'; None: not known."""
        images = split.parent / cls.image_dir
        if cls.split_sha256 and hashlib.sha256(split.read_bytes()).hexdigest() == cls.split_sha256:
            return True
        if cls.split_items_sha256:
            return items_digest(images, *items) == cls.split_items_sha256
        counts_fit = not any(cls.n_items) or tuple(len(part) for part in items) == cls.n_items
        return None if counts_fit else False

    @classmethod
    def require_papers_split(cls, split: Path) -> None:
        """Raises ValueError if a split file holds other items than the papers' does."""
        items = read_split(split, split.parent / cls.image_dir)
        if cls.is_papers_split(split, items) is False:
            counts = tuple(len(part) for part in items)
            raise ValueError(
                f"The split file {split} has {counts} train, val and test items, expected the papers' {cls.n_items} "
                f"in their order. Fetch https://drive.google.com/file/d/{cls.split_id} instead."
            )
