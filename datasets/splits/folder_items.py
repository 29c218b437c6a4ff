"""The images of class folders as items that are made when they are asked for: ImageNet has more than a million.

A few-shot run uses some thousands of them; making an item takes several times as long as listing its name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, chain

from engine import Datum


class ClassItems(Sequence[Datum]):
    """The images of one class folder.

    Args:
        folder: Path of the folder, with a separator at its end.
        names: File names in it, in the order of the items.
        label: Label of all of them.
        classname: The class's name as it goes into a prompt.
    """

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
    """The images of several class folders, one class after another.

    Args:
        classes: Those of each class; each label once.
    """

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
