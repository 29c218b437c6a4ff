"""Your own images: any folder of class folders, split as it says itself or drawn once.

DATASET.ROOT is the folder. It holds either train/ and test/ (and val/, if any; test/ alone can only be tested on), each
with the class folders, or the class folders themselves: then half of each class is drawn to train on, a fifth for val
and the rest to test on, and the split is kept in split_folder_seed1.json. Whatever SEED is, the split is the same:
seeds differ in the few shots that are drawn, never in the test set. Delete the file to draw anew.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from engine.files import missing_path

from .base import (
    DATASET_REGISTRY,
    DataCopy,
    Datum,
    FewShotDataset,
    Items,
    draw_split,
    find_unusable,
    list_class_images,
    read_split,
    require,
    write_split,
)
from .splits.classnames import match_names
from .splits.own_split import OWN_SPLIT_SEED

logger = logging.getLogger(__name__)


@DATASET_REGISTRY.register()
class Folder(FewShotDataset):
    """Class names are the folders' names, underscores becoming spaces in prompts, or those in DATASET.CLASSNAMES."""

    split_file = f"split_folder_seed{OWN_SPLIT_SEED}.json"
    root_is_identity = True  # another DATASET.ROOT is another data set, not the same one moved

    def load_items(self, cfg) -> Items:
        items = self.read_items(self.find_root(cfg.DATASET.ROOT))
        return rename_classes(items, Path(cfg.DATASET.CLASSNAMES).expanduser()) if cfg.DATASET.CLASSNAMES else items

    @classmethod
    def read_items(cls, root: Path) -> Items:
        """Returns all items, drawing and keeping a split where the folder has none."""
        require(DataCopy(cls, root), root)
        if is_split(root):
            return read_presplit(root)
        split = root / cls.split_file
        items = list_items(root)
        if not split.exists():
            require_images(root, [items], "remove the links to them")  # else no later run could use the split
            splits = draw_split(items, OWN_SPLIT_SEED)
            keep_split(split, root, splits)
            return splits
        splits = read_split(split, root)
        new = {item.impath for item in items} - {item.impath for split_items in splits for item in split_items}
        if new:
            logger.warning(f"{split} does not list {len(new):,} image(s) of its folder: delete it to draw a new split")
        require_images(split, splits, "delete the split file to draw a new one")
        return splits

    @classmethod
    def prepare(cls, root: Path, *, source: str = "") -> None:
        """Draws the split, if there is none."""
        cls.read_items(root)

    @classmethod
    def remedy(cls, root: Path) -> str:
        return "Pass the folder of the class folders as --root FOLDER (DATA=FOLDER to the scripts)."


def is_split(root: Path) -> bool:
    """Whether root holds train/ and test/, or one of them with folders inside rather than the images of a class."""
    found = [name for name in ("train", "test") if (root / name).is_dir()]
    return len(found) == 2 or any(list_class_images(root / name) for name in found)


def read_presplit(root: Path) -> Items:
    """Returns the items of train/, val/ and test/; labels number the classes of train/, else of test/."""
    if not (root / "test").is_dir():
        raise ValueError(
            f"{root} has train/ but no test/. Rename or link the folder with the images to test on to test/."
        )
    train = list_items(root / "train") if (root / "train").is_dir() else []
    labels = {item.classname: item.label for item in train} or None
    others = (list_items(root / name, labels) if (root / name).is_dir() else [] for name in ("val", "test"))
    return train, *others


def list_items(folder: Path, labels: dict[str, int] | None = None) -> list[Datum]:
    """Returns an item for every image, by class folder and file name; without labels, the folders are numbered."""
    classes = list_class_images(folder)
    if not classes:
        raise ValueError(
            f"{folder} holds no class folders (one of images for each class). Pass the folder above them as --root."
        )
    empty = [name for name, paths in classes.items() if not paths]
    if empty:
        raise ValueError(
            f"{folder / empty[0]} holds no images ({len(empty)} class folder(s) without any). Fill it or remove it."
        )
    labels = labels or {name: label for label, name in enumerate(classes)}
    unknown = [name for name in classes if name not in labels]
    if unknown:
        raise ValueError(
            f"{folder / unknown[0]} is a class that train/ lacks ({len(unknown)} such). Add it to train/ or remove it."
        )
    return [Datum(str(path), labels[name], classname=name) for name, paths in classes.items() for path in paths]


def require_images(path: Path, splits: Iterable[list[Datum]], otherwise: str) -> None:
    """Raises FileNotFoundError if images are missing that a folder or a split file lists."""
    missing, _ = find_unusable(*splits)
    if missing:
        raise FileNotFoundError(
            f"{path} lists {len(missing):,} image(s) that are missing, {missing[0]} first. Put them back, or "
            f"{otherwise}."
        )


def keep_split(split: Path, root: Path, splits: Items) -> None:
    """Writes the drawn split; a read-only folder is used all the same, since the draw repeats itself."""
    try:
        write_split(split, root, *splits)
    except OSError as error:
        logger.warning(f"The split is not kept in {split} ({error}); it stays the same while the images do")
    else:
        logger.info(f"Drew a split, half / a fifth / the rest of each class, and kept it in {split}")


def rename_classes(items: Iterable[list[Datum]], path: Path) -> Items:
    """Replaces the folders' names by those of a file with a line `FOLDER CLASS NAME` for each folder."""
    if not path.is_file():
        raise FileNotFoundError(missing_path(path, "DATASET.CLASSNAMES", "Name a file with lines `FOLDER CLASS NAME`."))
    names = match_names(path, {item.classname for split in items for item in split})
    return tuple([replace(item, classname=names[item.classname]) for item in split] for split in items)
