"""ImageNet and its four shifted versions: items, labels, classnames.txt, ILSVRC's archives and wrong copies."""

import hashlib
import io
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision.datasets.imagenet

from datasets import prepare
from datasets.check import find_dataset
from datasets.imagenet import ImageNet
from datasets.imagenet_a import ImageNetA
from datasets.imagenet_files import DATASET_DIRS, ImageNetFiles, list_images
from datasets.imagenet_r import ImageNetR
from datasets.imagenet_sketch import ImageNetSketch
from datasets.imagenetv2 import ImageNetV2
from datasets.splits.classnames import read_classnames
from engine import Datum, get_cfg_default
from tests.support.file_server import no_network

NAMES = "tench,great white shark,cock,ostrich,bald eagle,bullfrog,black swan,tusker,bison,gown,puck,shield".split(",")
FOLDERS = [f"n{number:08d}" for number in range(1440764, 1440764 + 11 * 12, 11)]
LINES = [f"{folder} {name}" for folder, name in zip(FOLDERS, NAMES)]
FAMILY = (ImageNet, ImageNetV2, ImageNetSketch, ImageNetA, ImageNetR)
LABELS = (1, 2, 5, 10, 11)  # of the small copies of A and R
FETCH_ANEW = "Delete it and prepare the data set again, or save https://drive.google.com/file/d/1-61f_"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Lets copies with 12 classes, or 5 in A and R, and two test images of each be complete; no network."""
    for dataset in FAMILY:
        monkeypatch.setattr(dataset, "n_classes", 12)
        monkeypatch.setattr(dataset, "n_items", (0, 0, 24))
    for dataset in (ImageNetA, ImageNetR):
        monkeypatch.setattr(dataset, "source_labels", LABELS)
        monkeypatch.setattr(dataset, "n_classes", 5)
        monkeypatch.setattr(dataset, "n_items", (0, 0, 10))
    monkeypatch.setattr(ImageNet, "n_items", (48, 0, 24))
    monkeypatch.setattr(ImageNet, "n_base_new", (12, 12))
    monkeypatch.setattr(ImageNetFiles, "folders_sha256", hashlib.sha256("\n".join(FOLDERS).encode()).hexdigest())
    no_network(monkeypatch)


def write(*paths, content=b"an image"):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def folders_of(dataset):
    """The class folders of a data set's small copy, in the order of its labels."""
    if dataset is ImageNetV2:
        return [str(label) for label in range(12)]
    return [FOLDERS[label] for label in dataset.source_labels or range(12)]


def lay_out(dataset, root, *, lines=LINES):
    """Writes a small copy and returns the folders that hold its class folders."""
    folder = root / dataset.dataset_dir
    parts = {"train": "bdca", "val": "ba"} if dataset is ImageNet else {"": "ba"}
    for part, files in parts.items():
        images = folder / dataset.image_dir / part
        write(*(images / name / f"{name}_{file}.JPEG" for name in reversed(folders_of(dataset)) for file in files))
        write(images / "README.txt", images / folders_of(dataset)[0] / ".hidden.txt")
    write(folder / "classnames.txt", content="".join(f"{line}\n" for line in lines).encode())
    return [folder / dataset.image_dir / part for part in parts]


def load(dataset, root, *, shots=-1, subset="all", seed=1):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES, cfg.SEED = str(root), shots, subset, seed
    return dataset(cfg)


def shown(items, folder):
    return [(Path(item.impath).relative_to(folder).as_posix(), item.label, item.classname) for item in items]


def all_items(dataset, files="ab"):
    names = [NAMES[label] for label in dataset.source_labels or range(12)]
    return [
        (f"{folder}/{folder}_{file}.JPEG", label, name)
        for label, (folder, name) in enumerate(zip(folders_of(dataset), names))
        for file in files
    ]


# Items and labels


def test_imagenet_is_listed_by_folder_and_file_name(tmp_path):
    train, val = lay_out(ImageNet, tmp_path)
    dataset, few = load(ImageNet, tmp_path), load(ImageNet, tmp_path, shots=2, seed=1)
    assert dataset.classnames == NAMES
    assert shown(dataset.train_x, train) == all_items(ImageNet, "abcd")
    assert shown(dataset.test, val) == all_items(ImageNet)
    rng = random.Random(1)
    groups = [all_items(ImageNet, "abcd")[i : i + 4] for i in range(0, 48, 4)]
    assert shown(few.train_x, train) == [item for group in groups for item in rng.sample(group, 2)]
    assert few.val == few.test == dataset.test
    chosen_on = {item.impath for item in few.selection}
    assert len(chosen_on) == 2 * 12 and not chosen_on & {item.impath for item in [*few.train_x, *few.test]}
    new = load(ImageNet, tmp_path, shots=2, subset="new")
    assert (new.classnames, len(new.test)) == (NAMES[6:], 12)


def test_a_few_shot_run_makes_few_training_items(tmp_path, monkeypatch):
    lay_out(ImageNet, tmp_path)
    write(*(tmp_path / f"imagenet/images/train/{FOLDERS[4]}/{i}.JPEG" for i in range(500)))
    monkeypatch.setattr(ImageNet, "n_items", (548, 0, 24))
    made = []
    monkeypatch.setattr(
        "datasets.splits.folder_items.Datum", lambda *args, **names: made.append(args) or Datum(*args, **names)
    )
    load(ImageNet, tmp_path, shots=1)
    assert len([path for path, _ in made if "/train/" in path]) < 200


@pytest.mark.parametrize("dataset", FAMILY[1:])
def test_a_shifted_version_has_the_names_of_imagenet_and_only_test_items(dataset, tmp_path):
    [images] = lay_out(dataset, tmp_path)
    loaded = load(dataset, tmp_path, shots=16)
    assert shown(loaded.test, images) == all_items(dataset)
    assert loaded.classnames == [NAMES[label] for label in dataset.source_labels or range(12)]
    assert (loaded.train_x, loaded.val, loaded.selection) == ([], [], [])
    assert loaded.prompt_template == "a photo of a {}."


@pytest.mark.parametrize("dataset", [ImageNetA, ImageNetR])
def test_a_part_of_imagenets_classes_knows_their_labels_there(dataset, tmp_path):
    lay_out(dataset, tmp_path)
    assert load(dataset, tmp_path).source_labels == LABELS
    assert load(dataset, tmp_path, subset="base").source_labels == (1, 2, 5)
    assert load(dataset, tmp_path, subset="new").source_labels == (10, 11)
    assert load(ImageNetSketch, lay_out(ImageNetSketch, tmp_path)[0].parents[1]).source_labels is None


@pytest.mark.parametrize(("dataset", "letter"), [(ImageNetA, "a"), (ImageNetR, "r")])
def test_the_labels_of_a_and_r_are_timms(dataset, letter, monkeypatch):
    monkeypatch.undo()
    wnids, subset = timm_list("imagenet_synsets"), timm_list(f"imagenet_{letter}_synsets")
    assert dataset.source_labels == tuple(map(int, timm_list(f"imagenet_{letter}_indices")))
    assert list(dataset.name_folders(dict.fromkeys(wnids, "a name"))) == subset == sorted(subset)
    assert len(subset) == dataset.n_classes


def timm_list(name):
    timm = pytest.importorskip("timm")
    return (Path(timm.__file__).parent / "data" / "_info" / f"{name}.txt").read_text().split()


def test_images_are_told_by_their_suffix(tmp_path):
    write(tmp_path / "b.JPEG", tmp_path / "a.JPEG")
    assert list_images(str(tmp_path)) == ["a.JPEG", "b.JPEG"]
    write(
        tmp_path / "._a.JPEG",
        tmp_path / "c.jpg",
        tmp_path / "d.PNG",
        tmp_path / "JPEG",
        tmp_path / "Thumbs.db",
        tmp_path / "e.JPEG.tar",
    )
    assert list_images(str(tmp_path)) == ["a.JPEG", "b.JPEG", "c.jpg", "d.PNG"]


# classnames.txt


@pytest.fixture
def real_lines(monkeypatch):
    """Lines of ImageNet's own 1,000 folders with CLIP's names, and the real digest."""
    monkeypatch.undo()
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    return [f"{wnid} {name}" for wnid, name in zip(timm_list("imagenet_synsets"), metadata.IMAGENET_CLASSNAMES)]


def read(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return read_classnames(path, ImageNetFiles.folders_sha256)


def test_the_thousand_classes_are_known(real_lines, tmp_path):
    names = read(tmp_path / "classnames.txt", ["", *real_lines, ""])
    assert (len(names), names["n01440764"], list(names)[-1]) == (1000, "tench", "n15075141")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-9], "has 991 lines, expected 1,000, one for each of ImageNet's classes"),
        (lambda lines: lines[1::-1] + lines[2:], "has the folder n01440764 after n01443537, expected the sorted order"),
        (lambda lines: ["tench n01440764", *lines[1:]], "has the folder tench, expected WordNet ids such as n01440764"),
        (
            lambda lines: [*lines[:-1], "n15075142 toilet paper"],
            "has other folders, expected those of ImageNet's 1,000",
        ),
        (
            lambda lines: [*lines, "n01440764 trout"],
            "line 1001 is 'n01440764 trout', expected `FOLDER CLASS NAME`, each",
        ),
        (
            lambda lines: ["n01440764", *lines[1:]],
            "line 1 is 'n01440764', expected `FOLDER CLASS NAME`, each folder once",
        ),
        (
            lambda lines: ["n01440764 tench, Tinca tinca", *lines[1:]],
            "calls n01440764 'tench, Tinca tinca', expected one",
        ),
        (
            lambda lines: [*lines[:2], "n01484850 great_white_shark", *lines[3:]],
            "line 3 calls .*WordNet's or Keras' names",
        ),
        (lambda lines: ["\0\1 \2"], "has 1 lines, expected 1,000"),
    ],
)
def test_another_list_of_classes_is_told(change, message, real_lines, tmp_path):
    path = tmp_path / "classnames.txt"
    with pytest.raises(ValueError, match=f"{path}.* ?{message}(.|\n)*{FETCH_ANEW}"):
        read(path, change(real_lines))


def test_a_list_that_is_no_text_is_told(tmp_path):
    write(tmp_path / "classnames.txt", content=b"\x1f\x8b\xff\xfe")
    with pytest.raises(ValueError, match=f"classnames.txt, line 1 is .*{FETCH_ANEW}"):
        read_classnames(tmp_path / "classnames.txt", ImageNetFiles.folders_sha256)


@pytest.mark.parametrize("dataset", FAMILY)
def test_a_copy_with_another_list_is_refused(dataset, tmp_path):
    lay_out(dataset, tmp_path, lines=LINES[:3])
    with pytest.raises(ValueError, match=f"{dataset.dataset_dir}/classnames.txt has 3 lines, expected 1,000.*Delete"):
        load(dataset, tmp_path)
    assert not dataset.check(tmp_path).ok


@pytest.mark.parametrize("dataset", FAMILY[1:])
def test_other_names_than_imagenets_under_the_same_root_are_refused(dataset, tmp_path):
    lay_out(ImageNet, tmp_path)
    lay_out(dataset, tmp_path, lines=[*LINES[:-1], f"{FOLDERS[-1]} buckler"])
    with pytest.raises(
        ValueError,
        match=f"{dataset.dataset_dir}/classnames.txt calls {FOLDERS[-1]} 'buckler', expected 'shield' as in "
        f"{tmp_path}/imagenet/classnames.txt. Delete the wrong one",
    ):
        load(dataset, tmp_path)
    lay_out(dataset, tmp_path, lines=["", *LINES])  # other bytes, the same names
    assert load(dataset, tmp_path).num_classes == dataset.n_classes


def test_a_missing_list_is_copied_from_another_of_imagenets_folders(tmp_path, capsys):
    assert {dataset.dataset_dir for dataset in FAMILY} == set(DATASET_DIRS)
    lay_out(ImageNetSketch, tmp_path)
    lay_out(ImageNetA, tmp_path)
    (tmp_path / "imagenet-adversarial" / "classnames.txt").unlink()
    assert prepare.main(["imagenet_a", "--root", str(tmp_path)]) == 0, capsys.readouterr()
    assert (tmp_path / "imagenet-adversarial" / "classnames.txt").read_text().splitlines() == LINES
    write(tmp_path / "imagenet-sketch" / "classnames.txt", content=b"n01440764 tench\n")
    (tmp_path / "imagenet-adversarial" / "classnames.txt").unlink()
    assert prepare.main(["imagenet_a", "--root", str(tmp_path)]) == 1
    assert f"{tmp_path}/imagenet-sketch/classnames.txt has 1 lines, expected 1,000" in capsys.readouterr().err


# Wrong copies


def refused(dataset, root):
    """What loading says, which is what the check finds and what preparing a copy that cannot be completed ends with."""
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        load(dataset, root)
    assert dataset.check(root).problems[0] == str(error.value)
    return str(error.value)


def test_991_of_1000_class_folders(real_lines, tmp_path):
    wnids = [line.split()[0] for line in real_lines]
    images = tmp_path / "imagenet-sketch" / "images"
    for wnid in wnids[:500] + wnids[509:]:
        (images / wnid).mkdir(parents=True)
    read(images.parent / "classnames.txt", real_lines)
    message = refused(ImageNetSketch, tmp_path)
    first = ", ".join(wnids[500:505])
    assert (
        f"{images} holds 991 of 1000 class folders, expected all; missing: {first} and 4 more. "
        f"Run `python -m datasets.prepare ImageNetSketch --root {tmp_path}`" in message
    )
    assert not ImageNetSketch.is_complete(tmp_path)


@pytest.mark.parametrize("dataset", FAMILY)
def test_an_extra_folder(dataset, tmp_path):
    images = lay_out(dataset, tmp_path)[-1]
    (images / "n99999999").mkdir()
    (images / ".cache").mkdir()
    assert refused(dataset, tmp_path) == (
        f"{images}/n99999999 is a folder of none of {dataset.__name__}'s {dataset.n_classes} classes (1 such), "
        "expected class folders alone. Move it away."
    )


@pytest.mark.parametrize("dataset", FAMILY)
def test_one_folder_level_too_many(dataset, tmp_path):
    images = lay_out(dataset, tmp_path)[0]
    images.rename(tmp_path / "aside")
    images.mkdir()
    (tmp_path / "aside").rename(images / images.name)
    deeper = images / images.name
    message = refused(dataset, tmp_path)
    assert f"The class folders lie in {deeper}, one level too deep, expected them in {images}" in message
    assert f"`mv -n {deeper}/* {images}/`, then `rmdir {deeper}`" in message


def test_validation_images_that_are_not_sorted_into_class_folders(tmp_path):
    lay_out(ImageNet, tmp_path)
    val = tmp_path / "imagenet" / "images" / "val"
    val.rename(tmp_path / "aside")
    write(*(val / f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 25)))
    message = refused(ImageNet, tmp_path)
    assert (
        f"{val} holds 24 images outside of class folders, expected folders such as {FOLDERS[0]}. Move {val}" in message
    )
    assert "--from ARCHIVES" in message


@pytest.mark.parametrize("dataset", FAMILY)
def test_a_class_folder_without_images(dataset, tmp_path):
    empty = lay_out(dataset, tmp_path)[-1] / folders_of(dataset)[3]
    for path in empty.iterdir():
        path.unlink()
    assert f"{empty}/ holds no images, expected some in every class folder. " in refused(dataset, tmp_path)


@pytest.mark.parametrize("dataset", FAMILY[1:])
def test_a_copy_is_complete_with_all_folders_and_the_right_number_of_images(dataset, tmp_path):
    assert not dataset.is_complete(tmp_path)
    [images] = lay_out(dataset, tmp_path)
    assert dataset.is_complete(tmp_path)
    next((images / folders_of(dataset)[0]).glob("*.JPEG")).unlink()
    assert not dataset.is_complete(tmp_path)
    (images.parent / "classnames.txt").unlink()  # then nothing tells which folders there should be
    assert dataset.is_complete(tmp_path)


# ILSVRC's archives


def pack(path, files):
    """Writes a tar archive, of the kind that its name says: path in it -> content."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def packed(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in files:
            member = tarfile.TarInfo(name)
            member.size = 8
            archive.addfile(member, io.BytesIO(b"an image"))
    return content.getvalue()


def pack_ilsvrc(folder, monkeypatch):
    """Writes the three archives as the publisher packs them; the kit counts classes in an order of its own, from 1."""
    order = random.Random(0).sample(range(12), 12)
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(i, FOLDERS[label], f"{NAMES[label]}, alias", "", 0) for i, label in enumerate(order, start=1)]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array([*rows, (13, "n00001740", "entity", "", 2)], dtype=fields)})
    truth = [number for number in range(1, 13) for _ in range(2)]
    random.Random(1).shuffle(truth)
    kit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in truth).encode(),
    }
    train = {f"{wnid}.tar": packed([f"{wnid}_{i}.JPEG" for i in range(4)]) for wnid in FOLDERS}
    val = {f"ILSVRC2012_val_{i:08d}.JPEG": b"an image" for i in range(1, 25)}
    meta_of = dict(torchvision.datasets.imagenet.ARCHIVE_META)
    for split, files in {"train": train, "val": val, "devkit": kit}.items():
        archive = folder / meta_of[split][0]
        pack(archive, files)
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        monkeypatch.setitem(torchvision.datasets.imagenet.ARCHIVE_META, split, (archive.name, md5))
    return [FOLDERS[order[number - 1]] for number in truth]


@pytest.mark.parametrize("given", [False, True])
def test_imagenets_archives_are_laid_out(given, tmp_path, monkeypatch, capsys):
    archives, root = tmp_path / "archives" if given else tmp_path / "imagenet", tmp_path
    truth = pack_ilsvrc(archives, monkeypatch)
    write(root / "imagenet" / "classnames.txt", content="\n".join(LINES).encode())
    write(root / "imagenet" / "images" / ".unpacking" / "val" / "left by a killed run")
    before = sorted(archives.iterdir())
    command = ["imagenet", "--root", str(root), *(["--from", str(archives)] if given else [])]
    assert prepare.main(command) == 0, capsys.readouterr()
    dataset, images = load(ImageNet, root), root / "imagenet" / "images"
    train = [(f"{f}/{f}_{i}.JPEG", label, NAMES[label]) for label, f in enumerate(FOLDERS) for i in range(4)]
    assert shown(dataset.train_x, images / "train") == train
    of_image = {Path(item.impath).name: Path(item.impath).parent.name for item in dataset.test}
    assert of_image == {f"ILSVRC2012_val_{i:08d}.JPEG": wnid for i, wnid in enumerate(truth, start=1)}
    assert sorted(path.name for path in images.iterdir()) == ["train", "val"]
    assert [path for path in sorted(archives.iterdir()) if path.name != "images"] == [
        path for path in before if path.name != "images"
    ]


def test_a_folder_that_is_there_is_completed_and_not_written_over(tmp_path, monkeypatch, capsys):
    archives, images = tmp_path / "archives", tmp_path / "imagenet" / "images"
    pack_ilsvrc(archives, monkeypatch)
    write(tmp_path / "imagenet" / "classnames.txt", content="\n".join(LINES).encode())
    command = ["imagenet", "--root", str(tmp_path), "--from", str(archives)]
    assert prepare.main(command) == 0, capsys.readouterr()
    before = {path: path.read_bytes() for path in images.rglob("*.JPEG")}
    shutil.rmtree(images / "val" / FOLDERS[0])
    gone, mine = sorted((images / "train" / FOLDERS[1]).iterdir())[:2]
    gone.unlink()
    mine.write_bytes(b"mine")
    assert prepare.main([*command, "--dry-run"]) == 0
    assert f"{images}/val: would be unpacked from {archives}" in capsys.readouterr().out
    assert prepare.main(command) == 0, capsys.readouterr()
    assert {path: path.read_bytes() for path in images.rglob("*.JPEG")} == {**before, mine: b"mine"}


def test_imagenets_archives_lie_anywhere_in_a_folder_that_is_named_from_here(tmp_path, monkeypatch, capsys):
    pack_ilsvrc(tmp_path / "imagenet", monkeypatch)
    (tmp_path / "imagenet").rename(tmp_path / "ilsvrc")
    write(tmp_path / "data" / "imagenet" / "classnames.txt", content="\n".join(LINES).encode())
    monkeypatch.chdir(tmp_path)
    assert prepare.main(["imagenet", "--root", "data", "--from", "."]) == 0, capsys.readouterr()


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_folder_for_imagenets_archives_that_is_not_there_is_told(options, tmp_path, capsys):
    given = tmp_path / "archives"
    assert prepare.main(["imagenet", "--root", str(tmp_path), "--from", str(given), *options]) == 1
    assert f"--from is {given}, expected a folder that exists" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "val", "devkit"])
def test_a_broken_archive_of_imagenet_is_not_unpacked(name, tmp_path, monkeypatch, capsys):
    pack_ilsvrc(tmp_path / "imagenet", monkeypatch)
    file, md5 = torchvision.datasets.imagenet.ARCHIVE_META[name]
    with (tmp_path / "imagenet" / file).open("ab") as archive:
        archive.write(b"more")
    assert prepare.main(["imagenet", "--root", str(tmp_path)]) == 1
    message = f"{tmp_path}/imagenet/{file} has another md5 than {md5}, expected the whole archive. Fetch it again."
    assert message in capsys.readouterr().err
    left = sorted(path.name for path in (tmp_path / "imagenet" / "images").glob("*"))
    assert left == (["val"] if name == "train" else [])


def test_the_validation_images_need_the_kit(tmp_path, monkeypatch, capsys):
    pack_ilsvrc(tmp_path / "imagenet", monkeypatch)
    (tmp_path / "imagenet" / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    assert prepare.main(["imagenet", "--root", str(tmp_path)]) == 1
    assert "ILSVRC2012_devkit_t12.tar.gz is missing, expected it beside" in capsys.readouterr().err


STEPS = ("1. sign up at https://www.image-net.org/", "ILSVRC2012_img_train.tar", "--from ARCHIVES", "ln -s")


def test_imagenet_itself_comes_with_the_steps(tmp_path, capsys):
    write(tmp_path / "imagenet" / "classnames.txt", content="\n".join(LINES).encode())
    assert prepare.main(["imagenet", "--root", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert f"ImageNet's {tmp_path}/imagenet/images/train is missing, expected imagenet under the root" in message
    assert all(step in message for step in STEPS)
    assert sorted(path.name for path in (tmp_path / "imagenet").iterdir()) == ["classnames.txt"]


def test_a_dry_run_says_which_of_imagenets_archives_are_there(tmp_path, capsys):
    given, images = tmp_path / "given", tmp_path / "imagenet" / "images"
    write(given / "ILSVRC2012_img_val.tar")
    options = ["imagenet", "--root", str(tmp_path), "--from", str(given), "--dry-run"]
    assert prepare.main(options) == 0
    said = capsys.readouterr().out
    assert f"{images}/train: to be had by hand: ILSVRC2012_img_train.tar is not here" in said
    assert f"{images}/val: would be unpacked from {given}/ILSVRC2012_img_val.tar" in said
    assert "classnames.txt: would be fetched from https://drive.google.com/" in said
    assert all(step in said for step in STEPS) and not (tmp_path / "imagenet").exists()
    write(images / "train" / "n01440764" / "a.JPEG")
    assert prepare.main(options) == 0
    said = capsys.readouterr().out
    assert f"{images}/train: there" in said and not any(step in said for step in STEPS)  # nothing is left to do by hand


def test_data_sets_go_by_their_config_name():
    names = ("imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
    assert tuple(map(find_dataset, names)) == FAMILY
