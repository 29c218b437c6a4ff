"""What a data set is made of: `Datum`, one labelled image file, and `DatasetBase`, three lists of them."""

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
    """One image file and its class.

    Args:
        impath: Path of the image file.
        label: Class index, from 0.
        domain: Always 0 here; kept because batches carry it.
        classname: The class's name as it goes into a prompt.
    """

    impath: str = ""
    label: int = 0
    domain: int = 0
    classname: str = ""


def items_digest(folder: str | Path, *splits: Sequence[Datum]) -> str:
    """Returns a sha256 over lists of items in their order: paths relative to the folder, labels and class names."""
    content = [[[os.path.relpath(x.impath, folder), x.label, x.classname] for x in items] for items in splits]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


class DatasetBase:
    """Items for training, validation and test, and the classes they share.

    Args:
        train_x: Items to train on; may be empty where a data set is only tested on.
        val: Items to validate on; may be empty.
        test: Items to test on.
        selection: Items on which hyper-parameters may be chosen, never the test items; None takes the val items. Where
            some are training items too, leave these out of what is fitted while choosing.

    Attributes:
        prompt_template: The hand-made prompt, `{}` stands for the class name.
        source_labels: Where a data set is only tested on and its classes are some of another set's: their labels there.

    Raises:
        ValueError: If there is nothing to test on, labels are not 0..C-1, a label has two names, or val or test has
            a class that the training items lack.
    """

    prompt_template = "a photo of a {}."
    source_labels: tuple[int, ...] | None = None

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
        place = type(self).__name__
        if not self.test:
            raise ValueError(f"{place}.test is empty, expected at least one item. Check the data set's split.")
        names = {item.label: item.classname for item in self.train_x or self.test}
        wrong = [label for label in names if label not in range(len(names))]
        if wrong:
            raise ValueError(
                f"{place} has the labels {sorted(names)[:10]}... ({len(names)} in all, {wrong[0]!r} among them), "
                f"expected 0 to {len(names) - 1}. Number the classes from 0 without gaps."
            )
        for split in ("train_x", "val", "test", "selection"):
            for item in getattr(self, split):
                self._require_class(split, item, names)
        return {label: names[label] for label in range(len(names))}

    def _require_class(self, split: str, item: Datum, names: dict[int, str]) -> None:
        place = f"{type(self).__name__}.{split}"
        if item.label not in names:
            raise ValueError(
                f"{place}'s item {printable(item.impath)} has label {item.label} ({printable(item.classname)}), "
                f"expected 0 to {len(names) - 1}. Every class of val and test must be among the training items."
            )
        if item.classname != names[item.label]:
            raise ValueError(
                f"{place}'s item {printable(item.impath)} calls class {item.label} {shorten(item.classname)}, expected "
                f"{shorten(names[item.label])} as elsewhere. Give each label one name."
            )


def data_digests(dataset: DatasetBase, splits: Iterable[str] = SPLITS) -> dict[str, str]:
    """Returns for each of these splits that is not empty the `items_digest`, below the folder that its images share."""
    digests = {}
    for split in splits:
        items = dataset.train_x if split == "train" else getattr(dataset, split)
        folder = os.path.dirname(os.path.commonprefix([item.impath for item in items]))
        digests |= {split: items_digest(folder, items)} if items else {}
    return digests
