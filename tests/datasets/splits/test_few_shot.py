"""The few-shot draw, base and new classes, splits of our own, split files: pure functions."""

import json
import random
from pathlib import Path

import pytest

from datasets.base import draw_few_shots, draw_split, read_split, subsample_classes, write_split
from engine import Datum
from engine.data.datum import items_digest

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "fewshot.json").read_text())


def golden_items(prefix):
    items = [
        Datum(f"{prefix}/{label}/{i}", label, classname=str(label))
        for label, size in enumerate(GOLDEN["class_sizes"])
        for i in range(size)
    ]
    random.Random(5).shuffle(items)
    return items


@pytest.mark.parametrize("pick", GOLDEN["picks"], ids=lambda pick: f"seed{pick['seed']}-shots{pick['shots']}")
def test_few_shot_draw_equals_the_original(pick):
    train, val = draw_few_shots(golden_items("train"), golden_items("val"), shots=pick["shots"], seed=pick["seed"])
    assert [item.impath for item in train] == pick["train"]
    assert [item.impath for item in val] == pick["val"]


def test_minus_one_shot_takes_everything():
    train, val = golden_items("train"), golden_items("val")
    assert draw_few_shots(train, val, shots=-1, seed=1) == (train, val)


@pytest.mark.parametrize("shots", [0, -2])
def test_other_numbers_of_shots_are_refused(shots):
    with pytest.raises(ValueError, match=f"DATASET.NUM_SHOTS is {shots}; it must be 1 or more, or -1"):
        draw_few_shots([], [], shots=shots, seed=1)


def labelled(*labels):
    return [Datum(f"{i}.jpg", label, classname=f"class {label}") for i, label in enumerate(labels)]


def test_base_and_new_classes_are_the_halves_of_the_sorted_labels_numbered_from_0():
    train, test = labelled(4, 0, 2, 1, 3, 0), labelled(3, 3, 2)
    base_train, base_test = subsample_classes(train, test, subset="base")
    new_train, new_test = subsample_classes(train, test, subset="new")
    assert [(x.label, x.classname) for x in base_train] == [
        (0, "class 0"),
        (2, "class 2"),
        (1, "class 1"),
        (0, "class 0"),
    ]
    assert [(x.label, x.classname) for x in new_train] == [(1, "class 4"), (0, "class 3")]
    assert [x.label for x in base_test] == [2]
    assert [x.label for x in new_test] == [0, 0]
    assert subsample_classes(train, test, subset="all") == [train, test]


def test_another_subset_is_refused():
    with pytest.raises(ValueError, match="DATASET.SUBSAMPLE_CLASSES is 'old'; choose all, base or new"):
        subsample_classes([], subset="old")


@pytest.mark.parametrize(
    ("n", "parts"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (2, 0, 1)), (5, (3, 1, 1)), (10, (5, 2, 3)), (100, (50, 20, 30))],
)
def test_a_drawn_split_halves_each_class_and_keeps_a_fifth_for_val(n, parts):
    items = labelled(*[0] * n, *[1] * 10)
    splits = draw_split(items, seed=1)
    assert tuple(sum(x.label == 0 for x in split) for split in splits) == parts
    assert sorted(x.impath for split in splits for x in split) == sorted(x.impath for x in items)
    assert splits == draw_split(items, seed=1)
    assert n < 10 or splits != draw_split(items, seed=2)


def test_a_split_file_is_read_as_written(tmp_path):
    images = tmp_path / "images"
    splits = [[Datum(str(images / name / "1.jpg"), 3, classname=f"a {name}")] for name in ("x", "y/z", "w")]
    write_split(tmp_path / "split.json", images, *splits)
    assert list(read_split(tmp_path / "split.json", images)) == splits
    assert json.loads((tmp_path / "split.json").read_text())["val"] == [["y/z/1.jpg", 3, "a y/z"]]
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def test_the_digest_of_items_does_not_depend_on_the_layout_of_the_file_or_the_folder_of_the_images(tmp_path):
    content = {"train": [["a/1.jpg", 0, "a"], ["b/1.jpg", 1, "b"]], "val": [], "test": [["a/2.jpg", 0, "a"]]}
    digests = []
    for i, indent in enumerate((None, 4)):
        (tmp_path / "split.json").write_text(json.dumps(content, indent=indent))
        digests.append(items_digest(tmp_path / str(i), *read_split(tmp_path / "split.json", tmp_path / str(i))))
    content["train"].reverse()
    (tmp_path / "split.json").write_text(json.dumps(content))
    assert digests[0] == digests[1] != items_digest(tmp_path, *read_split(tmp_path / "split.json", tmp_path))
