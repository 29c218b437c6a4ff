"""Food-101: photographs of 101 dishes, 1,000 of each.

Paper: Food-101 - Mining Discriminative Components with Random Forests, Bossard, Guillaumin, Van Gool, ECCV 2014.
https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/
"""

from .base import DATASET_REGISTRY, FewShotDataset, RemoteFile


@DATASET_REGISTRY.register()
class Food101(FewShotDataset):
    """Folders and class names are words with underscores; the split is not the publisher's, whose meta/ is not used."""

    dataset_dir = "food-101"
    image_dir = "images"
    split_file = "split_zhou_Food101.json"
    split_id = "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"
    n_classes = 101
    n_items = (50500, 20200, 30300)
    n_base_new = (15300, 15000)
    archives = (
        RemoteFile(
            "food-101.tar.gz",
            sources=("https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",),
            md5="85eeb15f3717b99a5da872d97d918f87",
            members={"food-101/images": "images"},
        ),
    )
    mirrored = True
    prompt_template = "a photo of {}, a type of food."
