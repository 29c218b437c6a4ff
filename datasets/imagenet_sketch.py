"""ImageNet-Sketch: black and white sketches of ImageNet's classes; to test on.

Paper: Learning Robust Global Representations by Penalizing Local Predictive Power, Wang, Ge, Lipton, Xing,
NeurIPS 2019.
https://github.com/HaohanWang/ImageNet-Sketch
"""

from .base import DATASET_REGISTRY
from .imagenet_files import CLASSNAMES_STEP, ImageNetFiles


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetFiles):
    """50,889 test images."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"
    n_classes = 1000
    n_items = (0, 0, 50889)
    by_hand = (
        "unpack the archive that https://github.com/HaohanWang/ImageNet-Sketch links to images/n*/*.JPEG",
        CLASSNAMES_STEP,
    )
