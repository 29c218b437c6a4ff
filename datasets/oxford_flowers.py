"""Oxford Flowers: photographs of 102 kinds of flowers that are common in Britain.

Paper: Automated Flower Classification over a Large Number of Classes, Nilsback, Zisserman, ICVGIP 2008.
https://www.robots.ox.ac.uk/~vgg/data/flowers/102/
"""

import json
from pathlib import Path

from .base import DATASET_REGISTRY, Datum, FewShotDataset, RemoteFile
from .splits.annotations import read_mat, require_file, wrong_file

PUBLISHER = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
LABELS_FILE = "imagelabels.mat"
NAMES_FILE = "cat_to_name.json"


@DATASET_REGISTRY.register()
class OxfordFlowers(FewShotDataset):
    """All images lie in one folder, numbered; the publisher numbers the classes too, their names came later."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    split_id = "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"
    split_sha256 = "2f50c42fc1a17ca13c271cb4269b1347bdb43d2be672e34f74a4e4cbfbcca794"
    split_items_sha256 = "a93b5800cd8892ae98cfc3b9ec3b37ece80aa627b0b6197db46dfdbf99042df9"
    n_classes = 102
    n_items = (4093, 1633, 2463)
    n_base_new = (1053, 1410)
    archives = (
        RemoteFile("102flowers.tgz", sources=(f"{PUBLISHER}/102flowers.tgz",), md5="52808999861908f626f3c1f4e79d11fa"),
    )
    mirrored = True
    annotations = (
        RemoteFile(LABELS_FILE, sources=(f"{PUBLISHER}/{LABELS_FILE}",), md5="e0620be6f572b9609742df49c70aed4d"),
        RemoteFile(NAMES_FILE, sources=("drive:1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0",)),
    )
    prompt_template = "a photo of a {}, a type of flower."

    @classmethod
    def list_items(cls, images: Path) -> list[Datum]:
        """Returns an item for every image; labels are the publisher's."""
        names = read_names(images.parent / NAMES_FILE)
        labels_path = images.parent / LABELS_FILE
        items = []
        for image, number in enumerate(read_mat(labels_path, "labels"), start=1):  # both count from 1
            if str(number) not in names:
                raise wrong_file(labels_path, f"has the class {number}", f"those that {NAMES_FILE} names")
            items.append(Datum(str(images / f"image_{image:05d}.jpg"), int(number) - 1, classname=names[str(number)]))
        return items


def read_names(path: Path) -> dict[str, str]:
    """Returns class number, from "1", -> class name."""
    require_file(path)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise wrong_file(path, f"is not readable ({error})", 'JSON such as {"1": "pink primrose"}') from error
