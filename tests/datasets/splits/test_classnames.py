"""A names file says what the class folders are called in prompts, however it was typed and saved."""

import unicodedata

import pytest

from datasets.folder import Folder
from engine import get_cfg_default
from tests.support.small_copies import write_files

FOLDERS = ("golden retriever", "golden", "n01")
NAMES = ["a metal", "dog of gold", "a tench"]  # in the folders' order


@pytest.fixture
def name_classes(tmp_path):
    """Returns the class names of a folder of these class folders with a names file of these bytes."""
    file = tmp_path / "names.txt"

    def name_classes(content, folders=FOLDERS):
        write_files(tmp_path / "data", {f"{folder}/{i}.png": b"x" for folder in folders for i in range(4)})
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        cfg = get_cfg_default()
        cfg.DATASET.ROOT, cfg.DATASET.CLASSNAMES, cfg.DATASET.NUM_SHOTS = str(tmp_path / "data"), str(file), -1
        return Folder(cfg).classnames

    name_classes.file = file
    return name_classes


LINES = "golden retriever{0}dog of gold\nn01{0}a tench\ngolden{0}a metal\n"


@pytest.mark.parametrize(
    "content",
    [
        LINES.format(" "),
        LINES.format("  "),
        LINES.format("\t"),
        LINES.format(","),
        LINES.format(", "),
        "folder,class name\n" + LINES.format(","),
        '"golden retriever","dog of gold"\n"n01","a tench"\n"golden","a metal"\n',
        LINES.format(" ").replace("\n", "\r\n") + "other folder of which there is none\n\n",
        LINES.format(" ").encode("utf-8-sig"),  # as Notepad saves it
    ],
)
def test_a_space_a_tab_or_a_comma_stands_between_the_longest_folder_and_its_name(content, name_classes):
    assert name_classes(content) == NAMES


def test_a_name_may_hold_commas_and_spaces(name_classes):
    assert name_classes('n01,"crane, a bird"\nn02 great white shark, a fish\n', ("n01", "n02")) == [
        "crane, a bird",
        "great white shark, a fish",
    ]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_file", ["NFC", "NFD"])
def test_a_folder_is_found_in_both_unicode_forms(on_disk, in_file, name_classes):
    accented = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    folder, word = (unicodedata.normalize(form, accented) for form in (on_disk, in_file))
    assert name_classes(f"{word} {word} au lait\ndog a dog\n", (folder, "dog")) == [f"{word} au lait", "a dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n01 a\ngolden b\ngolden retriever c\nn01 d\n", ", lines 1 and 4 both name the folder n01. Remove one."),
        ("n01 a\ngolden b\ngolden retriever\n", ", line 3 is 'golden retriever'. Add a class name after the folder."),
        ("n01 a\ngolden\n", ", line 2 is 'golden'. Add a class name after the folder."),
        (
            "n01 a\ngolden b\ngolden_retriever c\n",
            " has no line for the folder golden retriever (1 such). Add `FOLDER CLASS NAME` for each class. Line 3, "
            "'golden_retriever c', begins with no folder's name.",
        ),
    ],
)
def test_a_line_that_names_no_class_is_named(content, message, name_classes):
    with pytest.raises(ValueError) as error:
        name_classes(content)
    assert str(error.value).startswith(f"{name_classes.file}{message}")
