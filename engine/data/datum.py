"""Data sets: `Datum` is one labelled image file, `DatasetBase` holds the lists of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..text import printable, shorten

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Datum:
    """One image file and its class."""

    impath: str = ""
    label: int = 0  # from 0
    domain: int = 0  # always 0; batches carry it, as in the original
    classname: str = ""  # as it goes into a prompt


def items_digest(folder: str | Path, *splits: Sequence[Datum]) -> str:
    """Returns the sha256 of lists of items in their order: paths relative to the folder, labels, class names."""
    content = [[[os.path.relpath(x.impath, folder), x.label, x.classname] for x in items] for items in splits]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


class DatasetBase:
    """Items for training, validation and test, and the classes they share.

    Args:
        train_x: Items to train on; empty if the data set can only be tested on.
        val: Items to validate on; may be empty.
        test: Items to test on.
        selection: Items to choose hyper-parameters by, test items only where DATASET.SELECTION says so; None: the val
            items. If some are training items too, do not fit on these while choosing.

    Attributes:
        prompt_template: The hand-made prompt; `{}` stands for the class name.
        reads_selection: Whether `selection` is what DATASET.SELECTION says; without, only its default is allowed.
        source_labels: For a test set with some of another data set's classes: the labels of its classes there.
        repeated_names: Names that the data set's own list gives to several classes, as the papers' results have them.
        warnings: What makes results on this copy of it doubtful, a sentence each; they stand in results.json.

    Raises:
        ValueError: If there is no test item, labels are not 0..C-1, a label has two names, or val or test has a class
            without training items.
    """

    prompt_template = "a photo of a {}."
    reads_selection = False
    source_labels: tuple[int, ...] | None = None
    repeated_names: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        train_x: Sequence[Datum] = (),
        *,
        val: Sequence[Datum] | None = None,
        test: Sequence[Datum] = (),
        selection: Sequence[Datum] | None = None,
    ):
        self.train_x = list(train_x)
        self.val = list(val or ())
        self.test = list(test)
        self.selection = list(self.val if selection is None else selection)
        self.lab2cname = self._name_classes()
        self.classnames = [self.lab2cname[label] for label in range(self.num_classes)]

    @property
    def num_classes(self) -> int:
        return len(self.lab2cname)

    def _name_classes(self) -> dict[int, str]:
        """Returns label -> class name, in order of the labels."""
        name = type(self).__name__
        if not self.test:
            raise ValueError(f"{name}.test is empty. Check the data set's split.")
        names = {item.label: item.classname for item in self.train_x or self.test}
        wrong = [label for label in names if label not in range(len(names))]
        if wrong:
            raise ValueError(
                f"{name} has the labels {sorted(names)[:10]}... ({len(names)} in all, {wrong[0]!r} among them); they "
                f"must be 0 to {len(names) - 1}. Number the classes from 0 without gaps."
            )
        for split in ("train_x", "val", "test", "selection"):
            for item in getattr(self, split):
                self._require_class(split, item, names)
        return {label: names[label] for label in range(len(names))}

    def _require_class(self, split: str, item: Datum, names: dict[int, str]) -> None:
        shown = f"{type(self).__name__}.{split}'s item {printable(item.impath)}"
        if item.label not in names:
            raise ValueError(
                f"{shown} has label {item.label} ({printable(item.classname)}); the training items have 0 to "
                f"{len(names) - 1}. Add training items of this class, or leave it out."
            )
        if item.classname != names[item.label]:
            raise ValueError(
                f"{shown} calls class {item.label} {shorten(item.classname)}, others call it "
                f"{shorten(names[item.label])}. Give each label one name."
            )


class Listing:
    """What a data set lists as it is loaded, whatever a run then leaves out of it."""

    def __init__(self, dataset: DatasetBase):
        self.classnames = list(dataset.classnames)
        self.items = {split: list(items_of(dataset, split)) for split in SPLITS}

    def digests(self, splits: Iterable[str]) -> dict[str, str]:
        """Returns the digest of the class names and of each split's items, of no items too."""
        names = "\n".join(self.classnames).encode(errors="surrogateescape")
        return {"classnames": hashlib.sha256(names).hexdigest(), **{s: shared_digest(self.items[s]) for s in splits}}


def items_of(dataset: DatasetBase, split: str) -> list[Datum]:
    """Returns the items of one of SPLITS."""
    return dataset.train_x if split == "train" else getattr(dataset, split)


def data_digests(dataset: DatasetBase, splits: Iterable[str] = SPLITS) -> dict[str, str]:
    """Returns split -> `shared_digest`; empty splits are left out."""
    return {split: shared_digest(items_of(dataset, split)) for split in splits if items_of(dataset, split)}


def shared_digest(items: Sequence[Datum]) -> str:
    """Returns the `items_digest` of a list, relative to the folder that its images share."""
    return items_digest(os.path.dirname(os.path.commonprefix([item.impath for item in items])), items)
