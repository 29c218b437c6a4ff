"""ImageNetV2: photographs of ImageNet's classes, collected anew ten years later; to test on.

Paper: Do ImageNet Classifiers Generalize to ImageNet?, Recht, Roelofs, Schmidt, Shankar, ICML 2019.
https://github.com/modestyachts/ImageNetV2
"""

from .base import DATASET_REGISTRY, RemoteFile
from .imagenet_files import ImageNetFiles


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetFiles):
    """The "matched frequency" images; a class folder is called by its label."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    n_classes = 1000
    n_items = (0, 0, 10000)
    archives = (
        RemoteFile(
            "imagenetv2-matched-frequency.tar.gz",
            sources=(
                "https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz",
                "hub:vaishaal/ImageNetV2",
            ),
        ),
    )
    mirrored = True

    @classmethod
    def name_folders(cls, classnames: dict[str, str]) -> dict[str, str]:
        return {str(label): classname for label, classname in enumerate(classnames.values())}
