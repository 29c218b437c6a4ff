"""ImageNet and its four shifted versions: labels, classnames.txt, ILSVRC's archives and wrong copies."""

import shutil
from pathlib import Path

import pytest

from datasets import prepare
from datasets.check import find_dataset
from datasets.imagenet_files import DATASET_DIRS, ImageNetFiles
from datasets.splits.imagenet_names import read_classnames
from engine import Datum
from tests.support.file_server import no_network
from tests.support.small_annotations import lines
from tests.support.small_copies import SHIFTED, WNIDS, imagenet_archives, load, small_copy, write_files

FAMILY = ("imagenet", *SHIFTED)
FETCH_ANEW = "Delete it and prepare the data set again, or save https://drive.google.com/file/d/1-61f_"


@pytest.fixture
def lay_out(tmp_path, monkeypatch):
    """Lays out a small copy under tmp_path, without a network; returns its class and the folder of its test images."""
    no_network(monkeypatch)

    def lay_out(name):
        copy = small_copy(name, monkeypatch)
        images = copy.lay_out(tmp_path) / copy.dataset.image_dir
        return copy.dataset, images / "val" if name == "imagenet" else images

    return lay_out


def class_folders(images):
    return sorted(path for path in images.iterdir() if path.is_dir())


# Items and labels


def test_a_few_shot_run_makes_few_training_items(lay_out, tmp_path, monkeypatch):
    dataset, _ = lay_out("imagenet")
    write_files(tmp_path / "imagenet/images/train" / WNIDS[4], {f"{i}.JPEG": b"an image" for i in range(500)})
    monkeypatch.setattr(dataset, "n_items", (530, 0, 15))
    made = []
    monkeypatch.setattr(
        "datasets.splits.folder_items.Datum", lambda *args, **names: made.append(args) or Datum(*args, **names)
    )
    load(dataset, tmp_path, shots=1)
    assert len([path for path, _ in made if "/train/" in path]) < 200


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_a_part_of_imagenets_classes_knows_their_labels_there(name, lay_out, tmp_path):
    dataset, _ = lay_out(name)
    labels = {subset: load(dataset, tmp_path, subset=subset).source_labels for subset in ("all", "base", "new")}
    assert labels == {"all": (1, 2, 4), "base": (1, 2), "new": (4,)}
    assert load(lay_out("imagenet_sketch")[0], tmp_path).source_labels is None


@pytest.mark.parametrize("letter", "ar")
def test_the_labels_of_a_and_r_are_timms(letter):
    dataset = find_dataset(f"imagenet_{letter}")
    wnids, subset = timm_list("imagenet_synsets"), timm_list(f"imagenet_{letter}_synsets")
    assert dataset.source_labels == tuple(map(int, timm_list(f"imagenet_{letter}_indices")))
    assert list(dataset.name_folders(dict.fromkeys(wnids, "a name"))) == subset == sorted(subset)
    assert len(subset) == dataset.n_classes


def timm_list(name):
    timm = pytest.importorskip("timm")
    return (Path(timm.__file__).parent / "data" / "_info" / f"{name}.txt").read_text().split()


# classnames.txt


@pytest.fixture
def real_lines():
    """Lines of ImageNet's own 1,000 folders with CLIP's names."""
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    return [f"{wnid} {name}" for wnid, name in zip(timm_list("imagenet_synsets"), metadata.IMAGENET_CLASSNAMES)]


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else lines(content))
    return read_classnames(path, ImageNetFiles.folders_sha256)


def test_the_thousand_classes_are_known(real_lines, tmp_path):
    names = read(tmp_path / "classnames.txt", ["", *real_lines, ""])
    assert (len(names), names["n01440764"], list(names)[-1]) == (1000, "tench", "n15075141")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda lines: lines[:-9],
            " has 991 lines, from n01440764 on: it is not the papers' list of 1,000 WordNet ids",
        ),
        (lambda lines: lines[1::-1] + lines[2:], " has 1,000 lines, from n01443537 on: it is not the papers' list"),
        (lambda lines: [*lines[:-1], "n15075142 toilet paper"], " has 1,000 lines, from n01440764 on"),
        (lambda lines: [], " has 0 lines, from no folder on"),
        (lambda lines: ["n01440764", *lines[1:]], ", line 1 is 'n01440764'. Add a class name after the folder"),
        (lambda lines: ["n01440764 tench, Tinca tinca", *lines[1:]], " calls n01440764 'tench, Tinca tinca'"),
        (lambda lines: [*lines[:2], "n01484850 great_white_shark", *lines[3:]], " calls .*WordNet's or Keras' names"),
        (lambda lines: b"\x1f\x8b\xff\xfe", " is not readable .*'utf-8'"),
    ],
)
def test_another_list_of_classes_is_told(change, message, real_lines, tmp_path):
    path = tmp_path / "classnames.txt"
    with pytest.raises(ValueError, match=f"{path}{message}.*{FETCH_ANEW}"):
        read(path, change(real_lines))


@pytest.mark.parametrize("name", SHIFTED)
def test_other_names_than_imagenets_under_the_same_root_are_refused(name, lay_out, tmp_path):
    lay_out("imagenet")
    dataset, images = lay_out(name)
    path = images.parent / "classnames.txt"
    right = path.read_bytes()
    path.write_bytes(right.replace(b"bald eagle", b"golden eagle"))
    message = f"{path} calls {WNIDS[4]} 'golden eagle', but {tmp_path}/imagenet/classnames.txt calls it 'bald eagle'. D"
    with pytest.raises(ValueError, match=message):
        load(dataset, tmp_path)
    path.write_bytes(b"\n" + right)  # other bytes, the same names
    assert load(dataset, tmp_path).num_classes == dataset.n_classes


def test_a_missing_list_is_copied_from_another_of_imagenets_folders(lay_out, tmp_path, capsys):
    assert {find_dataset(name).dataset_dir for name in FAMILY} == set(DATASET_DIRS)
    sketch, of_a = (lay_out(name)[1].parent / "classnames.txt" for name in ("imagenet_sketch", "imagenet_a"))
    of_a.unlink()
    assert prepare.main(["imagenet_a", "--root", str(tmp_path)]) == 0, capsys.readouterr()
    assert of_a.read_bytes() == sketch.read_bytes()
    of_a.unlink()
    sketch.write_text("n01440764 tench\n")
    assert prepare.main(["imagenet_a", "--root", str(tmp_path)]) == 1
    assert f"{sketch} has 1 lines" in capsys.readouterr().err


# Wrong copies


def refused(dataset, root):
    """What loading says, which is what the check finds."""
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        load(dataset, root)
    assert dataset.check(root).problems[0] == str(error.value)
    return str(error.value)


def test_991_of_1000_class_folders(real_lines, tmp_path):
    dataset, wnids = find_dataset("imagenet_sketch"), [line.split()[0] for line in real_lines]
    images = tmp_path / "imagenet-sketch" / "images"
    for wnid in wnids[:500] + wnids[509:]:
        (images / wnid).mkdir(parents=True)
    read(images.parent / "classnames.txt", real_lines)
    first = ", ".join(wnids[500:505])
    assert (
        f"{images} holds 991 of 1000 class folders; missing: {first} and 4 more. "
        f"Run `python -m datasets.prepare ImageNetSketch --root {tmp_path}`" in refused(dataset, tmp_path)
    )
    assert not dataset.is_complete(tmp_path)


@pytest.mark.parametrize("name", FAMILY)
def test_an_extra_folder(name, lay_out, tmp_path):
    dataset, images = lay_out(name)
    for folder in ("n99999999", ".cache"):
        (images / folder).mkdir()
    assert refused(dataset, tmp_path) == (
        f"{images}/n99999999 is a folder of none of {dataset.__name__}'s {dataset.n_classes} classes (1 such). Move it "
        "away."
    )


@pytest.mark.parametrize("name", FAMILY)
def test_one_folder_level_too_many(name, lay_out, tmp_path):
    dataset, images = lay_out(name)
    deeper = images / images.name
    images.rename(tmp_path / "elsewhere")
    images.mkdir()
    (tmp_path / "elsewhere").rename(deeper)
    remedy = f"They lie in {deeper}: run `mv -n {deeper}/* {images}/ && rmdir {deeper}`."
    assert refused(dataset, tmp_path).endswith(remedy)


def test_validation_images_that_are_not_sorted_into_class_folders(lay_out, tmp_path):
    dataset, val = lay_out("imagenet")
    shutil.rmtree(val)
    write_files(val, {f"ILSVRC2012_val_{number:08d}.JPEG": b"an image" for number in range(1, 25)})
    message = refused(dataset, tmp_path)
    assert f"{val} holds 24 images outside of class folders such as {WNIDS[0]}. Move {val}" in message
    assert "--from ARCHIVES" in message


@pytest.mark.parametrize("name", FAMILY)
def test_a_class_folder_without_images(name, lay_out, tmp_path):
    dataset, images = lay_out(name)
    empty = class_folders(images)[2]
    for path in empty.iterdir():
        path.unlink()
    assert f"{empty}/ holds no images; every class folder has some. " in refused(dataset, tmp_path)


@pytest.mark.parametrize("name", SHIFTED)
def test_a_copy_is_complete_with_all_folders_and_the_right_number_of_images(name, lay_out, tmp_path):
    assert not find_dataset(name).is_complete(tmp_path)
    dataset, images = lay_out(name)
    assert dataset.is_complete(tmp_path)
    next(class_folders(images)[0].iterdir()).unlink()
    assert not dataset.is_complete(tmp_path)
    (images.parent / "classnames.txt").unlink()  # then nothing tells which folders there should be
    assert dataset.is_complete(tmp_path)


# ILSVRC's archives

STEPS = ("1. sign up at https://www.image-net.org/", "ILSVRC2012_img_train.tar", "--from ARCHIVES", "ln -s")


@pytest.fixture
def ilsvrc(tmp_path, monkeypatch):
    """A root that holds classnames.txt alone, ILSVRC's archives by name, and the small copy that they give."""
    no_network(monkeypatch)
    copy = small_copy("imagenet", monkeypatch)
    write_files(tmp_path / "data" / "imagenet", copy.beside)
    return tmp_path / "data", imagenet_archives(copy, monkeypatch), copy


def files_in(folder, pattern="**/*.JPEG"):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob(pattern)}


@pytest.mark.parametrize("where", ["its folder", "--from", "deep below --from, named from here"])
def test_imagenets_archives_are_laid_out(where, ilsvrc, tmp_path, monkeypatch, capsys):
    root, archives, copy = ilsvrc
    folder = root / "imagenet" if where == "its folder" else tmp_path / "usb" / "ilsvrc"
    write_files(folder, archives)
    write_files(root, {"imagenet/images/.unpacking/val/left by a killed run": b""})
    monkeypatch.chdir(tmp_path)
    source = {"its folder": [], "--from": ["--from", str(folder)]}.get(where, ["--from", "usb"])
    assert prepare.main(["imagenet", "--root", str(root), *source]) == 0, capsys.readouterr()
    assert files_in(root / "imagenet" / "images") == copy.images
    assert sorted(path.name for path in (root / "imagenet" / "images").iterdir()) == ["train", "val"]
    assert files_in(folder, "*.tar*") == archives


def test_a_folder_that_is_there_is_completed_and_not_written_over(ilsvrc, tmp_path, capsys):
    root, archives, copy = ilsvrc
    write_files(tmp_path / "archives", archives)
    images = copy.lay_out(root) / "images"
    shutil.rmtree(images / "val" / WNIDS[0])
    gone, mine = sorted((images / "train" / WNIDS[1]).iterdir())[:2]
    gone.unlink()
    mine.write_bytes(b"mine")
    command = ["imagenet", "--root", str(root), "--from", str(tmp_path / "archives")]
    assert prepare.main([*command, "--dry-run"]) == 0
    assert f"{images}/val: would be unpacked from {tmp_path}/archives" in capsys.readouterr().out
    assert prepare.main(command) == 0, capsys.readouterr()
    assert files_in(images) == {**copy.images, mine.relative_to(images).as_posix(): b"mine"}


@pytest.mark.parametrize("part", ["img_train", "img_val", "devkit_t12"])
def test_a_broken_archive_of_imagenet_is_not_unpacked(part, ilsvrc, capsys):
    root, archives, _ = ilsvrc
    [name] = [name for name in archives if part in name]
    write_files(root / "imagenet", {**archives, name: archives[name] + b"more"})
    assert prepare.main(["imagenet", "--root", str(root)]) == 1
    assert f"{root}/imagenet/{name} is not the whole archive: its md5 is not " in capsys.readouterr().err
    left = sorted(path.name for path in (root / "imagenet" / "images").glob("*"))
    assert left == (["val"] if part == "img_train" else [])


def test_the_validation_images_need_the_kit(ilsvrc, capsys):
    root, archives, _ = ilsvrc
    write_files(root / "imagenet", {name: content for name, content in archives.items() if "devkit" not in name})
    assert prepare.main(["imagenet", "--root", str(root)]) == 1
    assert "ILSVRC2012_devkit_t12.tar.gz is missing; it has the classes of the images in" in capsys.readouterr().err


def test_a_dry_run_says_which_of_imagenets_archives_are_there(tmp_path, capsys):
    source, images = tmp_path / "usb", tmp_path / "imagenet" / "images"
    write_files(source, {"ILSVRC2012_img_val.tar": b""})
    options = ["imagenet", "--root", str(tmp_path), "--from", str(source), "--dry-run"]
    assert prepare.main(options) == 0
    said = capsys.readouterr().out
    assert f"{images}/train: to be had by hand: ILSVRC2012_img_train.tar is not here" in said
    assert f"{images}/val: would be unpacked from {source}/ILSVRC2012_img_val.tar" in said
    assert "classnames.txt: would be fetched from https://drive.google.com/" in said
    assert all(step in said for step in STEPS) and not (tmp_path / "imagenet").exists()
    write_files(images, {"train/n01440764/a.JPEG": b""})
    assert prepare.main(options) == 0
    said = capsys.readouterr().out
    assert f"{images}/train: there" in said and not any(step in said for step in STEPS)  # nothing is left to do by hand
