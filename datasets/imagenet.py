"""ImageNet (ILSVRC 2012): photographs of 1,000 kinds of things; validated and tested on its validation images.

Paper: ImageNet: A Large-Scale Hierarchical Image Database, Deng, Dong, Socher, Li, Li, Fei-Fei, CVPR 2009.
https://www.image-net.org/
"""

from pathlib import Path

from .base import DATASET_REGISTRY, Items
from .imagenet_files import CLASSNAMES_STEP, ImageNetFiles


@DATASET_REGISTRY.register()
class ImageNet(ImageNetFiles):
    """1,281,167 training and 50,000 test images.

    Differs from the original: items are listed in the order of folders and file names, not of the file system, so that
    a few-shot draw is the same everywhere.
    """

    dataset_dir = "imagenet"
    image_dir = "images"
    n_classes = 1000
    n_items = (1281167, 0, 50000)
    val_is_test = True
    by_hand = (
        "from https://www.image-net.org/ unpack ILSVRC2012_img_train.tar and the archives in it to "
        "images/train/n*/*.JPEG",
        "unpack ILSVRC2012_img_val.tar and sort its images into class folders, images/val/n*/*.JPEG",
        CLASSNAMES_STEP,
    )

    @classmethod
    def read_items(cls, root: Path) -> Items:
        """Returns the items of train/ and, to test on, of val/; labels are the lines of classnames.txt."""
        images, classnames = root / cls.dataset_dir / cls.image_dir, cls.read_classnames(root)
        return cls.list_class_items(images / "train", classnames), [], cls.list_class_items(images / "val", classnames)
