"""The template of a data set: items of a split file, drawn from as the papers do; all that a data set imports."""

from __future__ import annotations

from engine import DATASET_REGISTRY, DatasetBase, Datum

from .download import fetch_archive, unpack
from .files import DatasetFiles
from .report import Report, name_first, report_items
from .split import (
    Items,
    draw_few_shots,
    draw_held_out,
    draw_split,
    labels_of_subset,
    list_class_images,
    missing_files,
    read_split,
    subsample_classes,
    write_split,
)

__all__ = [
    "DATASET_REGISTRY",
    "Datum",
    "FewShotDataset",
    "Items",
    "Report",
    "draw_few_shots",
    "draw_split",
    "fetch_archive",
    "list_class_images",
    "missing_files",
    "read_split",
    "report_items",
    "subsample_classes",
    "unpack",
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
        all_train, val, test = self.load_items(cfg)
        shots, seed = cfg.DATASET.NUM_SHOTS, cfg.SEED
        train, val = draw_few_shots(all_train, val, shots=shots, seed=seed)
        selection = val or draw_held_out(all_train, train, shots=shots, seed=seed)
        val = test if self.val_is_test else val
        subset = cfg.DATASET.SUBSAMPLE_CLASSES
        if self.source_labels is not None:  # from here on those of the kept classes
            kept = labels_of_subset(train, val, test, selection, subset=subset)
            self.source_labels = tuple(self.source_labels[label] for label in kept)
        train, val, test, selection = subsample_classes(train, val, test, selection, subset=subset)
        if missing := missing_files(train, val, test, selection):
            raise FileNotFoundError(
                f"{type(self).__name__} lacks {len(missing):,} image(s), expected every file that the split lists: "
                f"{name_first(missing)}. {self.remedy()}"
            )
        super().__init__(train, val=val, test=test, selection=selection)

    def load_items(self, cfg) -> Items:
        """Returns all items, before anything is drawn."""
        root = self.find_root(cfg.DATASET.ROOT)
        if self.prepare_on_first_use:
            self.prepare(root)
        return self.read_items(root)
