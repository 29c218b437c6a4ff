"""Folders laid out a little wrong: the message has the command that puts them right, and it does."""

import re
import subprocess

import pytest

from datasets import prepare
from datasets.base import DataCopy
from tests.support.small_copies import load, small_copy, small_web


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Caltech-101's small copy, laid out in a root whose name needs quoting."""
    small = small_copy("caltech101", monkeypatch)
    small.lay_out(tmp_path / "my data")
    return DataCopy(small.dataset, tmp_path / "my data")


def move(source, target):
    """Moves a folder, also to below itself."""
    elsewhere = source.with_name("elsewhere")
    source.rename(elsewhere)
    target.parent.mkdir(parents=True, exist_ok=True)
    elsewhere.rename(target)


def refused(copy):
    """What the check and training say of a copy, which is the same."""
    (problem,) = copy.dataset.check(copy.root).problems
    with pytest.raises((FileNotFoundError, ValueError)) as refusal:
        load(copy.dataset, copy.root)
    assert str(refusal.value) == problem
    return problem


def follow(text):
    """Runs the command that a message says; some versions of mv fail where -n keeps a file."""
    subprocess.run(["bash", "-c", re.search("`(.*)`", text)[1]], check=False)


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
def test_folders_too_deep_or_of_another_name_are_moved(copy, source, target):
    move(copy.root / source, copy.root / target)
    text = refused(copy)
    assert str(copy.root / target) in text
    follow(text)
    assert load(copy.dataset, copy.root).num_classes == 3


@pytest.mark.parametrize(("below", "where"), [("", "caltech-101 itself"), ("101_ObjectCategories", "in caltech-101")])
def test_a_root_that_is_or_is_in_the_data_sets_folder_is_named(copy, below, where):
    text = refused(DataCopy(copy.dataset, copy.folder / below))
    assert text.endswith(f" The root is {where}: pass the folder that holds it as DATA or --root '{copy.root}'.")


def test_imagenet_as_torchvision_keeps_it_is_put_right_by_what_is_said(tmp_path, monkeypatch, capsys):
    """train/ and val/ without images/ around them and without classnames.txt, and the root too deep."""
    small = small_copy("imagenet", monkeypatch)
    folder = small.lay_out(tmp_path / "data")
    for split in ("train", "val"):
        move(folder / "images" / split, folder / split)
    (folder / "images").rmdir()
    (folder / "classnames.txt").unlink()
    assert prepare.main(["imagenet", "--root", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.endswith(
        f"The root is imagenet itself: pass the folder that holds it as DATA or --root {tmp_path}/data.\n"
    )
    for split in ("train", "val"):  # moved alone: images/ is beside them
        assert prepare.main(["imagenet", "--root", str(tmp_path / "data")]) == 1
        error = capsys.readouterr().err
        assert f"none are fetched. It lies at {folder}/{split}: run `" in error
        assert f"mv -n {folder}/{split} {folder}/images/`." in error
        follow(error)
    with pytest.raises(FileNotFoundError, match=r"classnames.txt is missing; .* Run `python -m datasets.prepare Image"):
        load(small.dataset, tmp_path / "data")
    with small_web(tmp_path / "web", monkeypatch) as web:
        web.publish(small)
        assert prepare.main(["imagenet", "--root", str(tmp_path / "data")]) == 0
    assert load(small.dataset, tmp_path / "data").num_classes == 5


def test_what_is_there_is_not_moved_over(copy):
    older = copy.folder / "older" / "airplanes"
    older.mkdir(parents=True)
    (copy.images / "airplanes" / "image_0001.jpg").rename(older / "image_0001.jpg")
    kept = (copy.images / "airplanes" / "image_0002.jpg").read_bytes()
    (older / "image_0002.jpg").write_bytes(b"another")
    follow(refused(copy))
    assert load(copy.dataset, copy.root).num_classes == 3
    assert (copy.images / "airplanes" / "image_0002.jpg").read_bytes() == kept


def test_an_image_of_the_same_name_in_another_class_is_not_it(copy):
    (copy.images / "Faces" / "image_0001.jpg").unlink()
    assert "lacks 1 image(s) in " in (text := refused(copy)) and ": Faces/image_0001.jpg. Run `python -m" in text


@pytest.mark.parametrize("name", ["oxford_pets", "stanford_cars"])
def test_images_two_levels_too_deep_are_moved(tmp_path, monkeypatch, name):
    small = small_copy(name, monkeypatch)
    images = small.lay_out(tmp_path) / small.dataset.image_dir
    for path in sorted(images.iterdir()):
        if not path.name.startswith("split"):
            move(path, images / "more" / "more" / path.name)
    text = refused(DataCopy(small.dataset, tmp_path))
    assert f"lacks 36 image(s) in {images}: " in text
    follow(text)
    assert load(small.dataset, tmp_path).num_classes == 3
