"""Class folders: their images, and items that are made only when they are asked for.

ImageNet has more than a million images, of which a few-shot run uses some thousands; making an item takes several times
as long as listing its name.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, chain
from pathlib import Path

from engine import Datum
from engine.data.image_files import HIDDEN, is_image

PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def list_images(folder: str | Path) -> list[str]:
    """Returns the names of the files in a folder that have an image's suffix, sorted."""
    names = sorted(os.listdir(folder))
    joined = "/".join(["", *names, ""])
    if joined.count(".JPEG/") == len(names) and "/." not in joined:  # asked one by one, a million takes long
        return names
    return [name for name in names if is_image(name)]


def list_folders(folder: Path) -> list[Path]:
    """Returns the folders in a folder, sorted, without hidden ones and macOS's; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(Path(entry) for entry in entries if not entry.name.startswith(HIDDEN) and entry.is_dir())


def list_class_images(image_dir: Path) -> dict[str, list[Path]]:
    """Returns folder name -> its image files, both sorted, for each folder in image_dir; without hidden ones."""
    return {folder.name: [folder / name for name in list_images(folder)] for folder in list_folders(image_dir)}


def find_parts(root: Path) -> dict[str, Path]:
    """Returns train, val and test -> the folder of that part, where root has such; {} where it has class folders.

    It has parts if train and test are there, or one of them with folders inside rather than the images of a class.
    """
    found: dict[str, list[Path]] = {}
    for folder in list_folders(root):
        found |= {part: [*found.get(part, []), folder] for part, names in PARTS.items() if folder.name.lower() in names}
    inside = [folder for part in ("train", "test") for folder in found.get(part, [])]
    if not {"train", "test"} <= found.keys() and not any(map(list_folders, inside)):
        return {}
    for part, folders in found.items():
        if len(folders) > 1:
            names = " and ".join(folder.name for folder in folders)
            raise ValueError(f"{root} has {names}, which both stand for {part}. Rename one, or put them together.")
    return {part: found[part][0] for part in PARTS if part in found}


class ClassItems(Sequence[Datum]):
    """The images of one class folder: its path, with a separator at the end, and the file names in it."""

    def __init__(self, folder: str, names: Sequence[str], label: int, classname: str):
        self.folder, self.names, self.label, self.classname = folder, names, label, classname

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | slice) -> Datum | list[Datum]:
        if isinstance(index, slice):
            return [self._item(name) for name in self.names[index]]
        return self._item(self.names[index])

    def __iter__(self) -> Iterator[Datum]:
        return map(self._item, self.names)

    def without(self, paths: Collection[str]) -> ClassItems:
        """Returns the items with another path than these."""
        left = [name for name in self.names if self.folder + name not in paths]
        return ClassItems(self.folder, left, self.label, self.classname)

    def _item(self, name: str) -> Datum:
        return Datum(self.folder + name, self.label, classname=self.classname)


class FolderItems(Sequence[Datum]):
    """The images of several class folders, one class after another; each label once."""

    def __init__(self, classes: Sequence[ClassItems]):
        self.classes = list(classes)
        self._ends = list(accumulate(len(items) for items in self.classes))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int | slice) -> Datum | list[Datum]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # from the front, within bounds
        number = bisect_right(self._ends, index)
        return self.classes[number][index - self._ends[number]]  # counted from the end of the class, hence negative

    def __iter__(self) -> Iterator[Datum]:
        return chain.from_iterable(self.classes)
