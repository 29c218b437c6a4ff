"""Caltech-101's real archive and the papers' split, where COOP_DATA names the folder of the data sets."""

import os
import shutil
from pathlib import Path

import pytest

from datasets import check, prepare
from datasets.base import DataCopy
from datasets.caltech101 import Caltech101
from engine import get_cfg_default
from tests.datasets.splits.test_real_splits import draw_by_the_rule, read_content
from tests.support.small_copies import shown

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def real_root(tmp_path_factory):
    """A root that was prepared from the real files; nobody changes it."""
    downloads = Path(os.environ.get("COOP_DATA", ""), "caltech-101")
    needed = (Caltech101.split_file, Caltech101.archives[0].name)
    if not os.environ.get("COOP_DATA") or not all((downloads / name).is_file() for name in needed):
        pytest.skip(f"COOP_DATA does not name a folder with {' and '.join(f'caltech-101/{name}' for name in needed)}")
    root = tmp_path_factory.mktemp("real")
    assert prepare.main(["caltech101", "--root", str(root), "--from", str(downloads)]) == 0
    yield root
    shutil.rmtree(root)


def test_every_image_of_the_real_copy_decodes(real_root, capsys):
    assert check.main(["caltech101", "--root", str(real_root), "--decode"]) == 0
    assert f"{sum(Caltech101.n_items):,} image(s) were decoded" in capsys.readouterr().out


def test_class_names_made_from_the_folders_are_the_split_files(real_root):
    images = real_root / "caltech-101" / "101_ObjectCategories"
    by_path = {item.impath: item.classname for item in Caltech101.list_items(images)}
    assert by_path == {item.impath: item.classname for items in Caltech101.read_items(real_root) for item in items}


def test_exported_few_shots_are_drawn_by_the_rule_and_read_back(real_root, tmp_path):
    few, shots, seed = tmp_path / "few.jsonl", 2, 3
    words = ["--root", str(real_root), "--export-fewshot", str(few), "--shots", str(shots), "--seed", str(seed)]
    assert prepare.main(["caltech101", *words]) == 0
    copy = DataCopy(Caltech101, real_root)
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.FEWSHOT_FILE = str(real_root), str(few)
    dataset = Caltech101(cfg)
    drawn = shown(dataset.train_x, copy.images), shown(dataset.val, copy.images)
    assert drawn == draw_by_the_rule(read_content(copy.split), shots, seed)
    assert len(dataset.test) == Caltech101.n_items[2]
