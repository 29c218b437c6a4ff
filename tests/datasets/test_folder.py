"""Any folder of class folders becomes a data set; its split is drawn once and kept."""

import json

import pytest
from PIL import Image

from datasets import check, folder
from datasets.folder import Folder
from engine import get_cfg_default
from tests.support.small_copies import write_files


def fill(root, classes, *, n=10):
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.new("RGB", (8, 8)).save(root / name / f"{i}.png")


def load(root, *, classnames="", seed=1, shots=-1):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.CLASSNAMES, cfg.SEED, cfg.DATASET.NUM_SHOTS = str(root), str(classnames), seed, shots
    return Folder(cfg)


def paths(items, root):
    return [item.impath.removeprefix(f"{root}/") for item in items]


@pytest.mark.parametrize("has_train", [True, False])
def test_train_val_and_test_folders_are_taken_as_they_are(tmp_path, has_train):
    """val is optional; test may have fewer classes, and be there alone."""
    for part, names in (("train", ("red_cup", "Blue bowl", "z")), ("val", ("z",)), ("test", ("red_cup", "Blue bowl"))):
        if has_train or part == "test":
            fill(tmp_path / part, names, n=2)
    dataset = load(tmp_path)
    assert dataset.classnames == ["Blue bowl", "red_cup", "z"][: None if has_train else 2]
    assert paths(dataset.train_x, tmp_path)[1:3] == ["train/Blue bowl/1.png", "train/red_cup/0.png"] * has_train
    assert (len(dataset.train_x), len(dataset.val)) == ((6, 2) if has_train else (0, 0))
    assert [item.label for item in dataset.test] == [0, 0, 1, 1]
    assert "split_folder_seed1.json" not in [path.name for path in tmp_path.iterdir()]


def test_without_train_the_classes_of_test_number_those_of_val(tmp_path):
    fill(tmp_path / "test", ("a", "b"), n=1)
    fill(tmp_path / "val", ("b",), n=1)
    dataset = load(tmp_path)
    assert [(item.label, item.classname) for item in (*dataset.test, *dataset.val)] == [(0, "a"), (1, "b"), (1, "b")]
    fill(tmp_path / "val", ("c",), n=1)
    with pytest.raises(ValueError, match="/val/c is a class that test/ lacks"):
        load(tmp_path)


def test_classes_called_train_and_test_are_classes_where_only_one_is_there(tmp_path):
    fill(tmp_path, ("train", "plane"))
    assert load(tmp_path).classnames == ["plane", "train"]


def test_a_class_with_one_image_is_named_as_not_tested(tmp_path):
    fill(tmp_path, ("a", "b"), n=2)
    assert load(tmp_path).warnings == ()
    (tmp_path / "split_folder_seed1.json").unlink()
    fill(tmp_path, ("c",), n=1)
    dataset = load(tmp_path)
    assert {item.classname for item in dataset.test} == {"a", "b"}
    assert dataset.warnings == ("1 class(es) have no image to test on, so results say nothing of them: c.",)


def test_where_no_class_has_two_images_no_split_is_kept(tmp_path):
    fill(tmp_path, ("a", "b"), n=1)
    with pytest.raises(ValueError, match=f"{tmp_path} holds one image of each class, .* Add images"):
        load(tmp_path)
    fill(tmp_path, ("a", "b"), n=2)
    assert len(load(tmp_path).test) == 2


def test_a_split_is_drawn_once_for_all_seeds(tmp_path):
    fill(tmp_path, ("a", "b"))
    first = load(tmp_path, seed=1)
    assert [len(x) for x in (first.train_x, first.val, first.test)] == [10, 4, 6]
    assert {x.label for x in first.test} == {0, 1}
    kept = json.loads((tmp_path / "split_folder_seed1.json").read_text())
    assert [path for path, _, _ in kept["test"]] == paths(first.test, tmp_path)
    second = load(tmp_path, seed=2)
    assert (first.train_x, first.test) == (second.train_x, second.test)
    few = [load(tmp_path, seed=seed, shots=2) for seed in (1, 2)]
    assert few[0].train_x != few[1].train_x and few[0].test == first.test


def test_a_kept_split_is_used_as_it_stands(tmp_path):
    fill(tmp_path, ("a", "b"))
    first = load(tmp_path)
    split = tmp_path / "split_folder_seed1.json"
    content = json.loads(split.read_text())
    content["train"], content["val"] = content["val"], content["train"]
    split.write_text(json.dumps(content))
    assert load(tmp_path).train_x == first.val
    assert load(tmp_path).warnings == ()
    fill(tmp_path, ("b",), n=12)
    again = load(tmp_path)
    assert again.train_x == first.val
    assert f"{split} does not list 2 image(s) of its folder: delete it" in again.warnings[0]
    missing = tmp_path / content["test"][0][0]
    missing.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"lists 1 image\(s\) that are missing, {missing} first. .*or delete the"
    ):
        load(tmp_path)


def test_no_split_is_kept_that_lists_a_missing_image(tmp_path):
    """Else the first run, with ON_BAD_IMAGE skip, would go on without, and all later ones be refused."""
    fill(tmp_path, ("a", "b"))
    link = tmp_path / "a" / "link.jpg"
    link.symlink_to("nowhere.jpg")
    with pytest.raises(FileNotFoundError) as error:
        load(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} lists 1 image(s) that are missing, {link} first. Put them back, or remove the links to them."
    )
    assert not (tmp_path / "split_folder_seed1.json").exists()
    link.unlink()
    assert load(tmp_path).train_x == load(tmp_path).train_x


def test_a_folder_that_cannot_be_written_to_is_split_the_same_way_each_time(tmp_path, monkeypatch, caplog):
    fill(tmp_path, ("a", "b"))

    def refuse(*args):
        raise PermissionError("read-only")

    monkeypatch.setattr(folder, "write_split", refuse)
    assert load(tmp_path).train_x == load(tmp_path).train_x
    assert f"The split is not kept in {tmp_path}/split_folder_seed1.json (read-only)" in caplog.text
    assert not (tmp_path / "split_folder_seed1.json").exists()


def test_class_names_from_a_file(tmp_path):
    fill(tmp_path / "images", ("n01", "n02"))
    names = tmp_path / "classnames.txt"
    names.write_text("n01 great white shark\n\nn02 crane\nn03 not here\n")
    dataset = load(tmp_path / "images", classnames=names)
    assert dataset.classnames == ["great white shark", "crane"]
    assert "n01" in dataset.train_x[0].impath
    names.write_text("n01 shark\n")
    with pytest.raises(ValueError, match=rf"{names} has no line for the folder n02 \(1 such\)"):
        load(tmp_path / "images", classnames=names)
    names.write_text("n01 shark\nn02 \n")
    with pytest.raises(ValueError, match=f"{names}, line 2 is 'n02 '. Add a class name after the folder"):
        load(tmp_path / "images", classnames=names)
    names.unlink()
    with pytest.raises(FileNotFoundError, match=f"DATASET.CLASSNAMES {names} does not exist .* Name a file with lines"):
        load(tmp_path / "images", classnames=names)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=f"{tmp_path}/nowhere/x is missing; .*{tmp_path} exists. Pass the folder"
    ):
        load(tmp_path / "nowhere" / "x")
    with pytest.raises(ValueError, match="DATASET.ROOT is empty"):
        load("")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["0.png"], "holds no class folders .one of images for each class"),
        (["a/0.png", "b/readme.txt"], r"/b holds no images \(1 class folder\(s\) without any\)"),
        (["train/a/0.png"], " has train/ but no test/. Rename"),
        (["train/a/0.png", "test/a/0.png", "test/c/0.png"], r"/test/c is a class that train/ lacks \(1 such\)"),
        (["train/a/0.png", "test/a/0.png", "val/c/0.png"], r"/val/c is a class that train/ lacks \(1 such\)"),
    ],
)
def test_a_folder_laid_out_otherwise_is_refused(files, message, tmp_path):
    write_files(tmp_path, dict.fromkeys(files, b""))
    with pytest.raises(ValueError, match=f"{tmp_path}.*{message}"):
        load(tmp_path)


def test_a_folder_can_be_checked(tmp_path, capsys):
    fill(tmp_path, ("a", "b"))
    assert check.main(["folder", "--root", str(tmp_path), "--decode"]) == 0
    assert "2 classes; items: train 10, val 4, test 6" in capsys.readouterr().out
    (tmp_path / "a" / "3.png").write_text("no image")
    assert check.main(["folder", "--root", str(tmp_path), "--decode"]) == 1
    assert f"1 image(s) that do not decode in {tmp_path}: a/3.png" in capsys.readouterr().out
