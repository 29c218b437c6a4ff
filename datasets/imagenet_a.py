"""ImageNet-A: photographs of 200 of ImageNet's classes that a ResNet-50 gets wrong; to test on.

Paper: Natural Adversarial Examples, Hendrycks, Zhao, Basart, Steinhardt, Song, CVPR 2021.
https://github.com/hendrycks/natural-adv-examples
"""

from .base import DATASET_REGISTRY
from .imagenet_files import CLASSNAMES_STEP, ImageNetSubset


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetSubset):
    """7,500 test images."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    n_classes = 200
    n_items = (0, 0, 7500)
    by_hand = (
        "unpack https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar to imagenet-a/n*/*.jpg",
        CLASSNAMES_STEP,
    )
