"""ImageNet-Sketch: black and white sketches of ImageNet's classes; to test on.

Paper: Learning Robust Global Representations by Penalizing Local Predictive Power, Wang, Ge, Lipton, Xing,
NeurIPS 2019.
https://github.com/HaohanWang/ImageNet-Sketch
"""

from .base import DATASET_REGISTRY, RemoteFile
from .imagenet_files import ImageNetFiles


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetFiles):
    """About 50 sketches of each class."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"
    n_classes = 1000
    n_items = (0, 0, 50889)
    archives = (
        RemoteFile("ImageNet-Sketch.zip", sources=("hub:songweig/imagenet_sketch",), members={"sketch": "images"}),
    )
    mirrored = True
