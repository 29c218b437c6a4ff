"""Wrong copies are found by the check, and refused with the same words where training starts."""

import json
import re
import shutil

import pytest

from datasets import check, prepare
from datasets.base import DataCopy, draw_split, write_split
from datasets.verify import copy as checks
from tests.support.small_copies import load, small_copy, small_web


@pytest.fixture
def lay_out(tmp_path, monkeypatch):
    """Lays out the small copy of a data set."""

    def lay_out(name="dtd"):
        small = small_copy(name, monkeypatch)
        small.lay_out(tmp_path)
        return DataCopy(small.dataset, tmp_path)

    return lay_out


@pytest.fixture
def counts_alone(lay_out, monkeypatch):
    """DTD's copy, of whose items only the counts are known: what is wrong is found all the same."""
    copy = lay_out()
    monkeypatch.setattr(copy.dataset, "split_sha256", "")
    monkeypatch.setattr(copy.dataset, "split_items_sha256", "")
    return copy


def rewrite_split(copy, change):
    """Calls change(content of the split file) and writes what it left."""
    content = json.loads(copy.split.read_text())
    change(content)
    copy.split.write_text(json.dumps(content))


def problems_of_both(copy, error=ValueError):
    """Returns the check's problems, after training refused with the very same."""
    problems = copy.dataset.check(copy.root).problems
    with pytest.raises(error) as refusal:
        load(copy.dataset, copy.root)
    assert str(refusal.value) == "\n".join(problems)
    return problems


def test_counts_of_base_and_new_classes_are_noted(lay_out):
    copy = lay_out("caltech101")
    assert copy.dataset.check(copy.root).notes == [
        "3 classes; items: train 18, val 9, test 9",
        "test items of the base classes 6, of the new classes 3",
    ]


# Files


def test_a_missing_class_folder_is_named_as_a_whole(lay_out):
    copy = lay_out()
    shutil.rmtree(copy.images / "blotchy")
    (problem,) = problems_of_both(copy, FileNotFoundError)
    assert problem.startswith(f"DescribableTextures lacks 12 image(s) in {copy.images}: blotchy")
    assert f"and 7 more; 1 folder(s) as a whole: blotchy. Run {copy.command}, or correct --root" in problem


def test_missing_images_are_counted_and_the_first_five_named(lay_out):
    copy = lay_out("sun397")
    for number in range(1, 8):
        (copy.images / f"a/apartment_building/outdoor/sun_{number}.jpg").unlink()
    (problem,) = problems_of_both(copy, FileNotFoundError)
    assert "lacks 7 image(s)" in problem and "and 2 more. " in problem and "as a whole" not in problem
    assert problem.count("a/apartment_building/outdoor/sun_") == 5
    assert copy.dataset.check(copy.root).n_missing == 7


@pytest.mark.parametrize("name", ["dtd", "imagenet"])
def test_empty_images_are_to_be_deleted_and_fetched_anew(lay_out, name):
    copy = lay_out(name)
    image = next(path for path in sorted(copy.images.rglob("*.*")) if path.is_file())
    image.write_bytes(b"")
    assert problems_of_both(copy, FileNotFoundError) == [
        f"{copy.name} has 1 image(s) of 0 bytes in {copy.images}: {image.relative_to(copy.images)}. Replace them, or "
        f"delete them, `find {copy.images} -type f -empty -delete`, and run {copy.command}."
    ]


def test_a_run_asks_only_for_the_images_that_it_reads(lay_out):
    copy = lay_out()
    shutil.rmtree(copy.images / "polka-dotted")
    assert load(copy.dataset, copy.root, subset="base").num_classes == 2
    with pytest.raises(FileNotFoundError, match=r"lacks 12 image\(s\)"):
        load(copy.dataset, copy.root, subset="new")


def test_a_long_list_of_the_folders_is_not_looked_at_file_by_file(lay_out, monkeypatch):
    copy = lay_out("imagenet")
    next((copy.images / "train").rglob("*.JPEG")).write_bytes(b"")
    monkeypatch.setattr(checks, "N_QUICK", 20)  # train has 30 items, test 15
    assert load(copy.dataset, copy.root).num_classes == 5
    assert not copy.dataset.check(copy.root).ok


def test_broken_images_are_found_where_all_are_decoded(lay_out):
    copy = lay_out("oxford_pets")
    broken = sorted(copy.images.iterdir())[3:10]
    for image in broken:
        image.write_bytes(image.read_bytes()[:300])
    assert copy.dataset.check(copy.root).ok
    report = copy.dataset.check(copy.root, decode=True)
    assert report.problems[0].startswith(
        f"OxfordPets has 7 image(s) that do not decode in {copy.images}: {broken[0].name}, "
    )
    assert f"and 2 more. Replace them, or delete them and run {copy.command}" in report.problems[0]
    assert "36 image(s) were decoded" in report.notes


@pytest.mark.parametrize(("name", "folder"), [("dtd", "stripes"), ("oxford_pets", "more"), ("sun397", "b/bakery/shop")])
def test_an_extra_folder_is_told_and_changes_no_run(lay_out, name, folder):
    copy = lay_out(name)
    extra = copy.images / folder
    extra.mkdir(parents=True)
    (extra / "._1.jpg").touch()  # of macOS
    assert copy.dataset.check(copy.root).ok  # without images it is no class
    shutil.copy(next(copy.images.rglob("*.jpg")), extra / "1.jpg")
    if name == "sun397":
        shutil.copy(extra / "1.jpg", copy.images / "b" / "1.jpg")
    (problem,) = copy.dataset.check(copy.root).problems
    assert "folder(s) of images that are not listed: " in problem
    assert folder.partition("/")[0] in problem and "move them away" in problem
    assert load(copy.dataset, copy.root).num_classes == 3


def test_folders_known_to_be_no_classes_are_no_extra_ones(lay_out):
    copy = lay_out("caltech101")
    for folder in ("BACKGROUND_Google", ".cache", "__MACOSX"):
        shutil.copytree(copy.images / "accordion", copy.images / folder)
    assert copy.dataset.check(copy.root).ok


def test_paths_with_windows_backslashes_are_told(lay_out):
    copy = lay_out()
    rewrite_split(copy, lambda content: [item.__setitem__(0, item[0].replace("/", "\\")) for item in content["test"]])
    *_, problem = problems_of_both(copy, ValueError)  # before it: other items than the papers'
    assert "9 of them are there: their listed paths have backslashes, as Windows writes them, " in problem
    assert problem.endswith(f"Write slashes (/) in {copy.split}.")


# Items


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda content: content["val"].pop(),
            "has 3 classes, the items train 18, val 8, test 9; it should have 3 classes, the items train 18, val 9, "
            "test 9. ",
        ),
        (lambda content: content["train"].reverse(), "has other items than the papers' split, or another order. "),
    ],
)
def test_another_split_file_is_not_the_papers(lay_out, change, told):
    copy = lay_out()
    rewrite_split(copy, change)
    assert problems_of_both(copy) == [f"{copy.split} {told}Delete it and run {copy.command}."]


def test_where_only_the_counts_are_known_that_is_said(counts_alone):
    rewrite_split(counts_alone, lambda content: content["train"].reverse())
    report = counts_alone.dataset.check(counts_alone.root)
    assert report.ok and "has the papers' counts; whether it has their items is not known here" in report.notes[-1]
    assert load(counts_alone.dataset, counts_alone.root).num_classes == 3


def test_other_base_and_new_classes_are_not_the_papers(counts_alone, monkeypatch):
    monkeypatch.setattr(counts_alone.dataset, "n_base_new", (5, 4))
    (problem,) = problems_of_both(counts_alone)
    found, right = problem.split("; it should have ")
    assert found.endswith("test items of the base classes 6, of the new classes 3")
    assert "test items of the base classes 5, of the new classes 4. Delete it and run" in right


def repeat(content):
    content["test"][0] = next(item for item in content["train"] if item[1] == content["test"][0][1])


def rename(content):
    content["test"][0][2] = "striped"


def leave_a_gap(content):
    for item in (item for items in content.values() for item in items if item[1] == 2):
        item[1] = 7


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (repeat, r"lists 1 image\(s\) more than once in train, val and test: banded/banded_000.*Delete it and run"),
        (rename, "DescribableTextures.test's item .*calls class 0 'striped'.*'banded'"),
        (leave_a_gap, "Number the classes from 0 without gaps"),
    ],
)
def test_a_path_in_two_splits_two_names_of_a_label_and_labels_with_gaps_are_named(counts_alone, change, told):
    rewrite_split(counts_alone, change)
    (problem,) = problems_of_both(counts_alone)
    assert re.search(told, problem)


def test_lists_of_a_publisher_are_counted_too_and_fetched_anew_once_deleted(tmp_path, monkeypatch):
    small = small_copy("fgvc_aircraft", monkeypatch)
    folder = small.lay_out(tmp_path)
    path = folder / "images_variant_val.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    (problem,) = problems_of_both(DataCopy(small.dataset, tmp_path))
    assert problem.startswith(f"FGVCAircraft in {folder} has 3 classes, the items train 18, val 8, test 9; it should")
    lists = re.search("Delete (.*) and run `python -m datasets.prepare FGVCAircraft --root", problem)[1].split(", ")
    assert sorted(lists) == sorted(path.name for path in folder.glob("*.txt"))
    for name in lists:
        (folder / name).unlink()
    with small_web(tmp_path / "web", monkeypatch) as web:
        web.publish(small)
        assert prepare.main(["FGVCAircraft", "--root", str(tmp_path)]) == 0


def test_all_that_is_wrong_is_told_at_once(lay_out):
    copy = lay_out()
    rewrite_split(copy, lambda content: content["train"].reverse())
    (copy.images / "banded" / "banded_0001.jpg").unlink()
    (copy.images / "banded" / "banded_0002.jpg").write_bytes(b"")
    other, missing, empty = problems_of_both(copy)
    assert "other items" in other and "lacks 1 image(s)" in missing and "1 image(s) of 0 bytes" in empty


# A split of our own


def test_an_own_split_can_be_trained_on_but_does_not_pass_and_one_of_fewer_classes_is_refused(lay_out):
    copy = lay_out()
    copy.split.unlink()
    write_split(copy.own_split, copy.images, *draw_split(copy.dataset.list_items(copy.images), seed=1))
    assert load(copy.dataset, copy.root).num_classes == 3
    (problem,) = copy.dataset.check(copy.root).problems
    assert f"{copy.split} is missing, and {copy.own_split.name} is NOT the papers' split: results do not" in problem
    assert f"Run {copy.command}, or save https://drive" in problem
    shutil.rmtree(copy.images / "banded")
    write_split(copy.own_split, copy.images, *draw_split(copy.dataset.list_items(copy.images), seed=1))
    with pytest.raises(
        ValueError, match=f"{copy.own_split} has 2 classes; it should have 3 classes. Delete it and run"
    ):
        load(copy.dataset, copy.root)


# Several data sets


def test_several_names_give_a_table_and_below_it_the_wrong_ones(lay_out, tmp_path, capsys):
    lay_out("caltech101")
    (lay_out("dtd").images / "banded" / "banded_0001.jpg").unlink()
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
    assert f"{tmp_path} holds none of these data sets. Correct --root (or DATA), or fill" in out
    monkeypatch.delenv("DATA", raising=False)
    assert check.main(["all"]) == 1
    assert capsys.readouterr().err.startswith("--root is empty; all needs a folder of data sets. Pass --root FOLDER")
