"""Your own images: any folder of class folders, split as it says itself or drawn once.

DATASET.ROOT is the folder. It holds either train/ and test/ (and val/, if any; test/ alone can only be tested on), each
with the class folders, or the class folders themselves: then half of each class is drawn to train on, a fifth for val
and the rest to test on, and the split is kept in split_folder_seed1.json. Whatever SEED is, the split is the same:
seeds differ in the few shots that are drawn, never in the test set. Delete the file to draw anew.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from engine.data.image_files import is_image, list_readable
from engine.files import missing_path
from engine.text import one_form, printable

from .base import (
    DATASET_REGISTRY,
    DataCopy,
    Datum,
    FewShotDataset,
    Items,
    draw_split,
    find_unusable,
    read_split,
    require,
    write_split,
)
from .splits.classnames import match_names
from .splits.folder_items import PARTS, find_parts, list_folders
from .splits.own_split import OWN_SPLIT_SEED
from .verify.left_out import name_left_out, why_empty
from .verify.report import name_first
from .verify.wrong_files import mend_backslashes

TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".parquet")

logger = logging.getLogger(__name__)


@DATASET_REGISTRY.register()
class Folder(FewShotDataset):
    """Class names are the folders' names, underscores becoming spaces in prompts, or those in DATASET.CLASSNAMES."""

    split_file = f"split_folder_seed{OWN_SPLIT_SEED}.json"
    root_is_identity = True  # another DATASET.ROOT is another data set, not the same one moved

    def load_items(self, cfg) -> Items:
        root = self.find_root(cfg.DATASET.ROOT)
        items = self.read_items(root)
        self.warnings = (*self.warnings, *self.name_unread(DataCopy(type(self), root), items))
        return rename_classes(items, Path(cfg.DATASET.CLASSNAMES).expanduser()) if cfg.DATASET.CLASSNAMES else items

    @classmethod
    def read_items(cls, root: Path) -> Items:
        """Returns all items, drawing and keeping a split where the folder has none."""
        require(DataCopy(cls, root), root)
        if parts := find_parts(root):
            return read_presplit(root, parts)
        split = root / cls.split_file
        items = list_items(root)
        if not split.exists():
            require_images(root, [items], "remove the links to them")  # else no later run could use the split
            splits = draw_split(items, OWN_SPLIT_SEED)
            if not splits[-1]:
                raise ValueError(
                    f"{root} holds one image of each class, which leaves none to test on. Add images: a class needs "
                    "at least two."
                )
            keep_split(split, root, splits)
            return splits
        splits = read_split(split, root)
        require_images(split, splits, "delete the split file to draw a new one")
        return splits

    @classmethod
    def name_unread(cls, copy: DataCopy, items: Items) -> list[str]:
        parts = find_parts(copy.root)
        if parts:
            return name_left_out(copy.root, list(parts.values()), items, None)
        return name_left_out(copy.root, [], items, copy.split) + name_untested(items)

    @classmethod
    def prepare(cls, root: Path, *, source: str = "") -> None:
        """Draws the split, if there is none."""
        cls.read_items(root)

    @classmethod
    def remedy(cls, root: Path) -> str:
        return "Pass the folder of the class folders as --root FOLDER (DATA=FOLDER to the scripts)."


def read_presplit(root: Path, parts: dict[str, Path]) -> Items:
    """Returns the items of train/, val/ and test/; labels number the classes of train/, else of test/."""
    if "test" not in parts:
        raise ValueError(
            f"{root} has {parts['train'].name}/ but no test/. Rename or link the folder with the images to test on to "
            "test/."
        )
    first = "train" if "train" in parts else "test"
    items = {first: list_items(parts[first])}
    labels = {item.classname: item.label for item in items[first]}
    items |= {name: list_items(folder, labels, of=first) for name, folder in parts.items() if name != first}
    return tuple(items.get(name, []) for name in PARTS)


def list_items(folder: Path, labels: dict[str, int] | None = None, *, of: str = "") -> list[Datum]:
    """Returns an item for every image, by class folder and file name.

    Args:
        folder: Of the class folders.
        labels: Class name -> label; None: the folders are numbered.
        of: Name of the part that the labels are of.
    """
    files = {path.name: list_readable(path) for path in list_folders(folder)}
    require_classes(folder, files)
    log_read_by_content(folder, files)
    if labels:
        classes = match_classes(folder, files, labels, of)
    else:
        refuse_table(folder, list(files))
        classes = {name: (label, name) for label, name in enumerate(files)}
    above = os.path.join(folder, "")
    return [
        Datum(f"{above}{name}{os.sep}{file}", label, classname=classname)
        for name, (label, classname) in classes.items()
        for file in files[name]
    ]


def require_classes(folder: Path, files: dict[str, list[str]]) -> None:
    """Raises ValueError if there are no class folders, or one without images."""
    if not files:
        above = folder.parent
        pass_above = (
            f" If {folder.name} is a class, pass the folder above it, --root {above} (DATA={above} to the scripts)."
        )
        raise ValueError(
            f"{folder} holds no class folders (one of images for each class), but {len(list_readable(folder)):,} "
            f"image(s). Make a folder for each class.{'' if find_parts(above) else pass_above}"
        )
    empty = [name for name, images in files.items() if not images]
    if empty:
        raise ValueError(
            f"{folder / empty[0]} holds no images ({len(empty)} class folder(s) without any). "
            f"{why_empty(folder, empty)}"
        )


def refuse_table(folder: Path, names: Sequence[str]) -> None:
    """Raises ValueError if there is one folder of images beside a table, which then has the classes."""
    tables = [path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in TABLES]
    if len(names) == 1 and tables:
        raise ValueError(
            f"{folder} holds one class folder, {printable(names[0])}, beside {printable(tables[0])}. Classes are read "
            f"from folders alone: make one for each class that {printable(tables[0])} names, and move its images there."
        )


def log_read_by_content(folder: Path, files: dict[str, list[str]]) -> None:
    """Says which files are images without an image's suffix."""
    found = [os.path.join(name, file) for name, images in files.items() for file in images if not is_image(file)]
    if found:
        logger.info(
            f"{len(found):,} file(s) in {folder} have no image's suffix, but are read, since their content is an "
            f"image's: {name_first(found)}"
        )


def match_classes(folder: Path, names: Iterable[str], labels: dict[str, int], of: str) -> dict[str, tuple[int, str]]:
    """Returns the class folder's name -> the label and the name of its class in `of`, in whichever Unicode form."""
    forms = {one_form(name): name for name in labels}
    classes = {name: name if name in labels else forms.get(one_form(name)) for name in names}
    unknown = [name for name, classname in classes.items() if classname is None]
    if unknown:
        raise ValueError(
            f"{folder / unknown[0]} is a class that {of}/ lacks ({len(unknown)} such). Add it to {of}/ or remove it."
        )
    return {name: (labels[classname], classname) for name, classname in classes.items()}


def require_images(path: Path, splits: Iterable[list[Datum]], otherwise: str) -> None:
    """Raises FileNotFoundError if images are missing that a folder or a split file lists."""
    missing, _ = find_unusable(*splits)
    if missing:
        remedy = mend_backslashes(missing, path) or f"Put them back, or {otherwise}."
        raise FileNotFoundError(
            f"{path} lists {len(missing):,} image(s) that are missing, {missing[0]} first. {remedy}"
        )


def name_untested(items: Items) -> list[str]:
    """Returns what to say of classes that are learned and not tested; where test/ is the user's, it is meant so."""
    train, _, test = items
    tested = {item.label for item in test}
    names = list(dict.fromkeys(item.classname for item in train if item.label not in tested))
    if not names:
        return []
    return [f"{len(names):,} class(es) have no image to test on, so results say nothing of them: {name_first(names)}."]


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
