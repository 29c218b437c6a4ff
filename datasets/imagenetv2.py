"""ImageNetV2: photographs of ImageNet's classes, collected anew ten years later; to test on.

Paper: Do ImageNet Classifiers Generalize to ImageNet?, Recht, Roelofs, Schmidt, Shankar, ICML 2019.
https://github.com/modestyachts/ImageNetV2
"""

from pathlib import Path

from .base import DATASET_REGISTRY
from .imagenet_files import CLASSNAMES_STEP, ImageNetFiles


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetFiles):
    """10,000 test images, the "matched frequency" ones; a class folder is called by its label."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    n_classes = 1000
    n_items = (0, 0, 10000)
    by_hand = (
        "unpack https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz (or take it "
        "from https://huggingface.co/datasets/vaishaal/ImageNetV2) to imagenetv2-matched-frequency-format-val/0/*.jpeg "
        "and so on up to 999",
        CLASSNAMES_STEP,
    )

    @classmethod
    def name_folders(cls, images: Path, classnames: dict[str, str]) -> dict[str, str]:
        return {str(label): classname for label, classname in enumerate(classnames.values())}
