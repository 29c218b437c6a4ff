"""The papers' data sets, each laid out small as its publisher lays it out; three with their real split files."""

import json
import os
import random
import re
import shutil
from pathlib import Path

import pytest

from datasets import check, prepare
from datasets.imagenet_a import ImageNetA
from datasets.imagenet_r import ImageNetR
from engine import get_cfg_default

PAGE = (Path(__file__).resolve().parent.parent / "DATASETS.md").read_text(encoding="utf-8")
TEST_ONLY = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")

# Folder of the split file's paths, split file, prompt, and for three classes the path of an image and the class name.
SPLIT_SETS = {
    "oxford_pets": (
        "oxford_pets/images",
        "oxford_pets/split_zhou_OxfordPets.json",
        "a photo of a beagle, a type of pet.",
        {"Abyssinian_{}.jpg": "abyssinian", "american_bulldog_{}.jpg": "american_bulldog", "beagle_{}.jpg": "beagle"},
    ),
    "stanford_cars": (
        "stanford_cars",
        "stanford_cars/split_zhou_StanfordCars.json",
        "a photo of a 2012 Tesla Model S.",
        {
            "cars_train/0{}.jpg": "2000 AM General Hummer SUV",
            "cars_train/1{}.jpg": "2012 Acura RL Sedan",
            "cars_test/2{}.jpg": "2012 Tesla Model S",
        },
    ),
    "oxford_flowers": (
        "oxford_flowers/jpg",
        "oxford_flowers/split_zhou_OxfordFlowers.json",
        "a photo of a colt's foot, a type of flower.",
        {"image_0{}.jpg": "passion flower", "image_1{}.jpg": "water lily", "image_2{}.jpg": "colt's foot"},
    ),
    "food101": (
        "food-101/images",
        "food-101/split_zhou_Food101.json",
        "a photo of baby back ribs, a type of food.",
        {
            "apple_pie/{}.jpg": "apple_pie",
            "baklava/{}.jpg": "baklava",
            "baby_back_ribs/{}.jpg": "baby_back_ribs",
        },
    ),
    "sun397": (
        "sun397/SUN397",
        "sun397/split_zhou_SUN397.json",
        "a photo of a outdoor apartment building.",
        {
            "a/abbey/sun_{}.jpg": "abbey",
            "a/alley/sun_{}.jpg": "alley",
            "a/apartment_building/outdoor/sun_{}.jpg": "outdoor apartment_building",
        },
    ),
    "dtd": (
        "dtd/images",
        "dtd/split_zhou_DescribableTextures.json",
        "polka-dotted texture.",
        {
            "banded/banded_{}.jpg": "banded",
            "blotchy/blotchy_{}.jpg": "blotchy",
            "polka-dotted/polka-dotted_{}.jpg": "polka-dotted",
        },
    ),
    "eurosat": (
        "eurosat/2750",
        "eurosat/split_zhou_EuroSAT.json",
        "a centered satellite photo of Sea or Lake.",
        {
            "AnnualCrop/AnnualCrop_{}.jpg": "Annual Crop Land",
            "Forest/Forest_{}.jpg": "Forest",
            "SeaLake/SeaLake_{}.jpg": "Sea or Lake",
        },
    ),
    "ucf101": (
        "ucf101/UCF-101-midframes",
        "ucf101/split_zhou_UCF101.json",
        "a photo of a person doing Apply Lipstick.",
        {
            "Archery/v_Archery_{}.jpg": "Archery",
            "Apply_Eye_Makeup/v_ApplyEyeMakeup_{}.jpg": "Apply_Eye_Makeup",
            "Apply_Lipstick/v_ApplyLipstick_{}.jpg": "Apply_Lipstick",
        },
    ),
}
PAPER_SETS = (*SPLIT_SETS, "fgvc_aircraft", "imagenet", *TEST_ONLY)
ITEMS_OF_CLASS = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}


def load(name, root, *, shots=-1, subset="all", seed=1):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES, cfg.SEED = str(root), shots, subset, seed
    return check.find_dataset(name)(cfg)


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def shown(items, folder):
    return [(Path(item.impath).relative_to(folder).as_posix(), item.label, item.classname) for item in items]


def draw_by_the_rule(items, shots, rng):
    """Class by class in order of first appearance."""
    drawn = []
    for label in dict.fromkeys(label for _, label, _ in items):
        group = [item for item in items if item[1] == label]
        drawn += rng.sample(group, shots) if shots <= len(group) else group
    return drawn


# Data sets with a split file


def lay_out_split(name, root):
    """Writes images and split file; returns the split's content."""
    folder, split_file, _, classes = SPLIT_SETS[name]
    split = {
        part: [
            (path.format(number), label, classname)
            for label, (path, classname) in enumerate(classes.items())
            for number in numbers
        ]
        for part, numbers in ITEMS_OF_CLASS.items()
    }
    random.Random(0).shuffle(split["train"])
    touch(*(root / folder / path for items in split.values() for path, _, _ in items))
    (root / split_file).write_text(json.dumps(split))
    return split


@pytest.mark.parametrize("name", SPLIT_SETS)
def test_a_split_file_is_read_as_it_stands(name, tmp_path):
    folder, _, prompt, classes = SPLIT_SETS[name]
    split = lay_out_split(name, tmp_path)
    dataset = load(name, tmp_path)
    assert dataset.classnames == list(classes.values())
    assert dataset.prompt_template.format(dataset.classnames[2].replace("_", " ")) == prompt
    for part, items in zip(split, (dataset.train_x, dataset.val, dataset.test)):
        assert shown(items, tmp_path / folder) == split[part]


@pytest.mark.parametrize("name", SPLIT_SETS)
def test_few_shots_and_base_classes_of_a_split_file(name, tmp_path):
    folder = tmp_path / SPLIT_SETS[name][0]
    split, rng = lay_out_split(name, tmp_path), random.Random(3)
    train, val = (draw_by_the_rule(split[part], 2, rng) for part in ("train", "val"))
    dataset = load(name, tmp_path, shots=2, seed=3)
    assert shown(dataset.train_x, folder) == train
    assert shown(dataset.val, folder) == shown(dataset.selection, folder) == val
    assert shown(dataset.test, folder) == split["test"]
    base, new = (load(name, tmp_path, shots=2, seed=3, subset=subset) for subset in ("base", "new"))
    assert (base.classnames, new.classnames) == (dataset.classnames[:2], dataset.classnames[2:])
    assert shown(base.train_x, folder) == [item for item in train if item[1] < 2]
    assert shown(new.test, folder) == [(path, 0, classname) for path, label, classname in split["test"] if label == 2]


def test_a_small_copy_does_not_pass_the_check(tmp_path, capsys):
    lay_out_split("oxford_pets", tmp_path)
    assert prepare.main(["oxford_pets", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "the split has 3 classes, expected 37" in out
    assert "expected train 2,944, val 736, test 3,669" in out
    assert "split_zhou_OxfordPets.json is not a known copy of the papers' split" in out


def test_missing_images_come_with_the_steps(tmp_path):
    lay_out_split("stanford_cars", tmp_path)
    (tmp_path / "stanford_cars" / "cars_test" / "29.jpg").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks 1 image\(s\).*cars_test/29.jpg. Correct --root(.|\n)*1. the pub"
    ):
        load("stanford_cars", tmp_path)


# FGVC-Aircraft


@pytest.fixture
def aircraft(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    lists = {
        "train": ["1025794 Spitfire", "0049134 707-320", "1340192 F/A-18", "0056978 707-320", "2000000 Cessna 208"],
        "val": ["0000001 Cessna 208"],
        "test": ["0000004 F/A-18", "0000003 Spitfire", "0000002 707-320"],
    }
    touch(*(folder / "images" / f"{line[:7]}.jpg" for lines in lists.values() for line in lines))
    (folder / "variants.txt").write_text("707-320\nSpitfire\nCessna 208\nF/A-18\n")
    for part, lines in lists.items():
        (folder / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_aircraft_are_read_from_the_publishers_lists(aircraft):
    dataset = load("fgvc_aircraft", aircraft.parent)
    assert dataset.classnames == ["707-320", "Spitfire", "Cessna 208", "F/A-18"]
    assert shown(dataset.train_x, aircraft / "images") == [
        ("1025794.jpg", 1, "Spitfire"),
        ("0049134.jpg", 0, "707-320"),
        ("1340192.jpg", 3, "F/A-18"),
        ("0056978.jpg", 0, "707-320"),
        ("2000000.jpg", 2, "Cessna 208"),
    ]
    assert shown(dataset.val, aircraft / "images") == [("0000001.jpg", 2, "Cessna 208")]
    assert [item.label for item in dataset.test] == [3, 1, 0]
    assert dataset.prompt_template.format("F/A-18") == "a photo of a F/A-18, a type of aircraft."
    assert load("fgvc_aircraft", aircraft.parent, subset="new").classnames == ["Cessna 208", "F/A-18"]
    few = load("fgvc_aircraft", aircraft.parent, shots=1, seed=2)
    drawn = draw_by_the_rule(shown(dataset.train_x, aircraft / "images"), 1, random.Random(2))
    assert shown(few.train_x, aircraft / "images") == drawn


def test_an_unknown_variant_and_a_missing_list_of_aircraft_are_named(aircraft):
    val = aircraft / "images_variant_val.txt"
    val.write_text("0000001 Concorde\n")
    with pytest.raises(ValueError, match=f"{val} has the line '0000001 Concorde', expected .* one of variants.txt"):
        load("fgvc_aircraft", aircraft.parent)
    val.unlink()
    with pytest.raises(FileNotFoundError, match=f"{val} is missing, .*by hand(.|\n)*fgvc-aircraft-2013b.tar.gz"):
        load("fgvc_aircraft", aircraft.parent)


# ImageNet and its shifted versions

NAMES = "tench,great white shark,cock,ostrich,bald eagle,bullfrog,black swan,tusker,bison,gown,puck,shield".split(",")
FOLDERS = [f"n{number:08d}" for number in range(1440764, 1440764 + 11 * 12, 11)]


def lay_out_imagenet(images, *, folders=FOLDERS, files=("b.JPEG", "a.JPEG")):
    """Writes class folders with images, and classnames.txt into the data set's folder above them."""
    touch(*(images / folder / f"{folder}_{file}" for folder in reversed(folders) for file in files))
    dataset_dir = next(path for path in images.parents if path.name.startswith("imagenet") and path.name != "images")
    lines = [f"{folder} {name}\n" for folder, name in zip(FOLDERS, NAMES)]
    (dataset_dir / "classnames.txt").write_text("".join(lines))
    return dataset_dir


def all_items(folders=FOLDERS, names=NAMES, files=("a.JPEG", "b.JPEG")):
    return [
        (f"{folder}/{folder}_{file}", label, name)
        for label, (folder, name) in enumerate(zip(folders, names))
        for file in files
    ]


@pytest.fixture
def imagenet(tmp_path):
    train, val = (tmp_path / "imagenet" / "images" / part for part in ("train", "val"))
    lay_out_imagenet(train, files=("c.JPEG", "b.JPEG", "d.JPEG", "a.JPEG"))
    lay_out_imagenet(val)
    touch(train / FOLDERS[0] / ".hidden.txt", train / FOLDERS[0] / "Thumbs.db", train / "README.txt")
    return tmp_path / "imagenet"


def test_imagenet_is_listed_by_folder_and_file_name(imagenet):
    dataset = load("imagenet", imagenet.parent)
    train = all_items(files=("a.JPEG", "b.JPEG", "c.JPEG", "d.JPEG"))
    assert dataset.classnames == NAMES
    assert shown(dataset.train_x, imagenet / "images" / "train") == train
    assert shown(dataset.test, imagenet / "images" / "val") == all_items()
    few = load("imagenet", imagenet.parent, shots=2, seed=1)
    drawn = draw_by_the_rule(train, 2, random.Random(1))
    assert shown(few.train_x, imagenet / "images" / "train") == drawn
    assert few.val == few.test == dataset.test
    chosen_on = {item.impath for item in few.selection}
    assert len(chosen_on) == 2 * 12 and not chosen_on & {item.impath for item in [*few.train_x, *few.test]}
    new = load("imagenet", imagenet.parent, shots=2, subset="new")
    assert (new.classnames, len(new.test)) == (NAMES[6:], 12)


def test_the_items_of_imagenetv2_are_numbered_by_label(tmp_path):
    images = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    touch(*(images / str(label) / f"{file}.jpeg" for label in range(12) for file in "ba"))
    lay_out_imagenet(images, folders=())
    dataset = load("imagenetv2", tmp_path, shots=16)
    assert dataset.classnames == NAMES
    expected = [(f"{label}/{file}.jpeg", label, name) for label, name in enumerate(NAMES) for file in "ab"]
    assert shown(dataset.test, images) == expected


def test_imagenet_sketch_has_the_classes_of_imagenet(tmp_path):
    images = tmp_path / "imagenet-sketch" / "images"
    lay_out_imagenet(images)
    dataset = load("imagenet_sketch", tmp_path, shots=16)
    assert (dataset.classnames, dataset.source_labels) == (NAMES, None)
    assert shown(dataset.test, images) == all_items()


@pytest.mark.parametrize(
    ("dataset", "images"),
    [(ImageNetA, "imagenet-adversarial/imagenet-a"), (ImageNetR, "imagenet-rendition/imagenet-r")],
)
def test_a_part_of_imagenets_classes_knows_their_labels_there(dataset, images, tmp_path, monkeypatch):
    labels = (1, 2, 5, 10, 11)
    folders, names = [FOLDERS[label] for label in labels], [NAMES[label] for label in labels]
    lay_out_imagenet(tmp_path / images, folders=folders, files=("b.jpg", "a.jpg"))
    touch(tmp_path / images / "README.txt")
    with pytest.raises(ValueError, match=f"{images} holds 5 of ImageNet's class folders, expected 200. Correct --root"):
        load(dataset.__name__, tmp_path)
    monkeypatch.setattr(dataset, "n_classes", 5)
    loaded = load(dataset.__name__, tmp_path, shots=16)
    assert (loaded.classnames, loaded.source_labels) == (names, labels)
    assert shown(loaded.test, tmp_path / images) == all_items(folders, names, ("a.jpg", "b.jpg"))
    assert load(dataset.__name__, tmp_path, subset="base").source_labels == (1, 2, 5)
    assert load(dataset.__name__, tmp_path, subset="new").source_labels == (10, 11)
    (tmp_path / images / "n99999999").mkdir()
    with pytest.raises(ValueError, match=r"n99999999 is a folder of no class in classnames.txt \(1 such\), expected"):
        load(dataset.__name__, tmp_path)


@pytest.mark.parametrize("name", TEST_ONLY)
def test_a_set_to_test_on_has_nothing_to_train_or_choose_on(name, tmp_path, monkeypatch):
    images = tmp_path / check.find_dataset(name).dataset_dir / check.find_dataset(name).image_dir
    folders = [str(label) for label in range(12)] if name == "imagenetv2" else FOLDERS
    lay_out_imagenet(images, folders=folders)
    monkeypatch.setattr(check.find_dataset(name), "n_classes", 12)
    dataset = load(name, tmp_path, shots=16)
    assert (dataset.train_x, dataset.val, dataset.selection, len(dataset.test)) == ([], [], [], 24)
    assert dataset.prompt_template == "a photo of a {}."


def test_an_incomplete_imagenet_says_what_is_missing(tmp_path):
    folders = [f"n{number:08d}" for number in range(1000)]
    images = tmp_path / "imagenet-sketch" / "images"
    for folder in folders[:500] + folders[509:]:
        (images / folder).mkdir(parents=True)
    classnames = tmp_path / "imagenet-sketch" / "classnames.txt"
    with pytest.raises(FileNotFoundError, match=f"{classnames} is missing, .*by hand(.|\n)*as classnames.txt"):
        load("imagenet_sketch", tmp_path)
    classnames.write_text("".join(f"{folder} thing {folder}\n" for folder in folders))
    first = ", ".join(folders[500:505])
    with pytest.raises(
        ValueError, match=f"holds 991 of 1000 class folders, expected all; missing: {first} and 4 more. Correct"
    ):
        load("imagenet_sketch", tmp_path)


def test_a_class_of_imagenet_without_images_is_named(imagenet):
    empty = imagenet / "images" / "val" / FOLDERS[3]
    for path in list(empty.iterdir()):
        path.unlink()
    with pytest.raises(ValueError, match=f"{empty}.* holds no images, expected some in every class folder. Correct"):
        load("imagenet", imagenet.parent)


@pytest.mark.parametrize("line", ["n01440797", f"{FOLDERS[0]} trout"])
def test_a_wrong_line_of_classnames_is_named(imagenet, line):
    path = imagenet / "classnames.txt"
    path.write_text(f"{FOLDERS[0]} tench\n\n{line}\n")
    with pytest.raises(
        ValueError, match=f"{path}, line 3 is '{line}', expected `FOLDER CLASS NAME`, .*anew: save http"
    ):
        load("imagenet", imagenet.parent)


# What the page and the commands say


def rows(heading, n_columns):
    """The cells of the rows of DATASETS.md's table with this heading, by config name."""
    lines = PAGE.split(heading)[1].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")]
    assert all(len(row) == n_columns for row in cells)
    return {row[0].strip("`"): row[1:] for row in cells}


FACTS = rows("| `NAME` | folder, images |", 7)
BY_HAND = rows("| `NAME` | images from |", 4)


def numbers(cell):
    return tuple(0 if word == "-" else int(word.replace(",", "")) for word in re.findall(r"[\d,]+|-", cell))


@pytest.mark.parametrize("name", [name for name in FACTS if name != "folder"])
def test_the_page_and_the_classes_state_the_same_facts(name):
    folders, split, n_classes, n_items, halves, prompt = FACTS[name]
    dataset = check.find_dataset(name)
    expected_folders = [f"{folder}/" for folder in (dataset.dataset_dir, dataset.image_dir) if folder]
    assert re.findall("`(.+?)`", folders) == expected_folders
    assert dataset.split_file == ("" if split.startswith("none") else split.strip("`"))
    assert (dataset.n_classes, dataset.n_items) == (numbers(n_classes)[0], numbers(n_items))
    assert dataset.prompt_template == prompt
    if halves != "-":
        n_base = -(-dataset.n_classes // 2)
        classes, _, test = halves.partition("; ")
        assert classes == f"{n_base}-{dataset.n_classes - n_base}"
        assert not test or sum(int(n.replace(",", "")) for n in test.split("-")) == dataset.n_items[2]


def test_the_page_has_every_data_set_of_the_papers():
    assert set(PAPER_SETS) | {"caltech101"} <= set(FACTS)
    assert set(BY_HAND) == set(PAPER_SETS)


@pytest.mark.parametrize("name", PAPER_SETS)
def test_preparing_says_what_to_do_by_hand(name, tmp_path, capsys):
    assert prepare.main([name, "--root", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    dataset = check.find_dataset(name)
    assert f"{tmp_path / dataset.dataset_dir}" in message and f"in {dataset.dataset_dir}/ under it:\n  1. " in message
    source, layout, beside = BY_HAND[name]
    steps = re.sub(r"\s+", " ", message.split("under it:")[1])
    assert "classnames.txt" in steps if "classnames" in beside else dataset.split_file in steps
    links = set(re.findall(r"https://\S+?(?=[,;)\s]|$)", steps))
    page = " ".join(BY_HAND[name]) + PAGE.split("## Laid out by hand")[1].split("\n\n")[1]
    page += next(line for line in PAGE.splitlines() if line.startswith("[classnames.txt]:"))
    assert links and all(link in page for link in links)
    for place in re.findall("`(.+?)`", layout):
        if place.endswith(("/*.jpg", "/*.JPEG")):
            assert place in steps


# The real split files


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["oxford_pets", "oxford_flowers", "dtd"])
def test_the_real_split_files_are_the_papers(name, tmp_path):
    folder, split_file, *_ = SPLIT_SETS[name]
    given = Path(os.environ.get("COOP_DATA", ""), "splits", Path(split_file).name)
    if not os.environ.get("COOP_DATA") or not given.is_file():
        pytest.skip(f"COOP_DATA does not name a folder with splits/{given.name}")
    split = json.loads(given.read_text())
    touch(*(tmp_path / folder / path for items in split.values() for path, _, _ in items))
    shutil.copy(given, tmp_path / split_file)
    dataset = check.find_dataset(name)
    assert dataset.check(tmp_path).ok, str(dataset.check(tmp_path))
    (tmp_path / split_file).write_text(json.dumps(split, indent=2))  # other bytes, the same items
    assert dataset.check(tmp_path).ok
    halves, n_test = (cell.split("-") for cell in FACTS[name][4].split("; "))
    for subset, n_classes, n_images in zip(("base", "new"), halves, n_test):
        loaded = load(name, tmp_path, shots=16, subset=subset)
        assert (loaded.num_classes, len(loaded.test)) == (int(n_classes), int(n_images.replace(",", "")))
    few = load(name, tmp_path, shots=16, seed=2)
    rng = random.Random(2)
    drawn = [draw_by_the_rule([tuple(x) for x in split[part]], n, rng) for part, n in (("train", 16), ("val", 4))]
    assert [shown(items, tmp_path / folder) for items in (few.train_x, few.val)] == drawn
