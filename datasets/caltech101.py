"""Caltech-101: photographs of 100 kinds of objects, without the background class and the easy faces.

Paper: Learning Generative Visual Models from Few Training Examples, Fei-Fei, Fergus, Perona, CVPR workshop 2004.
https://data.caltech.edu/records/mzrjq-6wc02 (CC BY 4.0)
"""

from pathlib import Path
from typing import ClassVar

from .base import DATASET_REGISTRY, FewShotDataset, fetch_archive, unpack

ARCHIVE_URL = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
ARCHIVE_MD5 = "3138e1922a9193bfa496528edbbc45d0"
INNER_ARCHIVE = "101_ObjectCategories.tar.gz"


@DATASET_REGISTRY.register()
class Caltech101(FewShotDataset):
    """4,128 training, 1,649 validation and 2,465 test images of about 200 x 300 pixels."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    split_id = "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"
    split_sha256 = "52ce83205ff8ff8a1a18119aad6376120ae35c36e783a984bc560cbf10e73fa5"
    split_items_sha256 = "17c403faec919d379f39dc7d3b6c6ac6681a16d4bac38bf9f45b2fa97fc27b6f"
    n_classes = 100
    n_items = (4128, 1649, 2465)
    ignored_folders = frozenset({"BACKGROUND_Google", "Faces_easy"})
    renamed_folders: ClassVar = {
        "airplanes": "airplane",
        "Faces": "face",
        "Leopards": "leopard",
        "Motorbikes": "motorbike",
    }

    @classmethod
    def prepare(cls, root: Path) -> None:
        """Fetches the images (131 MB) and the split; archives that lie in the folder already are used."""
        folder = root / cls.dataset_dir
        folder.mkdir(parents=True, exist_ok=True)
        images = folder / cls.image_dir
        if not images.exists():
            archives = sorted(folder.rglob(INNER_ARCHIVE))  # the outer archive unpacks to a folder of its own
            if not archives:
                outer = folder / "caltech-101.zip"
                fetch_archive(ARCHIVE_URL, outer, ARCHIVE_MD5)
                unpack(outer, folder / INNER_ARCHIVE)
                archives = [folder / INNER_ARCHIVE]
            unpack(archives[0], images)
        cls.prepare_split(folder)
