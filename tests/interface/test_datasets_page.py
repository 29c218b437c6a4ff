"""DATASETS.md states the facts that the code works with, numbers, files and addresses, each of them once."""

import re
from pathlib import Path

import pytest

from datasets import check
from datasets.fetch.sources import MIRROR

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "DATASETS.md").read_text(encoding="utf-8")
SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])
CLASSNAMES = re.search(r"^\[classnames\.txt\]: (\S+)$", PAGE, re.MULTILINE).group(1)
HEADING = "| `NAME` | classes |"
ROWS = {
    re.match(r"\[`(\w+)`\]", row[0]).group(1): row[1:]
    for row in (
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in PAGE.split(HEADING)[1].split("\n\n")[0].splitlines()[2:]
    )
}
NAMES = [name for name in ROWS if name != "folder"]
TABLE = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in SECTIONS["When a copy is wrong"].splitlines()
    if line.startswith("|")
]
WRONG = {what: re.search("`(.+?)`", said).group(1) for what, said, _ in TABLE[2:]}
DOCUMENTED = """imagenet imagenetv2 imagenet_sketch imagenet_a imagenet_r caltech101 oxford_pets stanford_cars
    oxford_flowers food101 fgvc_aircraft sun397 dtd eurosat ucf101 folder shapes shapes_v2 shapes_sketch shapes_a
    shapes_r""".split()
LAID_OUT = [name for name in NAMES if not name.startswith("shapes")]


def numbers(cell):
    return tuple(0 if word == "-" else int(word.replace(",", "")) for word in re.findall(r"[\d,]+|-", cell))


def address(source):
    """The link to a source."""
    kind, _, name = source.partition(":")
    pages = {"drive": "https://drive.google.com/file/d/", "hub": "https://huggingface.co/datasets/"}
    return pages[kind] + name if kind in pages else source


def addresses(dataset):
    """Links to all files of a data set, and those in its steps by hand; without the mirror, which serves many."""
    found = set(re.findall(r"https://\S+?(?=[,;)\s]|$)", " ".join(dataset.by_hand)))
    found |= {address(f"drive:{dataset.split_id}")} if dataset.split_id else set()
    files = [*dataset.archives, *dataset.label_files, *dataset.annotations]
    for file in files:
        found |= {address(source) for source in file.sources}
        files += [file.inside] if file.inside else []
    return found - {address(MIRROR)}


def test_every_data_set_has_a_row_and_those_with_files_a_section():
    assert set(ROWS) == set(DOCUMENTED)
    assert set(ROWS) <= {path.stem for path in (ROOT / "configs" / "datasets").glob("*.yaml")}  # besides, a user's own
    assert list(SECTIONS)[-len(LAID_OUT) - 2 :] == [*LAID_OUT, "folder", "shapes"]  # in the table's order


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_prompts_are_the_classes(name):
    n_classes, n_items, halves, prompt = ROWS[name]
    dataset = check.find_dataset(name)
    assert (numbers(n_classes), numbers(n_items)) == ((dataset.n_classes,), dataset.n_items)
    assert prompt == dataset.prompt_template
    classes, _, test = halves.partition("; ")
    if halves != "-":
        n_base = -(-dataset.n_classes // 2)
        assert classes == f"{n_base}-{dataset.n_classes - n_base}"
    if any(dataset.n_base_new):
        assert test == "-".join(f"{n:,}" for n in dataset.n_base_new)
    if test:
        assert sum(int(n.replace(",", "")) for n in test.split("-")) == dataset.n_items[2]


@pytest.mark.parametrize("name", LAID_OUT)
def test_the_drawn_folder_is_the_one_that_is_read(name):
    dataset = check.find_dataset(name)
    first, *tree = re.search(r"```\n(.*?)```", SECTIONS[name], re.DOTALL).group(1).splitlines()
    assert first == f"$DATA/{dataset.dataset_dir}/"
    drawn = [f"{path}/" for line in tree for path in re.split("[ ,]+", line)]
    for name in filter(None, (*dataset.contents(), dataset.split_file, *(file.name for file in dataset.label_files))):
        assert any(path.startswith(f"{name}/") for path in drawn), name


@pytest.mark.parametrize("name", LAID_OUT)
def test_addresses_are_the_classes(name):
    dataset, section = check.find_dataset(name), SECTIONS[name]
    linked = set(re.findall(r"\]\((https://[^)]+)\)", section))
    linked |= {CLASSNAMES} if "[classnames.txt]" in section else set()
    assert linked == addresses(dataset)
    assert ("the mirror" in section) == dataset.mirrored
    assert f"[mirror]({address(MIRROR)})" in PAGE


@pytest.mark.parametrize("name", [name for name in LAID_OUT if check.find_dataset(name).split_id])
def test_the_rule_of_a_split_of_our_own_is_the_classes(name):
    rules = re.findall("^- ([^:]+): (.+?)[.;]$", SECTIONS["What `prepare` does"], re.MULTILINE | re.DOTALL)
    stated = {names: " ".join(rule.split()) for names, rule in rules}
    [rule] = [rule for names, rule in stated.items() if f"`{name}`" in names]
    assert rule == check.find_dataset(name).own_split_rule


def test_the_words_for_wrong_copies_are_those_of_the_checks():
    """Which copy is told which of them, tests/datasets/verify and tests/datasets/test_imagenet_files.py see."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "datasets").rglob("*.py"))
    assert len(WRONG) == 15 and [words for words in WRONG.values() if words not in source] == []
