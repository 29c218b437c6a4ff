"""Food-101: photographs of 101 dishes, 1,000 of each.

Paper: Food-101 - Mining Discriminative Components with Random Forests, Bossard, Guillaumin, Van Gool, ECCV 2014.
https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/
"""

from .base import DATASET_REGISTRY, FewShotDataset


@DATASET_REGISTRY.register()
class Food101(FewShotDataset):
    """50,500 training, 20,200 validation and 30,300 test images, not split as the publisher does."""

    dataset_dir = "food-101"
    image_dir = "images"
    split_file = "split_zhou_Food101.json"
    split_id = "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"
    n_classes = 101
    n_items = (50500, 20200, 30300)
    prompt_template = "a photo of {}, a type of food."
    by_hand = ("unpack https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz to images/CLASS/*.jpg",)
