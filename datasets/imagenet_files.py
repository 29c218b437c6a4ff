"""How ImageNet and its shifted versions lie on disk: a folder of images for each class, and classnames.txt.

A line of classnames.txt is `FOLDER CLASS NAME`, such as "n01440764 tench"; its lines stand in the order of the labels.
"""

from __future__ import annotations

import os
from pathlib import Path

from .base import Datum, FewShotDataset, Items
from .report import name_first
from .split import IMAGE_SUFFIXES

CLASSNAMES_FILE = "classnames.txt"
CLASSNAMES_STEP = f"save https://drive.google.com/file/d/1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF as {CLASSNAMES_FILE}"


class ImageNetFiles(FewShotDataset):
    """Template of a test set of ImageNet's classes; a subclass may name the class folders, or add training images."""

    @classmethod
    def read_items(cls, root: Path) -> Items:
        """Returns no training and no val items, and all test items.

        Raises:
            FileNotFoundError: If the folder of the images or classnames.txt is missing.
            ValueError: If classnames.txt is broken, or the class folders are not those that it names.
        """
        images = root / cls.dataset_dir / cls.image_dir
        return [], [], cls.list_class_items(images, cls.read_classnames(root))

    @classmethod
    def read_classnames(cls, root: Path) -> dict[str, str]:
        """Returns folder -> class name of all 1,000 classes, in the order of ImageNet's labels."""
        path = root / cls.dataset_dir / CLASSNAMES_FILE
        cls.require(path)
        return read_classnames(path)

    @classmethod
    def name_folders(cls, images: Path, classnames: dict[str, str]) -> dict[str, str]:
        """Returns folder in `images` -> class name, in the order of this data set's labels."""
        return classnames

    @classmethod
    def list_class_items(cls, images: Path, classnames: dict[str, str]) -> list[Datum]:
        """Returns an item for every image, by label and file name; asks for names alone: there may be a million."""
        cls.require(images)
        classes = cls.name_folders(images, classnames)
        cls.require_folders(images, classes)
        items, suffixes = [], tuple(IMAGE_SUFFIXES)
        for label, (folder, classname) in enumerate(classes.items()):
            place = os.path.join(images, folder, "")  # "": ends with a separator, so that names are only appended
            names = sorted(name for name in os.listdir(place) if name.lower().endswith(suffixes))
            if not names:
                raise ValueError(f"{place} holds no images, expected some in every class folder. {cls.remedy()}")
            items += [Datum(place + name, label, classname=classname) for name in names]
        return items

    @classmethod
    def require_folders(cls, images: Path, classes: dict[str, str]) -> None:
        """Raises ValueError if a class has no folder, or a folder no class."""
        folders = set(list_folders(images))
        if missing := [folder for folder in classes if folder not in folders]:
            raise ValueError(
                f"{images} holds {len(classes) - len(missing)} of {len(classes)} class folders, expected all; missing: "
                f"{name_first(missing)}. {cls.remedy()}"
            )
        if unknown := sorted(folders - classes.keys()):
            raise ValueError(
                f"{images / unknown[0]} is a folder of no class in {CLASSNAMES_FILE} ({len(unknown)} such), expected "
                "class folders alone. Move it away."
            )


class ImageNetSubset(ImageNetFiles):
    """Template of a test set of some of ImageNet's classes: those with a folder, labelled in the folders' order."""

    def load_items(self, cfg) -> Items:
        """Returns all items; from now on `source_labels` are their classes' labels among the 1,000."""
        items = super().load_items(cfg)
        folders = list(self.read_classnames(self.find_root(cfg.DATASET.ROOT)))
        found = {item.label: Path(item.impath).parent.name for item in items[-1]}
        self.source_labels = tuple(folders.index(found[label]) for label in range(len(found)))
        return items

    @classmethod
    def name_folders(cls, images: Path, classnames: dict[str, str]) -> dict[str, str]:
        classes = {folder: classnames[folder] for folder in list_folders(images) if folder in classnames}
        if len(classes) != cls.n_classes:
            raise ValueError(
                f"{images} holds {len(classes)} of ImageNet's class folders, expected {cls.n_classes}. {cls.remedy()}"
            )
        return classes


def read_classnames(path: Path) -> dict[str, str]:
    """Returns folder -> class name, in the order of the lines.

    Raises:
        ValueError: If a line is not `FOLDER CLASS NAME`, or names a folder once more.
    """
    classnames: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        folder, _, name = line.strip().partition(" ")
        if not name.strip() or folder in classnames:
            raise ValueError(
                f"{path}, line {number} is {line!r}, expected `FOLDER CLASS NAME`, each folder once. Fetch it anew: "
                f"{CLASSNAMES_STEP}."
            )
        classnames[folder] = name.strip()
    return classnames


def list_folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
