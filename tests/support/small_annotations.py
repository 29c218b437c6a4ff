"""The publishers' own labels of the small copies: lists and MATLAB files, written as theirs are."""

import io
import re
from collections.abc import Iterable

import numpy as np
from scipy.io import savemat

Item = tuple[str, int, str]  # path from the folder of the images, label, class name
SYNSET_FIELDS = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")


def annotate(name: str, items: dict[str, list[Item]]) -> dict[str, bytes]:
    """Returns the files with a data set's labels: path in its folder -> content; none where folders are the labels."""
    trainval, test = sorted([*items["train"], *items["val"]]), sorted(items["test"])
    names = dict(sorted({(label, classname) for _, label, classname in [*trainval, *test]}))
    if name == "oxford_pets":
        return {
            f"annotations/{file}.txt": lines(f"{path[:-4]} {label + 1} 1 1" for path, label, _ in listed)
            for file, listed in (("trainval", trainval), ("test", test))
        }
    if name == "stanford_cars":
        classes = np.array([re.sub(r"(\d+) (.+)", r"\2 \1", names[label]) for label in names], dtype=object)
        return {
            "devkit/cars_meta.mat": mat(class_names=classes),
            "devkit/cars_train_annos.mat": mat(annotations=cars(trainval)),
            "cars_test_annos_withlabels.mat": mat(annotations=cars(test)),
        }
    if name == "oxford_flowers":
        labels = [label + 1 for _, label, _ in sorted([*trainval, *test])]  # in the order of the images' numbers
        quoted = ", ".join(f'"{label + 1}": "{names[label]}"' for label in names)
        return {"imagelabels.mat": mat(labels=[labels]), "cat_to_name.json": f"{{{quoted}}}".encode()}
    if name == "sun397":
        scenes = {label: path.rpartition("/")[0] for path, label, _ in test}
        return {
            "ClassName.txt": lines(f"/{scenes[label]}" for label in sorted(scenes)),
            "Training_01.txt": lines(f"/{path}" for path, _, _ in trainval),
            "Testing_01.txt": lines(f"/{path}" for path, _, _ in test),
        }
    if name == "ucf101":
        actions = {label: names[label].replace("_", "") for label in names}
        videos = {path: f"{actions[label]}/{path.split('/')[1][:-4]}.avi" for path, label, _ in [*trainval, *test]}
        return {
            "ucfTrainTestlist/classInd.txt": lines(f"{label + 1} {actions[label]}" for label in names),
            "ucfTrainTestlist/trainlist01.txt": lines(f"{videos[path]} {label + 1}" for path, label, _ in trainval),
            "ucfTrainTestlist/testlist01.txt": lines(videos[path] for path, _, _ in test),
        }
    return {}


def cars(listed: list[Item]) -> np.ndarray:
    """Returns the struct of the cars' devkit."""
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    rows = [(3, 5, 20, 18, np.uint8(label + 1), path.split("/")[1]) for path, label, _ in listed]
    return np.array([rows], dtype=[(field, object) for field in fields])


def imagenet_devkit(wnids: Iterable[str], labels_of_val: Iterable[int]) -> dict[str, bytes]:
    """Returns what ImageNet's development kit holds of the classes, and of the validation images in their order."""
    synsets = [(i + 1, wnid, f"{wnid}, a synonym", "its gloss", 0) for i, wnid in enumerate(wnids)]
    synsets.append((len(synsets) + 1, "n00001740", "entity", "above the others", len(synsets)))
    table = np.array(synsets, dtype=[(field, object) for field in SYNSET_FIELDS])
    return {
        "ILSVRC2012_devkit_t12/data/meta.mat": mat(synsets=table),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": lines(i + 1 for i in labels_of_val),
        "ILSVRC2012_devkit_t12/readme.txt": b"not needed",
    }


def mat(**variables) -> bytes:
    """Returns a MATLAB file."""
    content = io.BytesIO()
    savemat(content, variables)
    return content.getvalue()


def lines(content: Iterable) -> bytes:
    return "".join(f"{line}\n" for line in content).encode()
