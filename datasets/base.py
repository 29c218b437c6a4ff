"""The template of a data set: items of a split file, drawn from as the papers do; all that a data set imports."""

from __future__ import annotations

from pathlib import Path

from engine import DATASET_REGISTRY, DatasetBase, Datum
from engine.data.bad_images import SPLITS, splits_that_skip

from .fetch.sources import MIRROR, RemoteFile
from .files import DatasetFiles
from .splits.few_shot import (
    Items,
    draw_few_shots,
    draw_held_out,
    draw_split,
    labels_of_subset,
    list_class_images,
    read_split,
    subsample_classes,
    write_split,
)
from .splits.fewshot_file import read_fewshot
from .verify.copy import require_usable
from .verify.report import Report
from .verify.wrong_files import find_unusable

__all__ = [
    "DATASET_REGISTRY",
    "Datum",
    "FewShotDataset",
    "Items",
    "MIRROR",
    "RemoteFile",
    "Report",
    "draw_few_shots",
    "draw_split",
    "find_unusable",
    "list_class_images",
    "read_split",
    "subsample_classes",
    "write_split",
]


class FewShotDataset(DatasetFiles, DatasetBase):
    """A data set whose items are drawn: DATASET.NUM_SHOTS of each class by SEED, then the base or new classes of these.

    Attributes:
        prompt_template: The hand-made prompt, `{}` stands for the class name.
        val_is_test: Whether the val items are the test items, all of them; `load_items` then returns none for val.
        prepare_on_first_use: Whether loading calls `prepare`, which then has to be quick when all is there.

    Raises:
        FileNotFoundError: If the folder, the split file or an image is missing.
        ValueError: If DATASET.ROOT is empty, or the split file is broken.
    """

    prompt_template = "a photo of a {}."
    val_is_test = False
    prepare_on_first_use = False

    def __init__(self, cfg):
        items = self.load_items(cfg)
        train, val, test, selection = self.choose(items, cfg)
        subset = cfg.DATASET.SUBSAMPLE_CLASSES
        if self.source_labels is not None:  # from here on those of the kept classes
            kept = labels_of_subset(train, val, test, selection, subset=subset)
            self.source_labels = tuple(self.source_labels[label] for label in kept)
        used = subsample_classes(train, val, test, selection, subset=subset)
        skipping = splits_that_skip(cfg, used[1], used[2])
        whole = [part for name, part in zip(SPLITS, used) if name not in skipping]
        require_usable(type(self), self.find_root(cfg.DATASET.ROOT), items, whole)
        train, val, test, selection = used
        super().__init__(train, val=val, test=test, selection=selection)

    def load_items(self, cfg) -> Items:
        """Returns all items, before anything is drawn."""
        root = self.find_root(cfg.DATASET.ROOT)
        if self.prepare_on_first_use:
            self.prepare(root)
        return self.read_items(root)

    def choose(self, items: Items, cfg) -> tuple[list[Datum], list[Datum], list[Datum], list[Datum]]:
        """Returns the items to train, to validate, to test and to choose hyper-parameters on, of all classes."""
        all_train, all_val, test = items
        shots, seed = cfg.DATASET.NUM_SHOTS, cfg.SEED
        if cfg.DATASET.FEWSHOT_FILE:
            images = self.find_root(cfg.DATASET.ROOT) / self.dataset_dir / self.image_dir
            train, val = read_fewshot(Path(cfg.DATASET.FEWSHOT_FILE), images, all_train, all_val, shots=shots)
        else:
            train, val = draw_few_shots(all_train, all_val, shots=shots, seed=seed)
        selection = val or draw_held_out(all_train, train, shots=shots, seed=seed)
        return train, list(test) if self.val_is_test else val, list(test), selection
