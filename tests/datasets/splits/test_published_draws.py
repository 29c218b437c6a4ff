"""Draws of other code: the items that they name are found by the end of their paths, or the draw is refused."""

import json

import pytest

from datasets.splits.datum_pickle import LARGEST, read_datum_pickle
from datasets.splits.fewshot_file import read_fewshot
from engine import Datum
from tests.datasets.splits.test_real_splits import draw_by_the_rule
from tests.support.original_draws import pickle_draw
from tests.support.small_copies import load, shown, small_copy

NAMES = ("sofa bed", "été_bleu")
HOMES = {  # how paths begin, and what separates their parts
    "absolute": "/home/somebody/data/set/images/{}",
    "relative": "./data/images/{}",
    "the folder of the images": "{}",
    "Windows": "C:\\data\\images\\{}",
}


def as_json(draw):
    rows = {
        split: {"data": [dict(zip(("impath", "label", "classname"), row)) for row in listed], "indices": [0]}
        for split, listed in draw.items()
    }
    return json.dumps(rows, indent=4).encode()


def as_lines(draw):
    keys = ("_impath", "_label", "_classname", "_domain", "split")
    rows = [dict(zip(keys, (*row, 0, split))) for split, listed in draw.items() for row in listed]
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


FORMS = {"JSON": as_json, "lines": as_lines, "pickle": lambda draw: pickle_draw(draw)[0]}


@pytest.fixture
def images(tmp_path):
    return tmp_path / "set" / "images"


@pytest.fixture
def items(images):
    """Items to train on and for val; two folders have images of one name, and one of these is below another."""
    paths = {"train": [("a/1.jpg", 0), ("a/2.jpg", 0), ("b/1.jpg", 1), ("c/b/1.jpg", 0)], "val": [("b/7.jpg", 1)]}
    return {
        split: [Datum(str(images / path), label, classname=NAMES[label]) for path, label in listed]
        for split, listed in paths.items()
    }


def draw_of(rows, home="/data/images/{}"):
    """Rows of split -> [(path, label, class name)] as another machine has them."""
    change = (lambda path: path.replace("/", "\\")) if "\\" in home else str
    return {split: [(home.format(change(path)), *facts) for path, *facts in listed] for split, listed in rows.items()}


ROWS = {"train": [("c/b/1.jpg", 0, NAMES[0]), ("b/1.jpg", 1, NAMES[1])], "val": [("b/7.jpg", 1, NAMES[1])]}


@pytest.fixture
def read(tmp_path, images, items):
    """Reads a draw, of a form or as bytes, from a file whose name says nothing."""

    def read(draw, form="JSON", **options):
        path = tmp_path / "draw"
        path.write_bytes(draw if isinstance(draw, bytes) else FORMS[form](draw))
        return read_fewshot(path, images, items["train"], items["val"], **options)

    return read


@pytest.mark.parametrize("home", HOMES.values(), ids=HOMES)
@pytest.mark.parametrize("form", FORMS)
def test_the_items_are_those_of_this_machine_in_the_draws_order(read, items, form, home):
    train = items["train"]
    assert read(draw_of(ROWS, home), form, shots=1) == ([train[3], train[2]], items["val"])


@pytest.mark.parametrize("module", ["dassl.data.datasets.base_dataset", "dassl.data.datasets"])
def test_pickles_of_the_protocols_that_the_original_has_used(read, items, module):
    """Thousands of items, since pickle then changes to other opcodes."""
    rows = {"train": draw_of(ROWS)["train"], "val": [(f"/x/{i}.jpg", 70_000 - i, f"name {i}") for i in range(2_500)]}
    for data in pickle_draw(rows, (2, 3, 4, 5), module):
        found = read_datum_pickle(data)
        assert {
            split: [tuple(record.fields[f"_{name}"] for name in ("impath", "label", "classname")) for record in records]
            for split, records in found.items()
        } == rows


def test_lines_without_a_split_and_draws_without_val_are_to_train_on(read, items):
    rows = [dict(zip(("_impath", "_label", "_classname"), row)) for row in draw_of(ROWS)["train"]]
    data = "\n".join(map(json.dumps, rows)).encode()
    assert (
        read(data) == read({"train": draw_of(ROWS)["train"]}, "pickle") == ([items["train"][3], items["train"][2]], [])
    )


def test_the_class_is_the_one_of_the_name_whatever_its_number(read, items):
    rows = {"train": [("b/1.jpg", 7, "ÉTÉ bleu"), ("a/1.jpg", 3, "sofa_bed")], "val": [("b/7.jpg", 7, NAMES[1])]}
    assert read(draw_of(rows)) == ([items["train"][2], items["train"][0]], items["val"])


GOOD = ("a/1.jpg", 0, NAMES[0])
WRONG = {
    "unknown images": (
        {"train": [GOOD, ("a/8.jpg", 0, NAMES[0]), ("9.jpg", 0, NAMES[0])]},
        r"lists 2 training image.s., of 3, whose paths end like no training item in {images}; the first is "
        r"/data/images/a/8.jpg .item 2 of train.\. Give a draw of this data set",
    ),
    "part of a name": ({"train": [("xa/1.jpg", 0, NAMES[0])]}, "lists 1 training image"),
    "the name alone": ({"train": [("1.jpg", 0, NAMES[0])]}, "lists 1 training image"),
    "val to train on": ({"train": [("b/7.jpg", 1, NAMES[1])]}, "end like no training item"),
    "train for val": ({"train": [GOOD], "val": [("a/2.jpg", 0, NAMES[0])]}, "end like no validation item"),
    "another class": (
        {"train": [GOOD, ("a/2.jpg", 1, NAMES[1])]},
        "item 2 of train, gives /data/images/a/2.jpg the class name 'été_bleu'; in this data set it is 'sofa bed'",
    ),
    "one label for two classes": (
        {"train": [GOOD, ("b/1.jpg", 0, NAMES[1])]},
        "item 2 of train, gives the label 0 to the class 'été_bleu', after it was that of 'sofa bed'",
    ),
    "two labels for one class": (
        {"train": [("b/1.jpg", 1, NAMES[1])], "val": [("b/7.jpg", 2, NAMES[1])]},
        "item 1 of val, gives the class 'été_bleu' the label 2, after it had 1 .item 1 of train.",
    ),
    "twice": ({"train": [GOOD, GOOD]}, "lists {images}/a/1.jpg twice, as item 1 of train and as item 2 of train"),
    "nothing to train on": ({"train": [], "val": ROWS["val"]}, "lists no training items"),
    "a label that is a text": ({"train": [("a/1.jpg", "0", NAMES[0])]}, "item 1 of train, ValueError: label is '0'"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("form", ["JSON", "pickle"])
def test_a_wrong_draw_is_refused_with_what_is_wrong(read, images, tmp_path, form, kind):
    rows, message = WRONG[kind]
    with pytest.raises(ValueError, match=f"^{tmp_path / 'draw'}.*{message.replace('{images}', str(images))}"):
        read(draw_of(rows), form)


NOT_OF_THE_FORM = {
    "a split file": (lambda: b'{"train": [["a/1.jpg", 0, "sofa bed"]], "val": [], "test": []}', "list indices"),
    "cut JSON": (lambda: as_json(draw_of(ROWS))[:-40], "Expecting|Unterminated"),
    "a line without a path": (lambda: b'{"_impath": "a/1.jpg"}', "line 1, KeyError: '_label'"),
    "a line for test": (lambda: as_lines({"test": [GOOD]}), "line 1, ValueError: split is 'test', not train or val"),
    "not UTF-8": (lambda: b'{"train": "\xff"}', "utf-8"),
    "protocol 0": (lambda: pickle_draw({"train": [GOOD]}, [0])[0], "it has the opcode DICT"),
    "a cut pickle": (lambda: pickle_draw({"train": [GOOD]})[0][:-30], "not enough data"),
    "a large pickle": (lambda: b"\x80\x04" + b"N" * LARGEST, r"4,194,306 bytes; at most 4,194,304 are read"),
}


@pytest.mark.parametrize("kind", NOT_OF_THE_FORM)
def test_what_is_not_of_its_form_is_refused(read, tmp_path, kind):
    make, message = NOT_OF_THE_FORM[kind]
    says = f"^{tmp_path / 'draw'} begins as .*, but is not readable .*({message}).* Give a draw"
    with pytest.raises(ValueError, match=says):
        read(make())


@pytest.mark.parametrize("name", ["caltech101", "oxford_flowers", "stanford_cars", "sun397", "imagenet"])
def test_a_data_set_of_a_published_draw_is_that_of_the_draw(name, tmp_path, monkeypatch):
    """With ImageNet's as cross-modal adaptation has it, whose val items are training images."""
    copy = small_copy(name, monkeypatch)
    folder = copy.lay_out(tmp_path) / copy.dataset.image_dir
    train, val = draw_by_the_rule(copy.items, shots=2, seed=3)
    if name == "imagenet":
        val = [item for item in copy.items["train"] if item not in train][:4]
    path = tmp_path / "shot_2-seed_3.json"
    path.write_bytes(as_json(draw_of({"train": train, "val": val}, f"./data/{folder.name}/{{}}")))
    dataset = load(name, tmp_path, shots=2, seed=1, fewshot_file=path)
    assert shown(dataset.train_x, folder) == train
    assert shown(dataset.selection, folder) == val
    assert shown(dataset.val, folder) == (copy.items["test"] if name == "imagenet" else val)
