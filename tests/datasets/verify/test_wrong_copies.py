"""Folders laid out a little wrong: the message has the command that puts them right, and it does."""

import re
import subprocess

import pytest

from datasets import prepare
from datasets.verify.wrong_copies import how_to_move
from engine import get_cfg_default
from tests.support.small_copies import small_copy, small_web


def load(dataset, root):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT = str(root)
    return dataset(cfg)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Caltech-101's small copy, laid out in a root whose name needs quoting."""
    copy = small_copy("caltech101", monkeypatch)
    copy.lay_out(tmp_path / "my data")
    return copy.dataset


def move(source, target):
    """Moves a folder, also to below itself."""
    aside = source.with_name("aside")
    source.rename(aside)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(target)


def follow(text):
    """Runs the command that a message says; some versions of mv fail where -n keeps a file."""
    subprocess.run(["bash", "-c", re.search("`(.*)`", text)[1]], check=False)


def hint(dataset, root):
    """Returns the message of a missing folder or, where all folders are there, that of missing images."""
    folder = root / dataset.dataset_dir
    images = folder / dataset.image_dir
    if not images.exists():
        return how_to_move(dataset, images)
    return how_to_move(dataset, images / "airplanes" / "image_0001.jpg", images)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("caltech-101", "caltech-101/caltech-101"),
        ("caltech-101", "caltech-101/Caltech 101/data"),
        ("caltech-101/101_ObjectCategories", "caltech-101/101_ObjectCategories/101_ObjectCategories"),
        ("caltech-101/101_ObjectCategories", "caltech-101/archive/101_ObjectCategories"),
        ("caltech-101/101_ObjectCategories/airplanes", "caltech-101/101_ObjectCategories/airplanes/airplanes"),
        ("caltech-101", "Caltech101"),
        ("caltech-101", "caltech_101"),
    ],
)
def test_folders_too_deep_or_of_another_name_are_moved(dataset, tmp_path, source, target):
    root = tmp_path / "my data"
    move(root / source, root / target)
    with pytest.raises((FileNotFoundError, ValueError)):
        load(dataset, root)
    text = hint(dataset, root)
    assert str(root / target) in text
    follow(text)
    assert load(dataset, root).num_classes == 3


def test_images_unpacked_into_the_root_are_moved(dataset, tmp_path):
    root = tmp_path / "my data"
    move(root / "caltech-101" / "101_ObjectCategories", root / "101_ObjectCategories")
    move(root / "caltech-101", tmp_path / "elsewhere")
    text = hint(dataset, root)
    assert text.startswith(f"If {root}/101_ObjectCategories is it, run `mkdir ")
    follow(text)
    assert (root / "caltech-101" / "101_ObjectCategories" / "Faces").is_dir()


def test_a_root_that_is_the_data_sets_folder_is_named(dataset, tmp_path):
    root = tmp_path / "my data"
    text = hint(dataset, root / "caltech-101")
    assert text == f"The root is caltech-101 itself: pass the folder that holds it, --root '{root}'."


def test_a_root_in_the_data_sets_folder_or_above_the_right_one_is_named(dataset, tmp_path):
    root = tmp_path / "my data"
    text = hint(dataset, root / "caltech-101" / "101_ObjectCategories")
    assert text == f"The root is in caltech-101: pass the folder that holds it, --root '{root}'."
    assert hint(dataset, tmp_path) == f"It lies a level deeper: pass --root '{root}'."


def test_imagenet_as_unpacked_from_a_competitions_archive_is_moved(tmp_path, monkeypatch):
    copy = small_copy("imagenet", monkeypatch)
    images = copy.lay_out(tmp_path) / "images"
    move(images, tmp_path / "imagenet" / "ILSVRC" / "Data" / "CLS-LOC")
    text = how_to_move(copy.dataset, images / "train")
    assert text.startswith(f"It lies at {tmp_path}/imagenet/ILSVRC/Data/CLS-LOC/train: run `mkdir -p {images} && mv ")
    follow(text)
    assert load(copy.dataset, tmp_path).num_classes == 5


def test_imagenet_as_torchvision_keeps_it_is_put_right_by_what_is_said(tmp_path, monkeypatch, capsys):
    """train/ and val/ without images/ around them and without classnames.txt, and the root too deep."""
    copy = small_copy("imagenet", monkeypatch)
    folder = copy.lay_out(tmp_path / "data")
    for split in ("train", "val"):
        move(folder / "images" / split, folder / split)
    (folder / "images").rmdir()
    (folder / "classnames.txt").unlink()
    assert prepare.main(["imagenet", "--root", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.endswith(f"The root is imagenet itself: pass the folder that holds it, --root {tmp_path}/data.\n")
    for split in ("train", "val"):
        assert prepare.main(["imagenet", "--root", str(tmp_path / "data")]) == 1
        error = capsys.readouterr().err
        assert f"none are fetched. It lies at {folder}/{split}: run `" in error
        follow(error)
    with pytest.raises(FileNotFoundError, match=r"classnames.txt is missing, .* Run `python -m datasets.prepare Image"):
        load(copy.dataset, tmp_path / "data")
    with small_web(tmp_path / "web", monkeypatch) as web:
        web.publish(copy)
        assert prepare.main(["imagenet", "--root", str(tmp_path / "data")]) == 0
    assert load(copy.dataset, tmp_path / "data").num_classes == 5


def test_what_is_there_is_not_moved_over(dataset, tmp_path):
    images = tmp_path / "my data" / "caltech-101" / "101_ObjectCategories"
    older = images.with_name("older") / "airplanes"
    older.mkdir(parents=True)
    (images / "airplanes" / "image_0001.jpg").rename(older / "image_0001.jpg")
    kept = (images / "airplanes" / "image_0002.jpg").read_bytes()
    (older / "image_0002.jpg").write_bytes(b"another")
    follow(hint(dataset, tmp_path / "my data"))
    assert load(dataset, tmp_path / "my data").num_classes == 3
    assert (images / "airplanes" / "image_0002.jpg").read_bytes() == kept


def test_what_lies_a_level_too_high_is_moved_alone(tmp_path, monkeypatch):
    copy = small_copy("imagenet", monkeypatch)
    folder = copy.lay_out(tmp_path)
    (folder / "images" / "train").rename(folder / "train")
    text = how_to_move(copy.dataset, folder / "images" / "train")
    assert text == f"It lies at {folder}/train: run `mv -n {folder}/train {folder}/images/`."


@pytest.mark.parametrize("missing", ["caltech-101/101_ObjectCategories/gone/1.jpg", "caltech-101/gone.json"])
def test_what_is_nowhere_has_no_command(dataset, tmp_path, missing):
    assert how_to_move(dataset, tmp_path / "my data" / missing) == ""
    assert how_to_move(dataset, tmp_path / "no root" / missing) == ""
    assert how_to_move(dataset, tmp_path / "not its folder" / "1.jpg") == ""


def test_an_image_of_the_same_name_in_another_class_is_not_it(dataset, tmp_path):
    images = tmp_path / "my data" / "caltech-101" / "101_ObjectCategories"
    (images / "Faces" / "image_0001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 image\(s\), .*: Faces/image_0001.jpg. Run `python -m"):
        load(dataset, tmp_path / "my data")


@pytest.mark.parametrize("name", ["caltech101", "oxford_pets", "stanford_cars"])
def test_the_check_and_training_say_the_command(tmp_path, monkeypatch, name):
    copy = small_copy(name, monkeypatch)
    images = copy.lay_out(tmp_path) / copy.dataset.image_dir
    deeper = images / "more" / "more"
    for path in sorted(images.iterdir()):
        if not path.name.startswith("split"):
            move(path, deeper / path.name)
    (problem,) = copy.dataset.check(tmp_path).problems
    assert f"lacks 36 image(s), expected every listed file in {images}: " in problem
    with pytest.raises(FileNotFoundError) as refusal:
        load(copy.dataset, tmp_path)
    assert str(refusal.value) == problem
    follow(problem)
    assert load(copy.dataset, tmp_path).num_classes == 3
