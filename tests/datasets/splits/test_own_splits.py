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

from datasets.base import draw_split
from datasets.caltech101 import Caltech101
from datasets.dtd import DescribableTextures
from datasets.eurosat import EuroSAT
from datasets.fetch.fill import keep_own_split
from datasets.food101 import Food101
from datasets.oxford_flowers import OxfordFlowers
from datasets.oxford_pets import OxfordPets
from datasets.splits.annotations import HELD_OUT_RULE, hold_out_val
from datasets.stanford_cars import StanfordCars
from datasets.sun397 import SUN397
from datasets.ucf101 import UCF101
from engine import Datum
from tests.support.file_server import no_network
from tests.support.small_annotations import cars, mat

TEXTS = {  # the lists of three publishers
    OxfordPets: {
        "annotations/trainval.txt": "".join(
            f"{name} {breed}\n"
            for breed, names in {
                "1 1 1": [f"Abyssinian_{i}" for i in range(100, 110)],
                "2 2 1": [f"american_bulldog_{i}" for i in range(10, 15)],
                "6 1 2": ["Bengal_1", "Bengal_10"],
            }.items()
            for name in names
        ),
        "annotations/test.txt": "Abyssinian_201 1 1 1\nBengal_100 6 1 2\namerican_bulldog_103 2 2 1\n",
    },
    SUN397: {
        "ClassName.txt": "/a/abbey\n/a/airplane_cabin\n/a/apartment_building/outdoor\n/b/balcony/exterior\n",
        "Training_01.txt": "".join(
            f"{place}/sun_{i}.jpg\n" for place in ("/a/abbey", "/a/apartment_building/outdoor") for i in "abcde"
        ),
        "Testing_01.txt": "/b/balcony/exterior/sun_x.jpg\n/a/airplane_cabin/sun_y.jpg\n/a/abbey/sun_z.jpg\n",
    },
    UCF101: {
        "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\r\n2 Archery\r\n3 HandstandPushups\r\n4 YoYo\r\n",
        "ucfTrainTestlist/trainlist01.txt": "".join(
            f"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c0{i}.avi 1\r\nYoYo/v_YoYo_g08_c0{i}.avi 4\r\n" for i in range(1, 6)
        ),
        "ucfTrainTestlist/testlist01.txt": (
            "Archery/v_Archery_g01_c01.avi\r\nHandstandPushups/v_HandStandPushups_g01_c02.avi\r\n"
        ),
    },
}
EXPECTED = {  # images that are not the test set's, by label and class name; the test set; how many go to val by label
    OxfordPets: (
        {
            (0, "abyssinian"): {f"Abyssinian_{i}.jpg" for i in range(100, 110)},
            (1, "american_bulldog"): {f"american_bulldog_{i}.jpg" for i in range(10, 15)},
            (5, "bengal"): {"Bengal_1.jpg", "Bengal_10.jpg"},
        },
        [
            ("Abyssinian_201.jpg", 0, "abyssinian"),
            ("Bengal_100.jpg", 5, "bengal"),
            ("american_bulldog_103.jpg", 1, "american_bulldog"),
        ],
        {0: 2, 1: 1},
    ),
    StanfordCars: (
        {
            (0, "2000 AM General Hummer SUV"): {f"cars_train/0000{i}.jpg" for i in (1, 3, 5, 7, 9)},
            (2, "2012 Tesla Model S"): {f"cars_train/0000{i}.jpg" for i in (2, 4, 6, 8)},
        },
        [
            ("cars_test/00001.jpg", 2, "2012 Tesla Model S"),
            ("cars_test/00002.jpg", 1, "2012 Ram C/V Cargo Van Minivan"),
        ],
        {0: 1, 2: 1},
    ),
    SUN397: (
        {
            (0, "abbey"): {f"a/abbey/sun_{i}.jpg" for i in "abcde"},
            (2, "outdoor apartment_building"): {f"a/apartment_building/outdoor/sun_{i}.jpg" for i in "abcde"},
        },
        [
            ("b/balcony/exterior/sun_x.jpg", 3, "exterior balcony"),
            ("a/airplane_cabin/sun_y.jpg", 1, "airplane_cabin"),
            ("a/abbey/sun_z.jpg", 0, "abbey"),
        ],
        {0: 1, 2: 1},
    ),
    UCF101: (
        {
            (0, "Apply_Eye_Makeup"): {f"Apply_Eye_Makeup/v_ApplyEyeMakeup_g08_c0{i}.jpg" for i in range(1, 6)},
            (3, "Yo_Yo"): {f"Yo_Yo/v_YoYo_g08_c0{i}.jpg" for i in range(1, 6)},
        },
        [
            ("Archery/v_Archery_g01_c01.jpg", 1, "Archery"),
            ("Handstand_Pushups/v_HandStandPushups_g01_c02.jpg", 2, "Handstand_Pushups"),
        ],
        {0: 1, 3: 1},
    ),
}
CARS = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "Tesla Model S 2012"]
FOLDERS = {  # class folders in another order than theirs, and the class names by label
    Caltech101: (
        ("accordion", "Faces_easy", "airplanes", "BACKGROUND_Google", "Motorbikes", "Leopards", "Faces"),
        ("face", "leopard", "motorbike", "accordion", "airplane"),
    ),
    DescribableTextures: (("zigzagged", "banded", "polka-dotted"), ("banded", "polka-dotted", "zigzagged")),
    EuroSAT: (
        ("SeaLake", "River", "Residential", "PermanentCrop", "Pasture")
        + ("Industrial", "Highway", "HerbaceousVegetation", "Forest", "AnnualCrop"),
        ("Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings")
        + ("Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake"),
    ),
    Food101: (("baklava", "apple_pie", "baby_back_ribs"), ("apple_pie", "baby_back_ribs", "baklava")),
}


def write_texts(folder, texts):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


def write_struct(path, labels, **more):
    """Writes a MATLAB file like those of the cars' devkit."""
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    annotations = np.zeros((1, len(labels)), dtype=[(field, object) for field in fields])
    for i, label in enumerate(labels):
        annotations[0, i] = (30, 52, 246, 147, np.uint8(label), f"{i + 1:05d}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": annotations, **more})


def write_cars(folder):
    write_struct(folder / "devkit" / "cars_train_annos.mat", [1, 3, 1, 3, 1, 3, 1, 3, 1])
    write_struct(folder / "cars_test_annos_withlabels.mat", [3, 2])
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array([CARS], dtype=object)})


def write_flowers(folder, labels=(77,) * 10 + (1,) * 5, names=(("77", "passion flower"), ("1", "pink primrose"))):
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    (folder / "cat_to_name.json").write_text(json.dumps(dict(names)))


def write_annotations(dataset, folder):
    if dataset is StanfordCars:
        write_cars(folder)
    elif dataset is OxfordFlowers:
        write_flowers(folder)
    else:
        write_texts(folder, TEXTS[dataset])


def write_folders(images, folders, n_images):
    for name in folders:
        (images / name).mkdir(parents=True)
        for i in range(n_images):
            (images / name / f"{name}_{i}.jpg").touch()


def shown(items, images):
    return [(Path(item.impath).relative_to(images).as_posix(), item.label, item.classname) for item in items]


def own_split(dataset, folder):
    images = folder / dataset.image_dir
    return tuple(shown(items, images) for items in dataset.own_items(folder))


def by_class(items):
    classes = {}
    for path, label, classname in items:
        classes.setdefault((label, classname), set()).add(path)
    return classes


def made_items(sizes):
    return [Datum(f"{label}/{i}.jpg", label, classname=str(label)) for label, n in enumerate(sizes) for i in range(n)]


# From lists and MATLAB files: the publisher's test set stays


@pytest.mark.parametrize("dataset", EXPECTED)
def test_the_publishers_test_set_stays_and_a_fifth_of_the_others_goes_to_val(dataset, tmp_path):
    write_annotations(dataset, tmp_path)
    others, expected_test, n_val = EXPECTED[dataset]
    train, val, test = own_split(dataset, tmp_path)
    assert test == expected_test
    assert by_class([*train, *val]) == others and len({*train, *val}) == len(train) + len(val)
    assert Counter(label for _, label, _ in val) == n_val
    assert dataset.own_split_rule == HELD_OUT_RULE


def test_flowers_are_numbered_from_one_and_named_by_the_json_file(tmp_path):
    write_flowers(tmp_path)
    split = own_split(OxfordFlowers, tmp_path)
    assert by_class([item for items in split for item in items]) == {
        (76, "passion flower"): {f"image_{i:05d}.jpg" for i in range(1, 11)},
        (0, "pink primrose"): {f"image_{i:05d}.jpg" for i in range(11, 16)},
    }
    assert [Counter(label for _, label, _ in items) for items in split] == [{76: 5, 0: 3}, {76: 2, 0: 1}, {76: 3, 0: 1}]


@pytest.mark.parametrize("dataset", FOLDERS)
def test_class_folders_are_split_by_half_and_a_fifth(dataset, tmp_path):
    folders, names = FOLDERS[dataset]
    write_folders(tmp_path / dataset.image_dir, folders, n_images=5)
    split = own_split(dataset, tmp_path)
    assert by_class([item for items in split for item in items]).keys() == set(enumerate(names))
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


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A folder for --from and one for a data set, both empty; there is no network."""
    no_network(monkeypatch)
    for name in ("given", "root"):
        (tmp_path / name).mkdir()
    return tmp_path / "given", tmp_path / "root"


def without_md5(file):
    return replace(file, md5="", inside=file.inside and without_md5(file.inside))


def is_kept(dataset, folder, given, monkeypatch):
    """Whether the split that prepare keeps is the one that the annotations give."""
    monkeypatch.setattr(dataset, "annotations", tuple(without_md5(file) for file in dataset.annotations))
    monkeypatch.setattr(dataset, "n_classes", 0)
    keep_own_split(dataset, folder, str(given))
    kept = json.loads((folder / f"split_seed1_{dataset.__name__}.json").read_text())
    own = own_split(dataset, folder)
    return [kept[part] for part in ("train", "val", "test")] == [[list(item) for item in items] for items in own]


@pytest.mark.parametrize("dataset", [*EXPECTED, OxfordFlowers])
def test_annotations_in_a_given_folder_are_used(dataset, folders, monkeypatch, caplog):
    given, folder = folders
    write_annotations(dataset, given)
    assert is_kept(dataset, folder, given, monkeypatch)
    assert "It is NOT the papers' split" in caplog.text and dataset.own_split_rule in caplog.text


@pytest.mark.parametrize(
    ("dataset", "archive", "top"),
    [
        (OxfordPets, "annotations.tar.gz", "."),
        (StanfordCars, "stanford_cars.zip", "stanford_cars"),
        (SUN397, "SUN397.zip", "sun397"),
        (UCF101, "UCF101TrainTestSplits-RecognitionTask.zip", "."),
    ],
)
def test_annotations_are_taken_out_of_the_publishers_or_the_mirrors_archive(
    dataset, archive, top, folders, tmp_path, monkeypatch
):
    given, folder = folders
    write_annotations(dataset, tmp_path / "packed" / top)
    stem, _, suffix = archive.partition(".")
    kind = {"zip": "zip", "tar.gz": "gztar"}[suffix]
    shutil.make_archive(str(given / stem), kind, tmp_path / "packed")
    assert is_kept(dataset, folder, given, monkeypatch)


# Broken and missing files


def error_of(dataset, name, content, folder):
    """Writes one of the annotation files anew and returns what is wrong with it."""
    write_annotations(dataset, folder)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        dataset.own_items(folder)
    message, ending = str(caught.value), ". Delete it and prepare the data set again."
    assert message.startswith(f"{folder / name} ") and message.endswith(ending)
    return message.removeprefix(f"{folder / name} ").removesuffix(ending)


@pytest.mark.parametrize(
    ("dataset", "name", "line", "expected"),
    [
        (OxfordPets, "annotations/trainval.txt", "Abyssinian_100 1 1", "`IMAGE CLASS SPECIES BREED` with CLASS from 1"),
        (OxfordPets, "annotations/test.txt", "Abyssinian_100 0 1 1", "`IMAGE CLASS SPECIES BREED` with CLASS from 1"),
        (OxfordPets, "annotations/test.txt", "Abyssinian_100 a 1 1", "`IMAGE CLASS SPECIES BREED` with CLASS from 1"),
        (
            SUN397,
            "Training_01.txt",
            "/a/aquarium/1.jpg",
            "`/LETTER/CLASS/IMAGE`, /LETTER/CLASS a line of ClassName.txt",
        ),
        (UCF101, "ucfTrainTestlist/classInd.txt", "YoYo 1", "`NUMBER ACTION` with NUMBER from 1"),
        *(
            (UCF101, "ucfTrainTestlist/testlist01.txt", line, "`ACTION/VIDEO.avi`, the action one of classInd.txt")
            for line in ("YoYos/v.avi", "YoYo/")
        ),
    ],
)
def test_a_wrong_line_is_named(dataset, name, line, expected, tmp_path):
    assert error_of(dataset, name, f"\n{line}\n".encode(), tmp_path) == f"has the line {line!r}, expected {expected}"


@pytest.mark.parametrize(
    ("dataset", "name", "line"),
    [
        (OxfordPets, "annotations/test.txt", "../../etc/passwd 1 1 1"),
        (OxfordPets, "annotations/test.txt", "/etc/passwd 1 1 1"),
        (UCF101, "ucfTrainTestlist/testlist01.txt", "YoYo/../../v.avi"),
        (UCF101, "ucfTrainTestlist/testlist01.txt", "YoYo//etc/v.avi"),
    ],
)
def test_a_line_that_leads_out_of_the_folder_is_named(dataset, name, line, tmp_path):
    expected = f"has the line {line!r}, expected paths below the folder of the images"
    assert error_of(dataset, name, f"{line}\n".encode(), tmp_path) == expected


def test_a_struct_that_leads_out_of_the_folder_is_named(tmp_path):
    content = mat(annotations=cars([("cars_test/..", 0, "2012 Car"), ("cars_test/1.jpg", 0, "2012 Car")]))
    expected = "has the file name '..', expected paths below the folder of the images"
    assert error_of(StanfordCars, "cars_test_annos_withlabels.mat", content, tmp_path) == expected


@pytest.mark.parametrize(
    ("dataset", "name", "variable"),
    [
        (OxfordFlowers, "imagelabels.mat", "labels"),
        (StanfordCars, "devkit/cars_meta.mat", "class_names"),
        (StanfordCars, "cars_test_annos_withlabels.mat", "annotations"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 20, "cut", "another"])
def test_a_broken_matlab_file_is_named(dataset, name, variable, content, tmp_path):
    if isinstance(content, str):
        savemat(tmp_path / "whole.mat", {"other": np.arange(99)}, do_compression=True)
        content = (tmp_path / "whole.mat").read_bytes()[: -9 if content == "cut" else None]
    message = error_of(dataset, name, content, tmp_path)
    assert message.startswith("is not readable (")
    assert message.endswith(f"), expected a MATLAB file with the variable {variable}")


def test_labels_that_fit_no_name_are_named(tmp_path):
    write_flowers(tmp_path, labels=(1, 77, 3))
    with pytest.raises(ValueError, match="imagelabels.mat has the class 3, expected those that cat_to_name.json names"):
        OxfordFlowers.own_items(tmp_path)
    write_cars(tmp_path)
    write_struct(tmp_path / "cars_test_annos_withlabels.mat", [1, 4])
    with pytest.raises(ValueError, match=r"withlabels.mat has the class 4, expected 1 to 3 as in devkit/cars_meta.mat"):
        StanfordCars.own_items(tmp_path)


def test_test_labels_of_cars_without_classes_are_refused(tmp_path):
    write_cars(tmp_path)
    unlabelled = np.zeros((1, 2), dtype=[("bbox_x1", object), ("fname", object)])  # as in the devkit itself
    savemat(tmp_path / "cars_test_annos_withlabels.mat", {"annotations": unlabelled})
    with pytest.raises(ValueError, match=r"has the fields \('bbox_x1', 'fname'\), expected fname and class among them"):
        StanfordCars.own_items(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[1, 2]", b"\xff"])
def test_broken_flower_names_are_refused(content, tmp_path):
    message = error_of(OxfordFlowers, "cat_to_name.json", content, tmp_path)
    assert message.startswith("is not readable (")
    assert message.endswith('expected JSON such as {"1": "pink primrose"}')


def test_a_list_that_is_no_text_is_refused(tmp_path):
    assert error_of(SUN397, "Testing_01.txt", b"\xff\xfe", tmp_path).endswith("expected lines of text")


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
def test_a_missing_file_is_named(dataset, name, tmp_path):
    write_annotations(dataset, tmp_path)
    path = tmp_path / name
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} is missing, expected .*; of this path {path.parent} exists. "):
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
    write_flowers(tmp_path, [label + 1 for _, label, _ in items], real_split("splits/cat_to_name.json").items())
    assert sorted(item for part in own_split(OxfordFlowers, tmp_path) for item in part) == items


@pytest.mark.real_data
def test_pets_have_the_names_and_the_counts_of_the_real_split(tmp_path):
    real = real_split(f"splits/{OxfordPets.split_file}")
    lists = {"trainval": [*real["train"], *real["val"]], "test": real["test"]}
    for name, items in lists.items():
        lines = [f"{path.removesuffix('.jpg')} {label + 1} 1 1\n" for path, label, _ in items]
        write_texts(tmp_path, {f"annotations/{name}.txt": "".join(lines)})
    train, val, test = own_split(OxfordPets, tmp_path)
    assert test == [tuple(item) for item in real["test"]]
    assert sorted([*train, *val]) == sorted(tuple(item) for item in lists["trainval"])
    for part, found in (("train", train), ("val", val)):
        assert Counter(label for _, label, _ in found) == Counter(label for _, label, _ in real[part])
