"""Wrong copies are found by the check, and refused with the same words where training starts."""

import json
import re
import shutil

import pytest

from datasets import check, prepare
from datasets.base import draw_split, write_split
from datasets.verify import copy as checks
from engine import get_cfg_default
from tests.support.small_copies import small_copy, small_web


def load(dataset, root, *, subset="all"):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.SUBSAMPLE_CLASSES = str(root), subset
    return dataset(cfg)


@pytest.fixture
def lay_out(tmp_path, monkeypatch):
    """Lays out the small copy of a data set; returns its class and the folder of its images."""

    def lay_out(name="dtd"):
        copy = small_copy(name, monkeypatch)
        return copy.dataset, copy.lay_out(tmp_path) / copy.dataset.image_dir

    return lay_out


def rewrite_split(dataset, root, change):
    """Calls change(content of the split file) and writes what it left."""
    path = root / dataset.dataset_dir / dataset.split_file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def forget_the_papers_items(dataset, monkeypatch):
    """So that what is wrong is found although only the counts are known."""
    monkeypatch.setattr(dataset, "split_sha256", "")
    monkeypatch.setattr(dataset, "split_items_sha256", "")


def problems_of_both(dataset, root, error=ValueError):
    """Returns the check's problems, after training refused with the very same."""
    problems = dataset.check(root).problems
    with pytest.raises(error) as refusal:
        load(dataset, root)
    assert str(refusal.value) == "\n".join(problems)
    return problems


@pytest.mark.parametrize("name", ["caltech101", "oxford_pets", "stanford_cars", "sun397", "fgvc_aircraft", "imagenet"])
def test_a_right_copy_passes_and_trains(lay_out, tmp_path, name):
    dataset, _ = lay_out(name)
    report = dataset.check(tmp_path, decode=True)
    assert report.ok and str(report).startswith(f"{dataset.__name__} in {report.folder}: all is as it should be\n")
    assert load(dataset, tmp_path).num_classes == dataset.n_classes


def test_counts_of_base_and_new_classes_are_noted(lay_out, tmp_path):
    dataset, _ = lay_out("caltech101")
    assert dataset.check(tmp_path).notes == [
        "3 classes; items: train 18, val 9, test 9",
        "test items of the base classes 6, of the new classes 3",
    ]


# Files


def test_a_missing_class_folder_is_named_as_a_whole(lay_out, tmp_path):
    dataset, images = lay_out()
    shutil.rmtree(images / "blotchy")
    (problem,) = problems_of_both(dataset, tmp_path, FileNotFoundError)
    assert problem.startswith(f"DescribableTextures lacks 12 image(s), expected every listed file in {images}: blotchy")
    assert "and 7 more; 1 folder(s) as a whole: blotchy. Run `python -m" in problem
    assert f"datasets.prepare DescribableTextures --root {tmp_path}`, or correct --root" in problem


def test_missing_images_are_counted_and_the_first_five_named(lay_out, tmp_path):
    dataset, images = lay_out("sun397")
    for number in range(1, 8):
        (images / f"a/apartment_building/outdoor/sun_{number}.jpg").unlink()
    (problem,) = problems_of_both(dataset, tmp_path, FileNotFoundError)
    assert "lacks 7 image(s)" in problem and "and 2 more. " in problem and "as a whole" not in problem
    assert problem.count("a/apartment_building/outdoor/sun_") == 5
    assert dataset.check(tmp_path).n_missing == 7


@pytest.mark.parametrize("name", ["dtd", "imagenet"])
def test_empty_images_are_to_be_deleted_and_fetched_anew(lay_out, tmp_path, name):
    dataset, images = lay_out(name)
    image = next(path for path in sorted(images.rglob("*.*")) if path.is_file())
    image.write_bytes(b"")
    (problem,) = problems_of_both(dataset, tmp_path, FileNotFoundError)
    assert problem == (
        f"{dataset.__name__} has 1 image(s) of 0 bytes, expected whole files in {images}: {image.relative_to(images)}. "
        f"Replace them, or delete them, `find {images} -type f -empty -delete`, and run `python -m datasets.prepare "
        f"{dataset.__name__} --root {tmp_path}`."
    )


def test_a_run_asks_only_for_the_images_that_it_reads(lay_out, tmp_path):
    dataset, images = lay_out()
    shutil.rmtree(images / "polka-dotted")
    assert load(dataset, tmp_path, subset="base").num_classes == 2
    with pytest.raises(FileNotFoundError, match=r"lacks 12 image\(s\)"):
        load(dataset, tmp_path, subset="new")


def test_a_long_list_of_the_folders_is_not_looked_at_file_by_file(lay_out, tmp_path, monkeypatch):
    dataset, images = lay_out("imagenet")
    next((images / "train").rglob("*.JPEG")).write_bytes(b"")
    monkeypatch.setattr(checks, "N_QUICK", 20)  # train has 30 items, test 15
    assert load(dataset, tmp_path).num_classes == 5
    assert not dataset.check(tmp_path).ok


def test_broken_images_are_found_where_all_are_decoded(lay_out, tmp_path):
    dataset, images = lay_out("oxford_pets")
    broken = sorted(images.iterdir())[3:10]
    for image in broken:
        image.write_bytes(image.read_bytes()[:300])
    assert dataset.check(tmp_path).ok
    report = dataset.check(tmp_path, decode=True)
    assert report.problems[0].startswith(
        f"OxfordPets has 7 image(s) that do not decode, expected whole ones in {images}: {broken[0].name}, "
    )
    assert (
        "and 2 more. Replace them, or delete them and run `python -m datasets.prepare OxfordPets" in report.problems[0]
    )
    assert "36 image(s) were decoded" in report.notes


@pytest.mark.parametrize(("name", "folder"), [("dtd", "stripes"), ("oxford_pets", "more"), ("sun397", "b/bakery/shop")])
def test_an_extra_folder_is_told_and_changes_no_run(lay_out, tmp_path, name, folder):
    dataset, images = lay_out(name)
    (images / folder).mkdir(parents=True)
    (images / folder / "._1.jpg").touch()  # of macOS
    assert dataset.check(tmp_path).ok  # without images it is no class
    shutil.copy(next(images.rglob("*.jpg")), images / folder / "1.jpg")
    if name == "sun397":
        shutil.copy(images / folder / "1.jpg", images / "b" / "1.jpg")
    (problem,) = dataset.check(tmp_path).problems
    assert "folder(s) of images that are not listed, expected those of the classes alone: " in problem
    assert folder.partition("/")[0] in problem and "move them away" in problem
    assert load(dataset, tmp_path).num_classes == 3


def test_folders_known_to_be_no_classes_are_no_extra_ones(lay_out, tmp_path):
    dataset, images = lay_out("caltech101")
    for folder in ("BACKGROUND_Google", ".cache", "__MACOSX"):
        shutil.copytree(images / "accordion", images / folder)
    assert dataset.check(tmp_path).ok


# Items


def test_a_split_file_with_other_counts_is_not_the_papers(lay_out, tmp_path):
    dataset, _ = lay_out()
    rewrite_split(dataset, tmp_path, lambda content: content["val"].pop())
    (problem,) = problems_of_both(dataset, tmp_path)
    split = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    assert problem == (
        f"{split} has 3 classes, the items train 18, val 8, test 9; expected 3 classes, the items train 18, val 9, "
        f"test 9. Delete it and run `python -m datasets.prepare DescribableTextures --root {tmp_path}`."
    )


def test_a_split_file_with_other_items_is_not_the_papers(lay_out, tmp_path):
    dataset, _ = lay_out()
    rewrite_split(dataset, tmp_path, lambda content: content["train"].reverse())
    (problem,) = problems_of_both(dataset, tmp_path)
    assert "DescribableTextures.json has other items than the papers' split, or another order; expected" in problem
    assert f"Delete it and run `python -m datasets.prepare DescribableTextures --root {tmp_path}`." in problem


def test_where_only_the_counts_are_known_that_is_said(lay_out, tmp_path, monkeypatch):
    dataset, _ = lay_out()
    forget_the_papers_items(dataset, monkeypatch)
    rewrite_split(dataset, tmp_path, lambda content: content["train"].reverse())
    report = dataset.check(tmp_path)
    assert report.ok and "has the papers' counts; whether it has their items is not known here" in report.notes[-1]
    assert load(dataset, tmp_path).num_classes == 3


def test_other_base_and_new_classes_are_not_the_papers(lay_out, tmp_path, monkeypatch):
    dataset, _ = lay_out()
    forget_the_papers_items(dataset, monkeypatch)
    monkeypatch.setattr(dataset, "n_base_new", (5, 4))
    (problem,) = problems_of_both(dataset, tmp_path)
    split = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    assert problem.startswith(
        f"{split} has test items of the base classes 6, of the new classes 3; expected test items of the base classes "
        "5, of the new classes 4. Delete it and run"
    )


def test_a_path_in_two_splits_is_named(lay_out, tmp_path, monkeypatch):
    dataset, _ = lay_out()
    forget_the_papers_items(dataset, monkeypatch)

    def repeat(content):
        content["test"][0] = next(item for item in content["train"] if item[1] == content["test"][0][1])

    rewrite_split(dataset, tmp_path, repeat)
    (problem,) = problems_of_both(dataset, tmp_path)
    assert "lists 1 image(s) more than once, expected each once in one of train, val and test: " in problem
    assert ": banded/banded_000" in problem and "Delete it and run" in problem


def test_labels_with_gaps_and_two_names_of_a_label_are_named(lay_out, tmp_path, monkeypatch):
    dataset, _ = lay_out()
    forget_the_papers_items(dataset, monkeypatch)
    rewrite_split(dataset, tmp_path, lambda content: content["test"][0].__setitem__(2, "striped"))
    (problem,) = problems_of_both(dataset, tmp_path)
    assert "DescribableTextures.test's item" in problem and "calls class 0 'striped', expected 'banded'" in problem

    def leave_a_gap(content):
        for item in (item for items in content.values() for item in items if item[1] == 2):
            item[1] = 7

    content_changed = lambda content: (content["test"][0].__setitem__(2, "banded"), leave_a_gap(content))  # noqa: E731
    rewrite_split(dataset, tmp_path, content_changed)
    (problem,) = problems_of_both(dataset, tmp_path)
    assert "Number the classes from 0 without gaps" in problem


def test_lists_of_a_publisher_are_counted_too_and_fetched_anew_once_deleted(tmp_path, monkeypatch):
    copy = small_copy("fgvc_aircraft", monkeypatch)
    folder = copy.lay_out(tmp_path)
    path = folder / "images_variant_val.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    (problem,) = problems_of_both(copy.dataset, tmp_path)
    assert problem.startswith(f"FGVCAircraft in {folder} has 3 classes, the items train 18, val 8, test 9; expected 3")
    lists = re.search("Delete (.*) and run `python -m datasets.prepare FGVCAircraft --root", problem)[1].split(", ")
    assert sorted(lists) == sorted(path.name for path in folder.glob("*.txt"))
    for name in lists:
        (folder / name).unlink()
    with small_web(tmp_path / "web", monkeypatch) as web:
        web.publish(copy)
        assert prepare.main(["FGVCAircraft", "--root", str(tmp_path)]) == 0


def test_all_that_is_wrong_is_told_at_once(lay_out, tmp_path):
    dataset, images = lay_out()
    rewrite_split(dataset, tmp_path, lambda content: content["train"].reverse())
    (images / "banded" / "banded_0001.jpg").unlink()
    (images / "banded" / "banded_0002.jpg").write_bytes(b"")
    other, missing, empty = problems_of_both(dataset, tmp_path)
    assert "other items" in other and "lacks 1 image(s)" in missing and "1 image(s) of 0 bytes" in empty


# A split of our own


def test_an_own_split_can_be_trained_on_but_does_not_pass(lay_out, tmp_path):
    dataset, images = lay_out()
    (images.parent / dataset.split_file).unlink()
    own_split = dataset.own_split_path(images.parent)
    write_split(own_split, images, *draw_split(dataset.list_items(images), seed=1))
    assert load(dataset, tmp_path).num_classes == 3
    (problem,) = dataset.check(tmp_path).problems
    assert f"{dataset.split_file} is missing, and {own_split.name} is NOT the papers' split: results do not" in problem
    assert f"Run `python -m datasets.prepare DescribableTextures --root {tmp_path}`, or save https://drive" in problem


def test_an_own_split_of_fewer_classes_is_refused(lay_out, tmp_path):
    dataset, images = lay_out()
    (images.parent / dataset.split_file).unlink()
    shutil.rmtree(images / "banded")
    own_split = dataset.own_split_path(images.parent)
    write_split(own_split, images, *draw_split(dataset.list_items(images), seed=1))
    with pytest.raises(ValueError, match=f"{own_split} has 2 classes; expected 3 classes. Delete it and run `python"):
        load(dataset, tmp_path)


# Several data sets


def test_several_names_give_a_table_and_below_it_the_wrong_ones(lay_out, tmp_path, capsys):
    lay_out("caltech101")
    _, images = lay_out("dtd")
    (images / "banded" / "banded_0001.jpg").unlink()
    assert check.main(["caltech101", "dtd", "Caltech101", "--root", str(tmp_path)]) == 1
    table, report = capsys.readouterr().out.split("\n\n")[:2]
    head, _, *lines = table.splitlines()
    assert head.split() == ["data", "set", "classes", "train", "val", "test", "missing", "verdict"]
    assert lines[0].split(maxsplit=6) == ["Caltech101", "3", "18", "9", "9", "0", "all is as it should be"]
    assert lines[1].split(maxsplit=6) == ["DescribableTextures", "3", "18", "9", "9", "1", "1 problem(s)"]
    assert report.startswith("DescribableTextures in") and "lacks 1 image(s)" in report


def test_all_passes_over_what_is_not_there(lay_out, tmp_path, capsys):
    lay_out("caltech101")
    assert check.main(["all", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split(maxsplit=6)[1:] for line in out.splitlines()[2:]}
    assert lines["Caltech101"][-1] == "all is as it should be"
    assert lines["ImageNetR"] == ["-"] * 5 + ["not there"] == lines["Shapes"]
    assert len(lines) == len(list(check.CONFIGS.glob("*.yaml"))) - 1 and "Folder" not in lines
    assert check.main(["caltech101", "dtd", "--root", str(tmp_path)]) == 1  # asked for by name
    assert "DescribableTextures's" in capsys.readouterr().out


def test_all_fails_where_nothing_is_there_or_no_root_is_named(tmp_path, capsys, monkeypatch):
    assert check.main(["all", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"{tmp_path} holds none of these data sets, expected their folders. Correct --root (or DATA), or fill" in out
    monkeypatch.delenv("DATA", raising=False)
    assert check.main(["all"]) == 1
    assert capsys.readouterr().err.startswith("--root is empty, expected a folder with all. Pass --root FOLDER")
