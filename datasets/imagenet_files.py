"""How ImageNet and its shifted versions lie on disk: a folder of images for each class, and classnames.txt.

A line of classnames.txt is `FOLDER CLASS NAME`, such as "n01440764 tench"; its lines stand in the order of the labels.
"""

import os
import shutil
from pathlib import Path
from shlex import quote

from engine.files import write_atomically

from .base import DataCopy, FewShotDataset, Items, RemoteFile, Report, require
from .splits.folder_items import ClassItems, FolderItems, list_folders, list_images
from .splits.imagenet_names import CLASSNAMES_FILE, CLASSNAMES_ID, names_warning, read_classnames, require_same
from .verify.report import name_first

DATASET_DIRS = ("imagenet", "imagenetv2", "imagenet-sketch", "imagenet-adversarial", "imagenet-rendition")


class ImageNetFiles(FewShotDataset):
    """Template of a test set of ImageNet's classes, or of those in `source_labels`; a subclass may add training images.

    Attributes:
        folders_sha256: Digest of the 1,000 folders' names, one a line, in the order of the labels.
    """

    folders_sha256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
    label_files = (RemoteFile(CLASSNAMES_FILE, sources=(f"drive:{CLASSNAMES_ID}",)),)
    listed_from_disk = True
    repeated_names = frozenset({"missile", "sunglasses"})

    def load_items(self, cfg) -> Items:
        """Notes, too, which class names are not the papers'."""
        items = super().load_items(cfg)
        self.warnings += self.doubts(DataCopy(type(self), self.find_root(cfg.DATASET.ROOT)))
        return items

    @classmethod
    def check(cls, root: Path, *, decode: bool = False) -> Report:
        report = super().check(root, decode=decode)
        if report.n_items:
            report.problems += cls.doubts(DataCopy(cls, root))
        return report

    @classmethod
    def doubts(cls, copy: DataCopy) -> tuple[str, ...]:
        """Returns a sentence if a few class names are not the papers'."""
        return tuple(filter(None, [names_warning(copy.folder / CLASSNAMES_FILE, cls.read_classnames(copy))]))

    @classmethod
    def prepare(cls, root: Path, *, source: str = "") -> None:
        """As the other data sets; classnames.txt is copied where another of ImageNet's folders has it."""
        target, *others = (root / folder / CLASSNAMES_FILE for folder in (cls.dataset_dir, *DATASET_DIRS))
        found = next((path for path in others if path.exists()), None)
        if found and not target.exists():
            read_classnames(found, cls.folders_sha256)
            write_atomically(target, lambda temporary: shutil.copyfile(found, temporary))
        super().prepare(root, source=source)

    @classmethod
    def is_complete(cls, root: Path) -> bool:
        """Says whether all images are there; without classnames.txt, whether their folder is."""
        copy = DataCopy(cls, root)
        if not (copy.folder / CLASSNAMES_FILE).exists():
            return copy.images.exists()
        try:
            return all(len(items) >= n for items, n in zip(copy.read(), cls.n_items))
        except FileNotFoundError:
            return False

    @classmethod
    def read_items(cls, root: Path) -> Items:
        """Returns no training and no val items, and all test items."""
        copy = DataCopy(cls, root)
        require(copy, copy.images)  # before classnames.txt, which is fetched
        return [], [], cls.list_class_items(copy, copy.images, cls.read_classnames(copy))

    @classmethod
    def read_classnames(cls, copy: DataCopy) -> dict[str, str]:
        """Returns folder -> class name of all 1,000 classes, in the order of ImageNet's labels."""
        path, of_imagenet = copy.folder / CLASSNAMES_FILE, copy.root / DATASET_DIRS[0] / CLASSNAMES_FILE
        require(copy, path)
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
    def list_class_items(cls, copy: DataCopy, images: Path, classnames: dict[str, str]) -> FolderItems:
        """Returns an item for every image, by label and file name; asks for names alone: there may be a million."""
        classes = cls.name_folders(classnames)
        require_folders(copy, images, classes)
        listed, above = [], os.path.join(images, "")
        for label, (name, classname) in enumerate(classes.items()):
            folder = above + name + os.sep  # file names are only appended
            names = list_images(folder)
            if not names:
                raise FileNotFoundError(f"{folder} holds no images; every class folder has some. {copy.remedy}")
            listed.append(ClassItems(folder, names, label, classname))
        return FolderItems(listed)


def require_folders(copy: DataCopy, images: Path, classes: dict[str, str]) -> None:
    """Raises FileNotFoundError if a class has no folder, ValueError if images lie elsewhere than in these."""
    folders = {folder.name for folder in list_folders(images)}
    missing = [name for name in classes if name not in folders]
    if len(missing) == len(classes) and (loose := list_images(images)):
        raise ValueError(
            f"{images} holds {len(loose):,} images outside of class folders such as {missing[0]}. Move {images} away "
            f"and prepare the data set again. {copy.remedy}"
        )
    if missing:
        deeper = next((folder for folder in list_folders(images) if (folder / missing[0]).exists()), None)
        move = deeper and f"mv -n {quote(str(deeper))}/* {quote(str(images))}/ && rmdir {quote(str(deeper))}"
        raise FileNotFoundError(
            f"{images} holds {len(classes) - len(missing)} of {len(classes)} class folders; missing: "
            f"{name_first(missing)}. {f'They lie in {deeper}: run `{move}`.' if deeper else copy.remedy}"
        )
    if unknown := sorted(folders - classes.keys()):
        raise ValueError(
            f"{images / unknown[0]} is a folder of none of {copy.name}'s {len(classes)} classes ({len(unknown)} such). "
            "Move it away."
        )
