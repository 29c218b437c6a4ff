"""The papers' real split files, with small images in their publishers' archives: prepared, checked, drawn from."""

import dataclasses
import json
import os
import random
from pathlib import Path

import pytest

from datasets import check, prepare
from datasets.base import DataCopy
from tests.datasets.splits.test_few_shot import GOLDEN, golden_items
from tests.support.small_copies import CLASSES, digest_of_items, jpeg, load, pack, shown

ARCHIVES = {  # folder of the split file under COOP_DATA, and where its paths start from in the publisher's archive
    "caltech101": ("caltech-101", "101_ObjectCategories"),
    "oxford_pets": ("splits", "images"),
    "oxford_flowers": ("splits", "jpg"),
    "dtd": ("splits", "dtd/images"),
}


def draw_by_the_rule(content, shots, seed):
    """Class by class in order of first appearance, train then val, all from one rng; items are (path, label, ...)."""
    rng, drawn = random.Random(seed), {}
    for part, n_wanted in (("train", shots), ("val", min(shots, 4))):
        drawn[part] = []
        for label in dict.fromkeys(item[1] for item in content[part]):
            group = [item for item in content[part] if item[1] == label]
            drawn[part] += rng.sample(group, n_wanted) if len(group) >= n_wanted else group
    return drawn["train"], drawn["val"]


@pytest.mark.parametrize("pick", GOLDEN["picks"], ids=lambda pick: f"seed{pick['seed']}-shots{pick['shots']}")
def test_the_rule_is_the_originals(pick):
    content = {part: [(item.impath, item.label) for item in golden_items(part)] for part in ("train", "val")}
    train, val = draw_by_the_rule(content, pick["shots"], pick["seed"])
    assert ([path for path, _ in train], [path for path, _ in val]) == (pick["train"], pick["val"])


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.real_data) for name in ARCHIVES])
def prepared(request, tmp_path_factory):
    """A copy that was prepared with the real split file, and that file's content."""
    folder, top = ARCHIVES[request.param]
    copy = DataCopy(check.find_dataset(request.param), tmp_path_factory.mktemp("root"))
    split = real_split(folder, copy.split.name)
    downloads, content = tmp_path_factory.mktemp("downloads"), read_content(split)
    (downloads / split.name).symlink_to(split)
    [archive] = copy.dataset.archives
    images = dict.fromkeys((f"{top}/{path}" for items in content.values() for path, *_ in items), jpeg(0, 0))
    (downloads / archive.name).write_bytes(pack(archive.name, images))
    with pytest.MonkeyPatch.context() as patch:  # the publisher's digest is of other images
        patch.setattr(copy.dataset, "archives", (dataclasses.replace(archive, md5="", n_bytes=0, inside=None),))
        assert prepare.main([request.param, "--root", str(copy.root), "--from", str(downloads)]) == 0
    return copy, content


DIGESTED = [name for name in CLASSES if check.find_dataset(name).split_items_sha256]


@pytest.mark.real_data
@pytest.mark.parametrize("name", DIGESTED)
def test_the_items_of_the_papers_split_have_the_digest_that_is_stated(name):
    dataset = check.find_dataset(name)
    folder, _ = ARCHIVES.get(name, ("splits", ""))
    assert digest_of_items(read_content(real_split(folder, dataset.split_file))) == dataset.split_items_sha256


def real_split(folder, name):
    split = Path(os.environ.get("COOP_DATA", ""), folder, name)
    if not os.environ.get("COOP_DATA") or not split.is_file():
        pytest.skip(f"COOP_DATA does not name a folder with {folder}/{name}")
    return split


def read_content(split):
    content = json.loads(split.read_text(encoding="utf-8"))
    return {part: [tuple(item) for item in items] for part, items in content.items()}


def test_a_prepared_copy_passes_the_check(prepared, capsys):
    copy, content = prepared
    assert check.main([copy.name, "--root", str(copy.root)]) == 0
    loaded = load(copy.dataset, copy.root)
    parts = (loaded.train_x, loaded.val, loaded.test)
    assert [shown(items, copy.images) for items in parts] == [content[part] for part in ("train", "val", "test")]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_few_shots_are_drawn_by_the_rule(prepared, shots, seed):
    copy, content = prepared
    few = load(copy.dataset, copy.root, shots=shots, seed=seed)
    drawn = shown(few.train_x, copy.images), shown(few.val, copy.images)
    assert drawn == draw_by_the_rule(content, shots, seed)
