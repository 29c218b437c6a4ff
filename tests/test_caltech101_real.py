"""Caltech-101's real images and the papers' split, where COOP_DATA names the folder of the data sets."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from datasets import caltech101
from datasets.caltech101 import Caltech101
from engine import get_cfg_default

pytestmark = pytest.mark.real_data


def cfg_of(root, *, shots=-1, seed=1):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.SEED = str(root), shots, seed
    return cfg


@pytest.fixture(scope="session")
def real_root(tmp_path_factory):
    """The folder that holds caltech-101/, its images unpacked."""
    given = Path(os.environ.get("COOP_DATA", ""))
    folder = given / "caltech-101"
    if not os.environ.get("COOP_DATA") or not (folder / Caltech101.split_file).exists():
        pytest.skip("COOP_DATA does not name a folder with caltech-101/split_zhou_Caltech101.json")
    if (folder / Caltech101.image_dir).is_dir():
        return given
    unpacked = tmp_path_factory.mktemp("real") / "caltech-101"
    unpacked.mkdir()
    for name in (Caltech101.split_file, caltech101.INNER_ARCHIVE):
        shutil.copy(folder / name, unpacked)
    Caltech101.prepare(unpacked.parent)
    (unpacked / caltech101.INNER_ARCHIVE).unlink()
    return unpacked.parent


def test_the_real_copy_passes_the_check(real_root):
    report = Caltech101.check(real_root)
    assert report.ok, str(report)
    dataset = Caltech101(cfg_of(real_root))
    assert dataset.num_classes == 100
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (4128, 1649, 2465)


def test_class_names_made_from_the_folders_are_the_split_files(real_root):
    listed = Caltech101.list_items(real_root / "caltech-101" / "101_ObjectCategories")
    assert {x.classname for x in listed} == set(Caltech101(cfg_of(real_root)).classnames)
    assert len(listed) == 4128 + 1649 + 2465


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_real_few_shots_follow_the_rule(real_root, shots, seed):
    content = json.loads((real_root / "caltech-101" / "split_zhou_Caltech101.json").read_text())
    rng, expected = random.Random(seed), []
    for part, n in (("train", shots), ("val", min(shots, 4))):
        labels = list(dict.fromkeys(label for _, label, _ in content[part]))
        for label in labels:
            of_label = [path for path, other, _ in content[part] if other == label]
            expected += rng.sample(of_label, n) if len(of_label) >= n else of_label
    dataset = Caltech101(cfg_of(real_root, shots=shots, seed=seed))
    images = real_root / "caltech-101" / "101_ObjectCategories"
    drawn = [Path(x.impath).relative_to(images).as_posix() for x in dataset.train_x + dataset.val]
    assert drawn == expected


@pytest.mark.parametrize(("subset", "n_test"), [("base", 1549), ("new", 916)])
def test_real_base_and_new_classes(real_root, subset, n_test):
    cfg = cfg_of(real_root, shots=16)
    cfg.DATASET.SUBSAMPLE_CLASSES = subset
    dataset = Caltech101(cfg)
    assert (dataset.num_classes, len(dataset.test)) == (50, n_test)
