"""ImageNet (ILSVRC 2012): photographs of 1,000 kinds of things; validated and tested on its validation images.

Paper: ImageNet: A Large-Scale Hierarchical Image Database, Deng, Dong, Socher, Li, Li, Fei-Fei, CVPR 2009.
https://www.image-net.org/
"""

from pathlib import Path

from .base import DATASET_REGISTRY, DataCopy, Items, require
from .fetch.folder_lock import filling
from .fetch.ilsvrc import plan_ilsvrc, unpack_ilsvrc
from .fetch.sources import plan_file
from .imagenet_files import ImageNetFiles
from .splits.imagenet_names import CLASSNAMES_STEP


@DATASET_REGISTRY.register()
class ImageNet(ImageNetFiles):
    """Its val/ is validated and tested on.

    Differs from the original: items are listed in the order of folders and file names, not of the file system, so that
    a few-shot draw is the same everywhere.
    """

    dataset_dir = "imagenet"
    image_dir = "images"
    n_classes = 1000
    n_items = (1281167, 0, 50000)
    n_base_new = (25000, 25000)
    val_is_test = True
    by_hand = (
        "sign up at https://www.image-net.org/ and download, of ILSVRC 2012, ILSVRC2012_img_train.tar, "
        "ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz into one folder, ARCHIVES",
        "run `python -m datasets.prepare ImageNet --root FOLDER --from ARCHIVES`, which checks them and unpacks them "
        "to images/train/n*/*.JPEG and images/val/n*/*.JPEG",
        "or, where such class folders lie elsewhere already: `mkdir -p images`, then `ln -s /path/to/train "
        "/path/to/val images/`",
        CLASSNAMES_STEP,
    )

    @classmethod
    def contents(cls) -> tuple[str, ...]:
        return ("images/train", "images/val")

    @classmethod
    def prepare(cls, root: Path, *, source: str = "") -> None:
        """Unpacks the archives, where they lie in the data set's folder or in `source`."""
        copy = DataCopy(cls, root, source)
        with filling(copy.folder):
            unpack_ilsvrc(copy)
        super().prepare(root, source=source)

    @classmethod
    def plan(cls, root: Path, *, source: str = "") -> list[str]:
        copy = DataCopy(cls, root, source)
        return [plan_file(file, copy.folder, source=source) for file in cls.label_files] + plan_ilsvrc(copy)

    @classmethod
    def is_complete(cls, root: Path) -> bool:
        """Raises FileNotFoundError, with the steps, where something is missing: no command fetches it."""
        cls.read_items(root)
        return True

    @classmethod
    def read_items(cls, root: Path) -> Items:
        """Returns the items of train/ and, to test on, of val/; labels are the lines of classnames.txt."""
        copy = DataCopy(cls, root)
        for split in copy.contents:
            require(copy, split)  # before classnames.txt, which is fetched
        classnames = cls.read_classnames(copy)
        train, val = (cls.list_class_items(copy, split, classnames) for split in copy.contents)
        return train, [], val
