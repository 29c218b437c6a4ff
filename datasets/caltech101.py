"""Caltech-101: photographs of 100 kinds of objects, without the background class and the easy faces.

Paper: Learning Generative Visual Models from Few Training Examples, Fei-Fei, Fergus, Perona, CVPR workshop 2004.
https://data.caltech.edu/records/mzrjq-6wc02 (CC BY 4.0)
"""

from typing import ClassVar

from .base import DATASET_REGISTRY, FewShotDataset, RemoteFile

OUTER_ARCHIVE = RemoteFile(
    "caltech-101.zip",
    sources=("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",),
    md5="3138e1922a9193bfa496528edbbc45d0",
)


@DATASET_REGISTRY.register()
class Caltech101(FewShotDataset):
    """Photographs of about 200 x 300 pixels; four class names are not their folders'."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    split_id = "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"
    split_sha256 = "52ce83205ff8ff8a1a18119aad6376120ae35c36e783a984bc560cbf10e73fa5"
    split_items_sha256 = "17c403faec919d379f39dc7d3b6c6ac6681a16d4bac38bf9f45b2fa97fc27b6f"
    n_classes = 100
    n_items = (4128, 1649, 2465)
    n_base_new = (1549, 916)
    archives = (RemoteFile("101_ObjectCategories.tar.gz", inside=OUTER_ARCHIVE),)
    mirrored = True
    ignored_folders = frozenset({"BACKGROUND_Google", "Faces_easy"})
    renamed_folders: ClassVar = {
        "airplanes": "airplane",
        "Faces": "face",
        "Leopards": "leopard",
        "Motorbikes": "motorbike",
    }
