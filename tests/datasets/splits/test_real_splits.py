"""The papers' real split files, with small images in their publishers' archives: prepared, checked, drawn from."""

import dataclasses
import io
import json
import os
import random
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from datasets import check, prepare
from engine import get_cfg_default
from tests.datasets.splits.test_few_shot import GOLDEN, golden_items

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


def write_archive(path, names):
    """Writes a tar archive that holds one small image under all these names."""
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "JPEG")
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(image.getvalue())
            tar.addfile(member, io.BytesIO(image.getvalue()))


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.real_data) for name in ARCHIVES])
def copy(request, tmp_path_factory):
    """A data set's name, the root that it was prepared under, and its split file's content."""
    folder, place = ARCHIVES[request.param]
    dataset = check.find_dataset(request.param)
    split = Path(os.environ.get("COOP_DATA", ""), folder, dataset.split_file)
    if not os.environ.get("COOP_DATA") or not split.is_file():
        pytest.skip(f"COOP_DATA does not name a folder with {folder}/{split.name}")
    given, root = tmp_path_factory.mktemp("given"), tmp_path_factory.mktemp("root")
    content = json.loads(split.read_text(encoding="utf-8"))
    (given / split.name).symlink_to(split)
    [archive] = dataset.archives
    write_archive(given / archive.name, [f"{place}/{path}" for items in content.values() for path, *_ in items])
    with pytest.MonkeyPatch.context() as patch:  # the publisher's digest is of other images
        patch.setattr(dataset, "archives", (dataclasses.replace(archive, md5="", n_bytes=0, inside=None),))
        assert prepare.main([request.param, "--root", str(root), "--from", str(given)]) == 0
    return request.param, root, content


def load(name, root, *, shots=-1, seed=1, subset="all"):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES, cfg.SEED = str(root), shots, subset, seed
    return check.find_dataset(name)(cfg)


def listed(items, name, root):
    """The items as a split file lists them."""
    dataset = check.find_dataset(name)
    images = root / dataset.dataset_dir / dataset.image_dir
    return [[Path(item.impath).relative_to(images).as_posix(), item.label, item.classname] for item in items]


def test_a_prepared_copy_passes_the_check(copy, capsys):
    name, root, content = copy
    assert check.main([name, "--root", str(root)]) == 0
    loaded = load(name, root)
    parts = (loaded.train_x, loaded.val, loaded.test)
    assert [listed(items, name, root) for items in parts] == [content[part] for part in ("train", "val", "test")]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_few_shots_are_drawn_by_the_rule(copy, shots, seed):
    name, root, content = copy
    few = load(name, root, shots=shots, seed=seed)
    assert (listed(few.train_x, name, root), listed(few.val, name, root)) == draw_by_the_rule(content, shots, seed)


def test_base_and_new_are_the_halves_of_the_labels(copy):
    name, root, content = copy
    labels = sorted({label for items in content.values() for _, label, _ in items})
    n_base = len(labels) - len(labels) // 2
    for subset, kept in (("base", labels[:n_base]), ("new", labels[n_base:])):
        loaded = load(name, root, shots=16, subset=subset)
        expected = [[path, kept.index(label), word] for path, label, word in content["test"] if label in kept]
        assert loaded.num_classes == len(kept)
        assert listed(loaded.test, name, root) == expected
