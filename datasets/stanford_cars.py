"""Stanford Cars: photographs of 196 makes, models and years of cars.

Paper: 3D Object Representations for Fine-Grained Categorization, Krause, Stark, Deng, Fei-Fei, ICCV workshop 2013.
https://ai.stanford.edu/~jkrause/cars/car_dataset.html (gone since 2023)
"""

from pathlib import Path

from engine.text import shorten

from .base import DATASET_REGISTRY, MIRROR, Datum, FewShotDataset, Items, RemoteFile
from .splits.annotations import read_mat, wrong_file
from .splits.entries import LEADS_OUT
from .splits.own_split import HELD_OUT_RULE, hold_out_val

NAMES_FILE = "devkit/cars_meta.mat"
LABEL_FILES = {"cars_train": "devkit/cars_train_annos.mat", "cars_test": "cars_test_annos_withlabels.mat"}


@DATASET_REGISTRY.register()
class StanfordCars(FewShotDataset):
    """Class names put the year first, "2012 Tesla Model S"."""

    dataset_dir = "stanford_cars"  # the split file's paths start with cars_train/ and cars_test/
    split_file = "split_zhou_StanfordCars.json"
    split_id = "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"
    split_sha256 = "40acee7aa65c8e4727a32d90e884b7c3f8960b523422317e163f7af65432959d"
    split_items_sha256 = "dcea0404a53aa64574091b79f3e076770f5bf0cff4cfcc50f69a2229c5e04bf5"
    n_classes = 196
    n_items = (6509, 1635, 8041)
    n_base_new = (4002, 4039)
    mirrored = True
    annotations = tuple(RemoteFile(name, sources=(MIRROR,)) for name in (NAMES_FILE, *LABEL_FILES.values()))
    own_split_rule = HELD_OUT_RULE

    @classmethod
    def contents(cls) -> tuple[str, ...]:
        return tuple(LABEL_FILES)

    @classmethod
    def own_items(cls, folder: Path) -> Items:
        """Returns all items, split by `own_split_rule`; labels are the publisher's."""
        names = [str(name).rpartition(" ") for name in read_mat(folder / NAMES_FILE, "class_names")]
        classnames = [f"{year} {model}" for model, _, year in names]
        trainval, test = (read_labels(folder / LABEL_FILES[name], folder / name, classnames) for name in cls.contents())
        return *hold_out_val(trainval), test


def read_labels(path: Path, images: Path, classnames: list[str]) -> list[Datum]:
    """Returns the items of one of the publisher's structs, whose classes are numbered from 1."""
    annotations = read_mat(path, "annotations")
    if not {"fname", "class"} <= set(annotations.dtype.names or ()):
        raise wrong_file(path, f"has the fields {annotations.dtype.names}", "fname and class, among others,")
    labels = [int(number) - 1 for number in annotations["class"]]
    if unknown := set(labels) - set(range(len(classnames))):
        raise wrong_file(path, f"has the class {min(unknown) + 1}", f"1 to {len(classnames)} as in {NAMES_FILE}")
    names = [str(name) for name in annotations["fname"]]
    if (strange := next(filter(LEADS_OUT.search, names), None)) is not None:
        raise wrong_file(path, f"has the file name {shorten(strange)}", "paths below the folder of the images")
    return [Datum(str(images / name), label, classname=classnames[label]) for name, label in zip(names, labels)]
