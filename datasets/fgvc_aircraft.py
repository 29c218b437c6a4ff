"""FGVC-Aircraft: photographs of 100 variants of aircraft.

Paper: Fine-Grained Visual Classification of Aircraft, Maji, Rahtu, Kannala, Blaschko, Vedaldi, arXiv:1306.5151, 2013.
https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/
"""

from pathlib import Path

from .base import DATASET_REGISTRY, DataCopy, Datum, FewShotDataset, Items, RemoteFile, require
from .splits.annotations import read_lines, read_list
from .splits.entries import join_listed

VARIANTS_FILE = "variants.txt"
LIST_FILES = ("images_variant_train.txt", "images_variant_val.txt", "images_variant_test.txt")


@DATASET_REGISTRY.register()
class FGVCAircraft(FewShotDataset):
    """Split as the publisher does, without a split file; for non-commercial research only."""

    dataset_dir = "fgvc_aircraft"
    image_dir = "images"
    n_classes = 100
    n_items = (3334, 3333, 3333)
    archives = (
        RemoteFile(
            "fgvc-aircraft-2013b.tar.gz",
            sources=("https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",),
            members={f"data/{name}": name for name in ("images", VARIANTS_FILE, *LIST_FILES)},
        ),
    )
    mirrored = True
    prompt_template = "a photo of a {}, a type of aircraft."

    @classmethod
    def contents(cls) -> tuple[str, ...]:
        return cls.image_dir, VARIANTS_FILE, *LIST_FILES

    @classmethod
    def read_items(cls, root: Path) -> Items:
        """Returns the items of the publisher's lists; labels follow variants.txt."""
        copy = DataCopy(cls, root)
        for path in copy.contents:
            require(copy, path)
        labels = {variant: label for label, variant in enumerate(read_lines(copy.folder / VARIANTS_FILE))}

        def read_item(line: str) -> Datum:
            image, _, variant = line.partition(" ")  # 1025794 707-320
            return Datum(join_listed(copy.images, f"{image}.jpg"), labels[variant], classname=variant)

        form = f"`IMAGE VARIANT`, the variant one of {VARIANTS_FILE}"
        return tuple(read_list(copy.folder / name, read_item, form) for name in LIST_FILES)
