"""How ImageNet and its shifted versions lie on disk: a folder of images for each class, and classnames.txt.

A line of classnames.txt is `FOLDER CLASS NAME`, such as "n01440764 tench"; its lines stand in the order of the labels.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from shlex import quote

from engine.files import write_atomically

from .base import FewShotDataset, Items, RemoteFile
from .splits.classnames import CLASSNAMES_FILE, CLASSNAMES_ID, read_classnames, require_same
from .splits.few_shot import is_image
from .splits.folder_items import ClassItems, FolderItems
from .verify.report import name_first
from .verify.wrong_copies import find_folder, list_folders

DATASET_DIRS = ("imagenet", "imagenetv2", "imagenet-sketch", "imagenet-adversarial", "imagenet-rendition")


class ImageNetFiles(FewShotDataset):
    """Template of a test set of ImageNet's classes, or of those in `source_labels`; a subclass may add training images.

    Attributes:
        folders_sha256: Digest of the 1,000 folders' names, one a line, in the order of the labels.
    """

    folders_sha256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
    label_files = (RemoteFile(CLASSNAMES_FILE, sources=(f"drive:{CLASSNAMES_ID}",)),)
    listed_from_disk = True

    @classmethod
    def prepare(cls, root: Path, *, given: str = "") -> None:
        """As the other data sets; classnames.txt is copied where another of ImageNet's folders has it."""
        cls.copy_classnames(root)
        super().prepare(root, given=given)

    @classmethod
    def copy_classnames(cls, root: Path) -> None:
        target, *others = (root / folder / CLASSNAMES_FILE for folder in (cls.dataset_dir, *DATASET_DIRS))
        found = next((other for other in others if other.exists()), target)
        if target.exists() or not found.exists():
            return
        read_classnames(found, cls.folders_sha256)
        write_atomically(target, lambda temporary: shutil.copyfile(found, temporary))

    @classmethod
    def is_complete(cls, root: Path) -> bool:
        """Says whether all images are there; without classnames.txt, whether their folder is."""
        folder = root / cls.dataset_dir
        if not (folder / CLASSNAMES_FILE).exists():
            return (folder / cls.image_dir).exists()
        try:
            return all(len(items) >= n for items, n in zip(cls.read_items(root), cls.n_items))
        except FileNotFoundError:
            return False

    @classmethod
    def read_items(cls, root: Path) -> Items:
        """Returns no training and no val items, and all test items.

        Raises:
            FileNotFoundError: If images or classnames.txt are missing.
            ValueError: If classnames.txt is not the papers', or the folders are not those of the classes.
        """
        images = root / cls.dataset_dir / cls.image_dir
        cls.require(images)  # before classnames.txt, which is fetched
        return [], [], cls.list_class_items(images, cls.read_classnames(root))

    @classmethod
    def read_classnames(cls, root: Path) -> dict[str, str]:
        """Returns folder -> class name of all 1,000 classes, in the order of ImageNet's labels."""
        path, of_imagenet = (root / folder / CLASSNAMES_FILE for folder in (cls.dataset_dir, DATASET_DIRS[0]))
        cls.require(path)
        classnames = read_classnames(path, cls.folders_sha256)
        if path != of_imagenet and of_imagenet.exists():
            require_same(path, classnames, of_imagenet)
        return classnames

    @classmethod
    def name_folders(cls, classnames: dict[str, str]) -> dict[str, str]:
        """Returns folder of the images -> class name, in the order of this data set's labels."""
        if cls.source_labels is None:
            return classnames
        folders = list(classnames)
        return {folders[label]: classnames[folders[label]] for label in cls.source_labels}

    @classmethod
    def list_class_items(cls, images: Path, classnames: dict[str, str]) -> FolderItems:
        """Returns an item for every image, by label and file name; asks for names alone: there may be a million."""
        cls.require(images)
        classes = cls.name_folders(classnames)
        cls.require_folders(images, classes)
        listed, above = [], os.path.join(images, "")
        for label, (folder, classname) in enumerate(classes.items()):
            place = above + folder + os.sep  # names are only appended
            names = list_images(place)
            if not names:
                remedy = cls.remedy(find_folder(cls, images).parent)
                raise FileNotFoundError(f"{place} holds no images, expected some in every class folder. {remedy}")
            listed.append(ClassItems(place, names, label, classname))
        return FolderItems(listed)

    @classmethod
    def require_folders(cls, images: Path, classes: dict[str, str]) -> None:
        """Raises FileNotFoundError if a class has no folder, ValueError if images lie elsewhere than in these."""
        remedy = cls.remedy(find_folder(cls, images).parent)
        with os.scandir(images) as entries:
            folders = {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__"))}
        unknown = [images / name for name in sorted(folders - classes.keys())]
        missing = [name for name in classes if name not in folders]
        for deeper in unknown:
            if any(folder.name in classes for folder in list_folders(deeper)):
                raise ValueError(
                    f"The class folders lie in {deeper}, one level too deep, expected them in {images}. Move them up: "
                    f"`mv -n {quote(str(deeper))}/* {quote(str(images))}/`, then `rmdir {quote(str(deeper))}`."
                )
        if len(missing) == len(classes) and (loose := list_images(str(images))):
            raise ValueError(
                f"{images} holds {len(loose):,} images outside of class folders, expected folders such as {missing[0]}"
                f". Move {images} away and prepare the data set again. {remedy}"
            )
        if missing:
            raise FileNotFoundError(
                f"{images} holds {len(classes) - len(missing)} of {len(classes)} class folders, expected all; missing: "
                f"{name_first(missing)}. {remedy}"
            )
        if unknown:
            raise ValueError(
                f"{unknown[0]} is a folder of none of {cls.__name__}'s {len(classes)} classes ({len(unknown)} "
                "such), expected class folders alone. Move it away."
            )


def list_images(folder: str) -> list[str]:
    """Returns the names of the image files in a folder, sorted."""
    names = sorted(os.listdir(folder))
    joined = "/".join(["", *names, ""])
    if joined.count(".JPEG/") == len(names) and "/." not in joined:  # asked one by one, a million takes long
        return names
    return [name for name in names if is_image(name)]
