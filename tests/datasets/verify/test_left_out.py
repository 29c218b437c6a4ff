"""Every file of the user's own folder is read, or counted and named, or refused: by a run and by the check alike."""

import io
import os
import unicodedata

import pytest
from PIL import Image, features

from datasets import check
from datasets.folder import Folder
from engine import get_cfg_default
from tests.support.small_copies import write_files
from tests.support.tiny_run import run_train, tiny_cfg, write_images


def picture(file_format="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, file_format)
    return file.getvalue()


PNG, JPEG = picture(), picture("JPEG")
AVIF, JP2 = b"\0\0\0\x1cftypavif" + bytes(9), b"\0\0\0\x0cjP  \r\n\x87\n"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
CLASSES = {f"{name}/{i}.png": PNG for name in ("cat", "dog") for i in range(4)}
PARTS = {f"{part}/{path}": PNG for part in ("train", "test") for path in CLASSES}


def load(root, **keys):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS = str(root), -1
    for key, value in keys.items():
        cfg.DATASET[key] = value
    return Folder(cfg)


def said(root, capsys):
    """The names of the images that a run reads, and what it warns of, which is what the check says."""
    dataset = load(root)
    report = Folder.check(root)
    assert report.problems == list(dataset.warnings)
    assert check.main(["folder", "--root", str(root)]) == (1 if dataset.warnings else 0)
    out = capsys.readouterr().out
    assert all(warning in out for warning in dataset.warnings)
    items = [*dataset.train_x, *dataset.val, *dataset.test]
    return {item.impath.removeprefix(f"{root}/") for item in items}, list(dataset.warnings)


def refusal(root):
    """The message of a run, which is that of the check."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load(root)
    assert Folder.check(root).problems == [str(error.value)]
    return str(error.value)


@pytest.mark.parametrize("name", ["a.jfif", "download", "b.jpg_large", "photo.1", "d.JPE", "misnamed.heic"])
def test_a_file_of_another_suffix_or_none_is_read_by_its_content(name, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    write_files(tmp_path, CLASSES | {f"dog/{name}": JPEG})
    assert said(tmp_path, capsys) == ({*CLASSES, f"dog/{name}"}, [])
    assert f"1 file(s) in {tmp_path} have no image's suffix, but are read" in caplog.text
    assert f", since their content is an image's: dog/{name}" in caplog.text


def test_no_file_with_an_images_suffix_is_opened_while_a_folder_is_listed(tmp_path, capsys):
    write_files(tmp_path, dict.fromkeys(CLASSES, b"no image"))
    assert said(tmp_path, capsys) == (set(CLASSES), [])


@pytest.mark.parametrize(
    ("files", "counts"),
    [
        ({"cat/a.heic": HEIC, "dog/b.HEIC": HEIC}, "2 .heic (cat/a.heic"),
        ({"dog/b.avif": AVIF, "dog/c.jp2": JP2}, "1 .avif, 1 .jp2 (dog/b.avif"),
        ({"dog/IMG_1": HEIC, "dog/IMG_2.nef": picture("TIFF")}, "1 .nef, 1 without a suffix (dog/IMG_1"),
        ({"dog/a.jfif": b"<html>not found</html>"}, "1 .jfif (dog/a.jfif"),
    ],
)
def test_what_is_not_read_is_counted_by_suffix_and_the_first_is_named(files, counts, tmp_path, capsys):
    write_files(tmp_path, CLASSES | files)
    assert said(tmp_path, capsys) == (
        set(CLASSES),
        [
            f"{len(files)} file(s) in {tmp_path} are not read: {counts} is the first). Save images as JPEG or PNG, and "
            "move other files away."
        ],
    )


def test_which_files_are_read_does_not_depend_on_how_pillow_was_built(tmp_path, capsys):
    """A split that is drawn on one machine is used on another."""
    if not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    write_files(tmp_path, CLASSES | {"dog/a.avif": picture("AVIF"), "dog/b": picture("AVIF")})
    files, [warning] = said(tmp_path, capsys)
    assert files == set(CLASSES) and "are not read: 1 .avif, 1 without a suffix (dog/a.avif" in warning


def test_files_of_systems_and_texts_are_not_worth_a_word(tmp_path, capsys):
    binary = ("cat/Thumbs.db", "cat/.DS_Store", "dog/desktop.ini", "dog/._1.jpg", "__MACOSX/cat/._1.jpg", "a.zip")
    texts = ("dog/labels.xml", "dog/notes", "a.json", "b.csv")
    write_files(tmp_path, CLASSES | dict.fromkeys(binary, b"\0\5\26\7") | dict.fromkeys(texts, b"a text"))
    assert said(tmp_path, capsys) == (set(CLASSES), [])


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (("cat/more/a.png", "dog/more/deep/b.jpg"), "they lie in subfolders of class folders (cat/more/a.png"),
        (("loose_1.jpg", "loose_2.heic"), "they lie beside the class folders (loose_1.jpg"),
        (("__cow/1.png", ".pig/2.png"), "a name in their path begins with . or __ (.pig/2.png"),
        (("cat/.1.png", "dog/.ipynb_checkpoints/2.png"), "a name in their path begins with . or __ (cat/.1.png"),
    ],
)
@pytest.mark.parametrize("part", ["", "test/"])
def test_images_that_lie_elsewhere_are_counted_and_the_first_is_named(part, files, sentence, tmp_path, capsys):
    layout = PARTS if part else CLASSES
    write_files(tmp_path, layout | {part + path: PNG for path in files})
    read, [warning] = said(tmp_path, capsys)
    assert read == set(layout)
    place, first = sentence.rsplit("(", 1)
    assert warning.startswith(f"2 image(s) in {tmp_path} are not read: {place}({part}{first} is the first). ")


def test_images_added_after_the_split_was_drawn_are_counted(tmp_path, capsys):
    write_files(tmp_path, CLASSES)
    load(tmp_path)
    write_files(tmp_path, {"dog/9.png": PNG, "dog/a": JPEG, "emu/1.png": PNG})
    split = tmp_path / "split_folder_seed1.json"
    assert said(tmp_path, capsys) == (
        set(CLASSES),
        [f"{split} does not list 3 image(s) of its folder: delete it to draw a new split (dog/9.png is the first)."],
    )
    (tmp_path / "cat" / "0.png").unlink()
    assert refusal(tmp_path) == (
        f"{split} lists 1 image(s) that are missing, {tmp_path}/cat/0.png first. Put them back, or delete the split "
        "file to draw a new one."
    )


# train/, val/ and test/


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Train", "Valid", "TEST"), ("training", "validation", "testing"), ("train", "VAL", "Test")],
)
def test_the_parts_of_a_split_are_found_by_their_common_names(train, val, test, tmp_path, capsys):
    write_files(tmp_path, {f"{part}/{path}": PNG for part in (train, val, test) for path in CLASSES})
    dataset = load(tmp_path)
    for part, items in ((train, dataset.train_x), (val, dataset.val), (test, dataset.test)):
        assert [os.path.relpath(item.impath, tmp_path / part) for item in items] == list(CLASSES)
    assert said(tmp_path, capsys)[1] == []


def test_a_folder_of_images_beside_the_parts_is_named(tmp_path, capsys):
    write_files(tmp_path, PARTS | {"dev/cat/1.png": PNG, "docs/readme.txt": b"", "sample.jpg": JPEG})
    assert said(tmp_path, capsys) == (
        set(PARTS),
        [
            f"1 folder(s) of images in {tmp_path} are not read: dev. Only train, test are. Move them away; one of "
            "validation images must be called val.",
            f"1 image(s) in {tmp_path} are not read: they lie beside the class folders (sample.jpg is the first). Move "
            "them into a class folder, or away.",
        ],
    )


def test_two_folders_of_one_part_are_refused(tmp_path):
    write_files(tmp_path, PARTS | {"val/cat/1.png": PNG, "Valid/cat/1.png": PNG})
    assert refusal(tmp_path) == (
        f"{tmp_path} has Valid and val, which both stand for val. Rename one, or put them together."
    )


# Images elsewhere than in class folders


@pytest.mark.parametrize(
    ("files", "folders", "root"),
    [
        (("a/indoor/1.png", "b/outdoor/1.png"), "a/indoor, b/outdoor", "a"),
        (("x_1/x_1/cat/1.png", "x_2/x_2/cat/1.png"), "x_1/x_1/cat, x_2/x_2/cat", "x_1/x_1"),
        (("pets/train/cat/1.png", "pets/test/cat/1.png"), "pets/test/cat, pets/train/cat", "pets"),
    ],
)
def test_class_folders_that_lie_deeper_are_named(files, folders, root, tmp_path):
    write_files(tmp_path, dict.fromkeys(files, PNG))
    above = tmp_path / root
    message = refusal(tmp_path)
    assert f"Images lie deeper, in {folders}. If these are class folders, pass the folder that holds them" in message
    assert f"them, --root {above} (DATA={above} to the scripts)" in message


def test_class_folders_of_files_that_are_not_read_say_so(tmp_path):
    write_files(tmp_path, {f"{name}/{i}.heic": HEIC for name in ("cat", "dog") for i in range(3)})
    assert refusal(tmp_path) == (
        f"{tmp_path}/cat holds no images (2 class folder(s) without any). 6 file(s) in {tmp_path} are not read: "
        "6 .heic (cat/0.heic is the first). Save images as JPEG or PNG, and move other files away."
    )


def test_a_folder_of_images_beside_a_table_of_their_classes_is_refused(tmp_path):
    write_files(tmp_path, {f"images/{i}.png": PNG for i in range(4)} | {"labels.csv": b"0.png,cat\n1.png,dog\n"})
    assert refusal(tmp_path) == (
        f"{tmp_path} holds one class folder, images, beside labels.csv. Classes are read from folders alone: make one "
        "for each class that labels.csv names, and move its images there."
    )


# Unicode


def forms(name):
    return [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]


@pytest.mark.parametrize("turn", [1, -1])
def test_a_class_is_the_same_in_both_unicode_forms(turn, tmp_path, capsys):
    train, test = forms("caf\N{LATIN SMALL LETTER E WITH ACUTE}")[::turn]
    files = {f"train/{train}/1.png": PNG, f"test/{test}/2.png": PNG, f"val/{test}/3.png": PNG, "train/dog/1.png": PNG}
    write_files(tmp_path, files)
    dataset = load(tmp_path)
    assert dataset.classnames == [train, "dog"] and [item.label for item in dataset.test] == [0]
    assert said(tmp_path, capsys) == (set(files), [])


def test_two_classes_with_one_name_in_two_unicode_forms_are_named(tmp_path, capsys):
    nfc, nfd = forms("caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    write_files(tmp_path, CLASSES | {f"{name}/{i}.png": PNG for name in (nfc, nfd) for i in range(4)})
    _, [warning] = said(tmp_path, capsys)
    assert warning == (
        f"2 class folders in {tmp_path} are called {nfc}, in different Unicode forms (NFC, NFD): their prompts are the "
        "same, so that no run tells them apart. Move their images into one folder."
    )


def test_one_class_has_no_second_half(tmp_path):
    write_files(tmp_path, {path: PNG for path in CLASSES if path.startswith("cat")})
    with pytest.raises(ValueError, match="SUBSAMPLE_CLASSES is new, but one class has no second half. Set it to all"):
        load(tmp_path, SUBSAMPLE_CLASSES="new")
    assert load(tmp_path, SUBSAMPLE_CLASSES="base").num_classes == 1


def test_results_say_what_was_not_read(tiny_files, tmp_path):
    data = write_images(tmp_path / "data", splits=("test",))
    write_files(data / "test", {"leopard/1.heic": HEIC, "leopard/more/1.png": PNG})
    keys = ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True)
    results = run_train(tiny_cfg(data, tiny_files[1]["vit"], tmp_path / "run", *keys))
    assert results["total"] == 9
    for number, warning in enumerate(Folder.check(data).problems):
        assert warning in results["warnings"] and f"Warning: {warning}" in (tmp_path / "run" / "log.txt").read_text()
        assert ("1 .heic", "subfolders")[number] in warning
