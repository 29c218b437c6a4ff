"""Oxford-IIIT Pets: photographs of 37 breeds of cats and dogs.

Paper: Cats and Dogs, Parkhi, Vedaldi, Zisserman, Jawahar, CVPR 2012.
https://www.robots.ox.ac.uk/~vgg/data/pets/
"""

from pathlib import Path

from .base import DATASET_REGISTRY, Datum, FewShotDataset, Items, RemoteFile
from .splits.annotations import label_of, read_and_hold_out
from .splits.entries import join_listed
from .splits.own_split import HELD_OUT_RULE

PUBLISHER = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
ANNOTATIONS = RemoteFile(
    "annotations.tar.gz", sources=(f"{PUBLISHER}/annotations.tar.gz",), md5="95a8c909bbe2e81eed6a22bccdf3f68f"
)
LIST_FILES = ("annotations/trainval.txt", "annotations/test.txt")


@DATASET_REGISTRY.register()
class OxfordPets(FewShotDataset):
    """All images lie in one folder, CC BY-SA 4.0; a class is called as its files are, in lower case."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"
    split_id = "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"
    split_sha256 = "d7f3ffe65b3919f95132e51422894ae18686b83c331fd8c0adcdc3dc2de6301e"
    split_items_sha256 = "fbb12e86a2462a066ade4063b6b8bc90548b6a972765e496b8f628348d8e2b07"
    n_classes = 37
    n_items = (2944, 736, 3669)
    n_base_new = (1881, 1788)
    archives = (
        RemoteFile("images.tar.gz", sources=(f"{PUBLISHER}/images.tar.gz",), md5="5c4f3ee8e5d25df40f4fd59a7f44e54c"),
    )
    mirrored = True
    annotations = tuple(RemoteFile(name, inside=ANNOTATIONS) for name in LIST_FILES)
    own_split_rule = HELD_OUT_RULE
    prompt_template = "a photo of a {}, a type of pet."

    @classmethod
    def own_items(cls, folder: Path) -> Items:
        """Returns all items, split by `own_split_rule`; labels are the publisher's."""

        def read_item(line: str) -> Datum:
            image, number, _, _ = line.split(" ")  # Abyssinian_100 1 1 1
            path = join_listed(folder / cls.image_dir, f"{image}.jpg")
            return Datum(path, label_of(number), classname=image.rpartition("_")[0].lower())

        form = "`IMAGE CLASS SPECIES BREED` with CLASS from 1"
        return read_and_hold_out([folder / name for name in LIST_FILES], read_item, form)
