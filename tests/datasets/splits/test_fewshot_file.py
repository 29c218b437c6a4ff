"""Few-shot items as a file: the very items of a draw, read back and trained on; wrong lists are told by the line."""

import json
import random

import pytest

from datasets.folder import Folder
from datasets.prepare import main as prepare
from datasets.splits.fewshot_file import read_fewshot, write_fewshot
from engine import Datum
from tests.support.tiny_run import CLASSES, N_ITEMS, tiny_cfg


@pytest.fixture
def images(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def items(images):
    """Training and val items: three of `a cat` and one of `été` to train on, one of each for val."""
    names = {0: "a cat", 1: "été"}
    paths = {"train": [("a/1.jpg", 0), ("a/2.jpg", 0), ("b c/1.jpg", 1), ("a/3.jpg", 0)]}
    paths["val"] = [("a/8.jpg", 0), ("b c/9.jpg", 1)]
    return tuple(
        [Datum(str(images / path), label, classname=names[label]) for path, label in listed]
        for listed in paths.values()
    )


def line(split="train", impath="a/1.jpg", label=0, classname="a cat"):
    return {"split": split, "impath": impath, "label": label, "classname": classname}


def write(path, *lines):
    path.write_text("".join(f"{json.dumps(content)}\n" for content in lines), encoding="utf-8")
    return path


def test_a_list_is_written_as_documented_and_read_back_in_its_order(tmp_path, images, items):
    (train, val), path = items, tmp_path / "lists" / "few.jsonl"
    write_fewshot(path, images, [train[2], train[0]], [val[1]])
    expected = [line(impath="b c/1.jpg", label=1, classname="été"), line()]
    expected.append(line("val", "b c/9.jpg", 1, "été"))
    text = path.read_text(encoding="utf-8")
    assert [json.loads(row) for row in text.split("\n")[:-1]] == expected
    assert "été" in text and text.endswith("\n")
    assert [path.name for path in path.parent.iterdir()] == ["few.jsonl"]
    assert read_fewshot(path, images, train, val) == ([train[2], train[0]], [val[1]])


def test_other_code_may_write_the_list_in_its_own_way(tmp_path, images, items):
    (train, val), path = items, tmp_path / "few.jsonl"
    rows = [json.dumps({"seed": 1, **line("val", "a/8.jpg")}), "", json.dumps(line(impath="./a//2.jpg")), " "]
    path.write_bytes("\r\n".join(rows).encode())
    assert read_fewshot(path, images, train, val) == ([train[1]], [val[0]])
    write(path, line())
    assert read_fewshot(path, images, train, val) == ([train[0]], [])


WRONG = {
    "no JSON": (b'{"split":', "line 2 is not readable .JSONDecodeError: .* A line is {.split.: .train. or .* Write"),
    "a field is missing": (
        b'{"split": "train", "impath": "a/2.jpg"}',
        "line 2 is not readable .KeyError: 'label'",
    ),
    "label a text": (line(label="0"), "line 2 is not readable .ValueError: label is '0', not a whole"),
    "test": (line("test", "a/2.jpg"), "line 2 is not readable .ValueError: split is 'test'.. A line"),
    "unknown": (line(impath="a/7.jpg"), "line 2 lists .*/images/a/7.jpg, which is no training item of this data set"),
    "val to train on": (line(impath="a/8.jpg"), "line 2 lists .*/a/8.jpg, which is no training item"),
    "train for val": (line("val", "a/2.jpg"), "line 2 lists .*/a/2.jpg, which is no validation item of this data"),
    "label": (
        line(impath="b c/1.jpg", classname="été"),
        "line 2 gives .*1.jpg the label .* .0, 'été'.; in this data set they are .1, ",
    ),
    "class name": (line(impath="a/2.jpg", classname="cat"), "line 2 gives .*name .0, 'cat'.; in .* .0, 'a cat'."),
    "twice": (line(), "line 2 lists .*/a/1.jpg, as .*few.jsonl, line 1 does. Remove one of the lines."),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_line_is_named(tmp_path, images, items, kind):
    content, message = WRONG[kind]
    path = write(tmp_path / "few.jsonl", line())
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(path.read_bytes() + content + b"\n")
    with pytest.raises(ValueError, match=f"{path}, {message}"):
        read_fewshot(path, images, *items)


@pytest.mark.parametrize("lines", [[], [line("val", "a/8.jpg")]])
def test_a_list_without_training_items_is_refused(tmp_path, images, items, lines):
    path = write(tmp_path / "few.jsonl", *lines)
    with pytest.raises(ValueError, match=f"{path} lists no training items. Write the list"):
        read_fewshot(path, images, *items)


def test_a_list_that_is_missing_is_told_with_the_command_that_writes_one(tmp_path, images, items):
    with pytest.raises(FileNotFoundError, match=r"DATASET.FEWSHOT_FILE .*few.jsonl does not exist .*--export-fewshot"):
        read_fewshot(tmp_path / "few.jsonl", images, *items)


def test_the_shots_are_those_of_the_list(tmp_path, images, items):
    train, val = items
    path = tmp_path / "few.jsonl"
    write_fewshot(path, images, train[:3], val)  # two of three, one of one
    for shots in (2, -1):
        assert read_fewshot(path, images, train, val, shots=shots) == (train[:3], val)
    for shots in (1, 3, 16):
        message = f"DATASET.NUM_SHOTS is {shots}, but {path} lists 2 training item.s. of 'a cat'. Give"
        with pytest.raises(ValueError, match=message):
            read_fewshot(path, images, train, val, shots=shots)


def export(data, path, *, shots=2, seed=3):
    draw = ["--shots", str(shots), "--seed", str(seed)]
    assert prepare(["folder", "--root", str(data), "--export-fewshot", str(path), *draw]) == 0
    return path


def test_the_command_writes_the_papers_draw(tiny_files, tmp_path, capsys):
    data, _ = tiny_files
    listed = [json.loads(row) for row in export(data, tmp_path / "few.jsonl").read_text().splitlines()]
    rng, expected = random.Random(3), []
    for split in ("train", "val"):  # both from one rng; 2 shots, and min(2, 4) for val
        for label, name in enumerate(CLASSES):
            paths = [f"{split}/{name}/{i}.png" for i in range(N_ITEMS[split])]
            expected += [line(split, path, label, name) for path in rng.sample(paths, 2)]
    assert listed == expected


@pytest.mark.parametrize("subset", ["all", "base"])
def test_a_data_set_of_the_list_is_that_of_the_draw_whatever_the_seed(tiny_files, tmp_path, subset):
    data, clip_paths = tiny_files
    pairs = ("DATASET.NUM_SHOTS", 2, "DATASET.SUBSAMPLE_CLASSES", subset)
    drawn = Folder(tiny_cfg(data, clip_paths["vit"], tmp_path, *pairs, "SEED", 3))
    listed = ("DATASET.FEWSHOT_FILE", str(export(data, tmp_path / "few.jsonl")))
    assert len(drawn.train_x) == 2 * drawn.num_classes
    for seed in (1, 2):
        dataset = Folder(tiny_cfg(data, clip_paths["vit"], tmp_path, *pairs, *listed, "SEED", seed))
        for name in ("train_x", "val", "test", "selection"):
            assert getattr(dataset, name) == getattr(drawn, name)
