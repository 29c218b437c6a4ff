"""Splits of our own, from annotation files as the publishers write them; they stand in for the papers' splits."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from datasets.base import DataCopy, draw_split
from datasets.caltech101 import Caltech101
from datasets.dtd import DescribableTextures
from datasets.eurosat import EuroSAT
from datasets.fetch.fill import keep_own_split
from datasets.food101 import Food101
from datasets.oxford_flowers import OxfordFlowers
from datasets.oxford_pets import OxfordPets
from datasets.splits.own_split import hold_out_val
from datasets.stanford_cars import StanfordCars
from datasets.sun397 import SUN397
from datasets.ucf101 import UCF101
from engine import Datum
from tests.support.file_server import no_network
from tests.support.small_annotations import cars, lines, mat
from tests.support.small_copies import shown, small_copy, write_files

NAMES = {
    OxfordPets: "oxford_pets",
    StanfordCars: "stanford_cars",
    OxfordFlowers: "oxford_flowers",
    SUN397: "sun397",
    UCF101: "ucf101",
}
FOLDERS = {  # class folders in another order than theirs, and the class names by label
    Caltech101: (
        ("accordion", "Faces_easy", "airplanes", "BACKGROUND_Google", "Motorbikes", "Leopards", "Faces"),
        ("face", "leopard", "motorbike", "accordion", "airplane"),
    ),
    EuroSAT: (
        ("SeaLake", "River", "Residential", "PermanentCrop", "Pasture")
        + ("Industrial", "Highway", "HerbaceousVegetation", "Forest", "AnnualCrop"),
        ("Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings")
        + ("Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake"),
    ),
}
ODD = {  # of what publishers write, what is not as elsewhere: files, and the test items that they give
    OxfordPets: (  # numbers with gaps
        {
            "annotations/trainval.txt": "Abyssinian_1 1 1 1\nBengal_1 6 1 2\n",
            "annotations/test.txt": "Bengal_100 6 1 2\nAbyssinian_201 1 1 1\n",
        },
        [("Bengal_100.jpg", 5, "bengal"), ("Abyssinian_201.jpg", 0, "abyssinian")],
    ),
    UCF101: (  # lines of Windows; a video whose name is not its folder's
        {
            "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\r\n2 Archery\r\n3 HandstandPushups\r\n",
            "ucfTrainTestlist/trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n",
            "ucfTrainTestlist/testlist01.txt": "HandstandPushups/v_HandStandPushups_g01_c02.avi\r\nArchery/v_1.avi\r\n",
        },
        [
            ("Handstand_Pushups/v_HandStandPushups_g01_c02.jpg", 2, "Handstand_Pushups"),
            ("Archery/v_1.jpg", 1, "Archery"),
        ],
    ),
}


def write_annotations(dataset, folder, monkeypatch):
    """Writes the publisher's labels of the small copy, which is returned."""
    copy = small_copy(NAMES[dataset], monkeypatch)
    write_files(folder, copy.annotations)
    return copy


def write_flowers(folder, labels, names):
    write_files(folder, {"imagelabels.mat": mat(labels=[labels]), "cat_to_name.json": json.dumps(names).encode()})


def write_folders(images, folders, n_images):
    write_files(images, {f"{name}/{name}_{i}.jpg": b"" for name in folders for i in range(n_images)})


def own_split(dataset, folder):
    images = folder / dataset.image_dir
    return tuple(shown(items, images) for items in dataset.own_items(folder))


def made_items(sizes):
    return [Datum(f"{label}/{i}.jpg", label, classname=str(label)) for label, n in enumerate(sizes) for i in range(n)]


# What the publishers write (all of it: test_fill.py)


@pytest.mark.parametrize("dataset", ODD)
def test_what_one_publisher_writes_otherwise(dataset, tmp_path):
    files, test = ODD[dataset]
    write_files(tmp_path, {name: text.encode() for name, text in files.items()})
    assert own_split(dataset, tmp_path)[2] == test


@pytest.mark.parametrize("dataset", FOLDERS)
def test_class_folders_are_split_by_half_and_a_fifth(dataset, tmp_path):
    folders, names = FOLDERS[dataset]
    write_folders(tmp_path / dataset.image_dir, folders, n_images=5)
    split = own_split(dataset, tmp_path)
    assert {item[1:] for items in split for item in items} == set(enumerate(names))
    assert [Counter(label for _, label, _ in items) for items in split] == [
        dict.fromkeys(range(len(names)), n) for n in (3, 1, 1)
    ]


# The counts that the rules give on the publishers' class sizes are the papers'


EUROSAT_SIZES = (3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000)


@pytest.mark.parametrize(
    ("dataset", "sizes"),
    [(DescribableTextures, (120,) * 47), (EuroSAT, EUROSAT_SIZES), (Food101, (1000,) * 101)],
)
def test_splitting_classes_gives_the_papers_counts(dataset, sizes):
    split = draw_split(made_items(sizes), 1)
    assert tuple(len(items) for items in split) == dataset.n_items
    n_base = (dataset.n_classes + 1) // 2
    n_of_base = sum(item.label < n_base for item in split[2])
    assert (n_of_base, len(split[2]) - n_of_base) == dataset.n_base_new


def test_holding_out_of_fifty_each_gives_the_papers_counts():
    train, val = hold_out_val(made_items((50,) * 397))
    assert (len(train), len(val)) == SUN397.n_items[:2]
    assert set(Counter(item.label for item in val).values()) == {10}


def test_held_out_items_are_drawn_by_the_seed_and_rounded_to_the_nearest():
    sizes = (2, 3, 7, 8, 12, 13)
    items = made_items(sizes)[::-1]
    train, val = hold_out_val(items, seed=1)
    assert [Counter(item.label for item in val)[label] for label in range(len(sizes))] == [0, 1, 1, 2, 2, 3]
    assert train == [item for item in items if item not in val] and val == [item for item in items if item in val]
    assert hold_out_val(items, seed=1) == (train, val) != hold_out_val(items, seed=2)


# On the way through prepare


def without_md5(file):
    return replace(file, md5="", inside=file.inside and without_md5(file.inside))


@pytest.mark.parametrize(
    ("dataset", "archive", "top"),
    [
        *((dataset, "", "") for dataset in NAMES),
        (OxfordPets, "annotations.tar.gz", "."),
        (StanfordCars, "stanford_cars.zip", "stanford_cars"),
        (SUN397, "SUN397.zip", "sun397"),
        (UCF101, "UCF101TrainTestSplits-RecognitionTask.zip", "."),
    ],
)
def test_annotations_in_from_or_in_an_archive_of_publisher_or_mirror_are_used(
    dataset, archive, top, tmp_path, monkeypatch, caplog
):
    no_network(monkeypatch)
    write_annotations(dataset, tmp_path / ("packed" if archive else "usb") / top, monkeypatch)
    if archive:
        (tmp_path / "usb").mkdir()
        kind = "zip" if archive.endswith(".zip") else "gztar"
        shutil.make_archive(str(tmp_path / "usb" / archive.partition(".")[0]), kind, tmp_path / "packed")
    monkeypatch.setattr(dataset, "annotations", tuple(without_md5(file) for file in dataset.annotations))
    copy = DataCopy(dataset, tmp_path / "root", str(tmp_path / "usb"))
    copy.folder.mkdir(parents=True)
    keep_own_split(copy)
    kept = json.loads(copy.own_split.read_text())
    own = own_split(dataset, copy.folder)
    assert [kept[part] for part in ("train", "val", "test")] == [[list(item) for item in items] for items in own]
    assert "It is NOT the papers' split" in caplog.text and dataset.own_split_rule in caplog.text


# Broken and missing files


@pytest.fixture
def error_of(tmp_path, monkeypatch):
    """Writes one of the annotation files anew and returns what is wrong with it."""

    def error_of(dataset, name, content):
        write_annotations(dataset, tmp_path, monkeypatch)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError) as caught:
            dataset.own_items(tmp_path)
        message, ending = str(caught.value), ". Delete it and prepare the data set again."
        assert message.startswith(f"{tmp_path / name} ") and message.endswith(ending)
        return message.removeprefix(f"{tmp_path / name} ").removesuffix(ending)

    return error_of


PETS_LINE = "`IMAGE CLASS SPECIES BREED` with CLASS from 1"
UCF_LINE = "`ACTION/VIDEO.avi`, the action one of classInd.txt"
BELOW = "paths below the folder of the images"


@pytest.mark.parametrize(
    ("dataset", "name", "line", "right"),
    [
        (OxfordPets, "annotations/trainval.txt", "Abyssinian_100 1 1", PETS_LINE),
        (OxfordPets, "annotations/test.txt", "Abyssinian_100 0 1 1", PETS_LINE),
        (OxfordPets, "annotations/test.txt", "Abyssinian_100 a 1 1", PETS_LINE),
        (OxfordPets, "annotations/test.txt", "../../etc/passwd 1 1 1", BELOW),
        (SUN397, "Training_01.txt", "/a/farm/1.jpg", "`/LETTER/CLASS/IMAGE`, /LETTER/CLASS a line of ClassName.txt"),
        (UCF101, "ucfTrainTestlist/classInd.txt", "YoYo 1", "`NUMBER ACTION` with NUMBER from 1"),
        (UCF101, "ucfTrainTestlist/testlist01.txt", "YoYos/v.avi", UCF_LINE),
        (UCF101, "ucfTrainTestlist/testlist01.txt", "Archery/", UCF_LINE),
        (UCF101, "ucfTrainTestlist/testlist01.txt", "Archery/../../v.avi", BELOW),
    ],
)
def test_a_wrong_line_is_named(dataset, name, line, right, error_of):
    assert error_of(dataset, name, lines(["", line])) == f"has the line {line!r} instead of {right}"


def test_a_struct_that_leads_out_of_the_folder_is_named(error_of):
    content = mat(annotations=cars([("cars_test/..", 0, "2012 Car"), ("cars_test/1.jpg", 0, "2012 Car")]))
    message = error_of(StanfordCars, "cars_test_annos_withlabels.mat", content)
    assert message == f"has the file name '..' instead of {BELOW}"


@pytest.mark.parametrize(
    ("dataset", "name", "variable"),
    [
        (OxfordFlowers, "imagelabels.mat", "labels"),
        (StanfordCars, "devkit/cars_meta.mat", "class_names"),
        (StanfordCars, "cars_test_annos_withlabels.mat", "annotations"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 20, "cut", "another"])
def test_a_broken_matlab_file_is_named(dataset, name, variable, content, error_of, tmp_path):
    if isinstance(content, str):
        savemat(tmp_path / "whole.mat", {"other": np.arange(99)}, do_compression=True)
        content = (tmp_path / "whole.mat").read_bytes()[: -9 if content == "cut" else None]
    message = error_of(dataset, name, content)
    assert message.startswith("is not readable (")
    assert message.endswith(f") instead of a MATLAB file with the variable {variable}")


@pytest.mark.parametrize(
    ("dataset", "name", "content", "message"),
    [
        (OxfordFlowers, "imagelabels.mat", mat(labels=[[1, 7]]), "has the class 7 instead of those that cat_to_name"),
        (
            StanfordCars,
            "cars_test_annos_withlabels.mat",
            mat(annotations=cars([("a/1.jpg", 0, ""), ("a/2.jpg", 3, "")])),
            "has the class 4 instead of 1 to 3 as in devkit/cars_meta.mat",
        ),
        (
            StanfordCars,
            "cars_test_annos_withlabels.mat",
            mat(annotations=np.zeros((1, 2), dtype=[("bbox_x1", object), ("fname", object)])),  # as in the devkit
            "has the fields ('bbox_x1', 'fname') instead of fname and class, among others",
        ),
        *(
            (OxfordFlowers, "cat_to_name.json", content, 'instead of JSON such as {"1": "pink primrose"}')
            for content in (b"{", b"[1, 2]", b"\xff")
        ),
        (SUN397, "Testing_01.txt", b"\xff\xfe", "instead of lines of text"),
    ],
)
def test_labels_that_fit_no_name_and_files_of_another_kind_are_named(dataset, name, content, message, error_of):
    assert message in error_of(dataset, name, content)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        (OxfordPets, "annotations/test.txt"),
        (OxfordFlowers, "imagelabels.mat"),
        (OxfordFlowers, "cat_to_name.json"),
        (StanfordCars, "devkit/cars_train_annos.mat"),
        (SUN397, "ClassName.txt"),
        (UCF101, "ucfTrainTestlist/trainlist01.txt"),
    ],
)
def test_a_missing_file_is_named(dataset, name, tmp_path, monkeypatch):
    write_annotations(dataset, tmp_path, monkeypatch)
    path = tmp_path / name
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} is missing; of this path {path.parent} exists. Prepare"):
        dataset.own_items(tmp_path)


# Class names, labels and counts against the papers' real split files


def real_split(name):
    path = Path(os.environ.get("COOP_DATA", ""), name)
    if not os.environ.get("COOP_DATA") or not path.is_file():
        pytest.skip(f"COOP_DATA does not name a folder with {name}")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("dataset", "name"), [(Caltech101, "caltech-101"), (DescribableTextures, "splits")], ids=["caltech101", "dtd"]
)
def test_folders_give_the_labels_and_names_of_the_real_split(dataset, name, tmp_path):
    items = [item for part in real_split(f"{name}/{dataset.split_file}").values() for item in part]
    folders = {path.partition("/")[0] for path, _, _ in items}
    write_folders(tmp_path / dataset.image_dir, folders | dataset.ignored_folders, n_images=1)
    split = own_split(dataset, tmp_path)
    found = {(path.partition("/")[0], label, classname) for part in split for path, label, classname in part}
    assert found == {(path.partition("/")[0], label, classname) for path, label, classname in items}


@pytest.mark.real_data
def test_flowers_have_the_labels_and_names_of_the_real_split(tmp_path):
    real = real_split(f"splits/{OxfordFlowers.split_file}")
    items = sorted(tuple(item) for part in real.values() for item in part)  # image_00001.jpg and so on, all of them
    write_flowers(tmp_path, [label + 1 for _, label, _ in items], real_split("splits/cat_to_name.json"))
    assert sorted(item for part in own_split(OxfordFlowers, tmp_path) for item in part) == items


@pytest.mark.real_data
def test_pets_have_the_names_and_the_counts_of_the_real_split(tmp_path):
    real = real_split(f"splits/{OxfordPets.split_file}")
    lists = {"trainval": [*real["train"], *real["val"]], "test": real["test"]}
    for name, items in lists.items():
        content = lines(f"{path.removesuffix('.jpg')} {label + 1} 1 1" for path, label, _ in items)
        write_files(tmp_path, {f"annotations/{name}.txt": content})
    train, val, test = own_split(OxfordPets, tmp_path)
    assert test == [tuple(item) for item in real["test"]]
    assert sorted([*train, *val]) == sorted(tuple(item) for item in lists["trainval"])
    for part, found in (("train", train), ("val", val)):
        assert Counter(label for _, label, _ in found) == Counter(label for _, label, _ in real[part])
