"""ImageNet-R: renditions (art, cartoons, toys, embroidery ...) of 200 of ImageNet's classes; to test on.

Paper: The Many Faces of Robustness: A Critical Analysis of Out-of-Distribution Generalization, Hendrycks et al.,
ICCV 2021.
https://github.com/hendrycks/imagenet-r
"""

from .base import DATASET_REGISTRY
from .imagenet_files import CLASSNAMES_STEP, ImageNetSubset


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetSubset):
    """30,000 test images."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    n_classes = 200
    n_items = (0, 0, 30000)
    by_hand = (
        "unpack https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar to imagenet-r/n*/*.jpg",
        CLASSNAMES_STEP,
    )
