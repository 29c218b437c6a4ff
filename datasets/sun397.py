"""SUN397: photographs of 397 kinds of places, indoors and outdoors.

Paper: SUN Database: Large-scale Scene Recognition from Abbey to Zoo, Xiao, Hays, Ehinger, Oliva, Torralba, CVPR 2010.
https://vision.princeton.edu/projects/2010/SUN/ (the archive is gone)
"""

from pathlib import Path

from .base import DATASET_REGISTRY, MIRROR, Datum, FewShotDataset, Items, RemoteFile
from .splits.annotations import read_and_hold_out, read_lines
from .splits.entries import join_listed
from .splits.own_split import HELD_OUT_RULE

NAMES_FILE = "ClassName.txt"
LIST_FILES = ("Training_01.txt", "Testing_01.txt")


@DATASET_REGISTRY.register()
class SUN397(FewShotDataset):
    """Class names reverse paths, a/apartment_building/outdoor is called "outdoor apartment_building"."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"
    split_id = "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"
    n_classes = 397
    n_items = (15880, 3970, 19850)
    n_base_new = (9950, 9900)
    mirrored = True
    annotations = tuple(RemoteFile(name, sources=(MIRROR,)) for name in (NAMES_FILE, *LIST_FILES))
    own_split_rule = HELD_OUT_RULE

    @classmethod
    def own_items(cls, folder: Path) -> Items:
        """Returns all items, split by `own_split_rule`; labels follow ClassName.txt."""
        labels = {name.strip("/"): label for label, name in enumerate(read_lines(folder / NAMES_FILE))}

        def read_item(line: str) -> Datum:
            scene, _, image = line.strip("/").rpartition("/")  # a/apartment_building/outdoor, sun_aa.jpg
            path = join_listed(folder / cls.image_dir, f"{scene}/{image}")
            return Datum(path, labels[scene], classname=" ".join(reversed(scene.split("/")[1:])))

        form = f"`/LETTER/CLASS/IMAGE`, /LETTER/CLASS a line of {NAMES_FILE}"
        return read_and_hold_out([folder / name for name in LIST_FILES], read_item, form)
