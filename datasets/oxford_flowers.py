"""Oxford Flowers: photographs of 102 kinds of flowers that are common in Britain.

Paper: Automated Flower Classification over a Large Number of Classes, Nilsback, Zisserman, ICVGIP 2008.
https://www.robots.ox.ac.uk/~vgg/data/flowers/102/
"""

from .base import DATASET_REGISTRY, FewShotDataset


@DATASET_REGISTRY.register()
class OxfordFlowers(FewShotDataset):
    """4,093 training, 1,633 validation and 2,463 test images, not split as the publisher does."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    split_id = "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"
    split_sha256 = "2f50c42fc1a17ca13c271cb4269b1347bdb43d2be672e34f74a4e4cbfbcca794"
    split_items_sha256 = "a93b5800cd8892ae98cfc3b9ec3b37ece80aa627b0b6197db46dfdbf99042df9"
    n_classes = 102
    n_items = (4093, 1633, 2463)
    prompt_template = "a photo of a {}, a type of flower."
    by_hand = ("unpack https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz to jpg/*.jpg",)
