"""SUN397: photographs of 397 kinds of places, indoors and outdoors.

Paper: SUN Database: Large-scale Scene Recognition from Abbey to Zoo, Xiao, Hays, Ehinger, Oliva, Torralba, CVPR 2010.
https://vision.princeton.edu/projects/2010/SUN/ (the archive is gone)
"""

from .base import DATASET_REGISTRY, FewShotDataset


@DATASET_REGISTRY.register()
class SUN397(FewShotDataset):
    """15,880 training, 3,970 validation and 19,850 test images; names reverse paths: "outdoor apartment_building"."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"
    split_id = "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"
    n_classes = 397
    n_items = (15880, 3970, 19850)
    by_hand = (
        "the publisher's link is dead: take sun397 from "
        "https://huggingface.co/datasets/zhengli97/prompt_learning_dataset, to SUN397/LETTER/CLASS/*.jpg",
    )
