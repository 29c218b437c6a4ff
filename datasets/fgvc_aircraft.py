"""FGVC-Aircraft: photographs of 100 variants of aircraft.

Paper: Fine-Grained Visual Classification of Aircraft, Maji, Rahtu, Kannala, Blaschko, Vedaldi, arXiv:1306.5151, 2013.
https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/
"""

from pathlib import Path

from .base import DATASET_REGISTRY, Datum, FewShotDataset, Items, RemoteFile
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
        """Returns the items of the publisher's lists; labels follow variants.txt.

        Raises:
            FileNotFoundError: If the images or a list is missing.
            ValueError: If a list names a variant that variants.txt does not.
        """
        folder = root / cls.dataset_dir
        for name in cls.contents():
            cls.require(folder / name)
        labels = {variant: label for label, variant in enumerate(read_lines(folder / VARIANTS_FILE))}

        def read_item(line: str) -> Datum:
            image, _, variant = line.partition(" ")  # 1025794 707-320
            path = join_listed(folder / cls.image_dir, f"{image}.jpg")
            return Datum(path, labels[variant], classname=variant)

        expected = f"`IMAGE VARIANT`, the variant one of {VARIANTS_FILE}"
        return tuple(read_list(folder / name, read_item, expected) for name in LIST_FILES)
