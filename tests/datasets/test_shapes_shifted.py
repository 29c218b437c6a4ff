"""The shifted sets of `shapes`: their classes, styles and seeds, their files, and that they are only tested on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from datasets import check, prepare
from datasets.drawing.shapes_drawing import Spec, draw
from datasets.drawing.shapes_masks import SHAPES
from datasets.drawing.shapes_scenes import SPLITS, class_names
from datasets.shapes import Shapes
from datasets.shapes_shifted import ShapesA, ShapesR, ShapesSketch, ShapesV2
from tests.support.small_copies import load

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SETS = {"shapes_v2": ShapesV2, "shapes_sketch": ShapesSketch, "shapes_a": ShapesA, "shapes_r": ShapesR}
N_IMAGES = 3  # of a class, as drawn here

# As docs/SHAPES.md has them: what is the same in all styles, and what differs.
SAME = {"background": "rough", "blur": 1, "noise": 14, "turn": 0.2}
AS_SHAPES = {"rendering": "photo", "light": "warm", "cast": 1.4, "clutter": 5, "size": (0.5, 0.8), "shift": 0.15}
STYLES = {
    "shapes_v2": [{"cast": 1.45, "clutter": 6, "size": (0.42, 0.72), "shift": 0.2}],
    "shapes_sketch": [{"rendering": "sketch"}],
    "shapes_a": [{"clutter": 12, "size": (0.45, 0.7)}],
    "shapes_r": [{"rendering": "drawing"}, {"rendering": "neon"}, {"rendering": "painting", "light": "cold"}],
}
SHAPES_OF = {
    "shapes_a": {"circle", "arrow", "triangle", "heart", "square", "diamond"},
    "shapes_r": {"star", "hourglass", "cross", "moon", "ring", "bolt"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The four sets, with few images of a class."""
    root = tmp_path_factory.mktemp("shifted")
    with pytest.MonkeyPatch.context() as patch:
        for dataset in SETS.values():
            patch.setattr(dataset, "n_images", N_IMAGES)
            patch.setattr(dataset, "n_items", (0, 0, N_IMAGES * dataset.n_classes))
            dataset.prepare(root)
        yield root


def build(name, root, subset="all"):
    return load(SETS[name], root, shots=16, subset=subset)


def expected_spec(name, class_name, number):
    texture, colour, shape = class_name.split()
    differs = STYLES[name][number % len(STYLES[name])]
    return Spec(shape, colour, texture, **{**SAME, **AS_SHAPES, **differs})


# Classes, counts, seeds


def test_every_seed_is_used_once():
    used_elsewhere = {1, 776, 777}  # the pretraining; where the style was chosen
    seeds = [dataset.seed for dataset in SETS.values()] + [seed for _, seed in SPLITS.values()]
    assert len(set(seeds)) == 4 + 3 and not used_elsewhere & set(seeds)


def test_half_of_the_classes_are_every_other_shape():
    for name, shapes in SHAPES_OF.items():
        assert {class_name.split()[2] for class_name in names_of(name)} == shapes
        assert len(set(SETS[name].source_labels)) == 48
    assert set(ShapesA.source_labels).isdisjoint(ShapesR.source_labels)
    assert SHAPES_OF["shapes_a"] | SHAPES_OF["shapes_r"] == set(SHAPES)


def names_of(name):
    names, labels = class_names(), SETS[name].source_labels
    return names if labels is None else [names[label] for label in labels]


@pytest.mark.parametrize("name", SETS)
def test_classes_are_those_of_the_source_at_their_labels(name, root):
    dataset = build(name, root)
    assert dataset.classnames == names_of(name)
    assert (dataset.source_labels is None) == (name not in SHAPES_OF)
    assert (dataset.train_x, dataset.val, len(dataset.test)) == ([], [], N_IMAGES * dataset.num_classes)
    assert dataset.prompt_template == Shapes.prompt_template


@pytest.mark.parametrize("name", SHAPES_OF)
def test_base_and_new_classes_keep_their_labels_at_the_source(name, root):
    base, new = build(name, root, "base"), build(name, root, "new")
    assert base.source_labels + new.source_labels == SETS[name].source_labels
    for half in (base, new):
        assert half.classnames == [class_names()[label] for label in half.source_labels]


# Images


@pytest.mark.parametrize("name", SETS)
def test_images_are_what_the_rule_says(name, root):
    names = names_of(name)
    for index, item in enumerate(build(name, root).test):
        label, number = divmod(index, N_IMAGES)
        assert (item.label, item.classname) == (label, names[label])
        if label % 5 == 0:
            rng = np.random.Generator(np.random.PCG64([SETS[name].seed, label, number]))
            image = draw(expected_spec(name, names[label], number), rng)
            np.testing.assert_array_equal(np.asarray(Image.open(item.impath)), image)


def test_a_second_preparation_changes_nothing_and_another_place_gets_the_same(root, tmp_path):
    files = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    for dataset in SETS.values():
        dataset.prepare(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == files
    ShapesR.prepare(tmp_path)
    for path in tmp_path.rglob("*.png"):
        assert path.read_bytes() == (root / path.relative_to(tmp_path)).read_bytes()


@pytest.mark.parametrize("name", SETS)
def test_the_commands_know_the_set(name, root, capsys):
    assert prepare.main([name, "--root", str(root)]) == check.main([name, "--root", str(root), "--decode"]) == 0
    n_classes = SETS[name].n_classes
    expected = f"{n_classes} classes; items: train 0, val 0, test {N_IMAGES * n_classes:,}"
    assert capsys.readouterr().out.count(expected) == 2


# Only tested on


def call(name, root, output, *words):
    files = [
        f"--dataset-config-file={CONFIGS}/datasets/{name}.yaml",
        f"--config-file={CONFIGS}/trainers/CoOp/tiny.yaml",
    ]
    pairs = ["USE_CUDA", "False", "DATALOADER.NUM_WORKERS", "0"]
    return train.main([*files, f"--root={root}", f"--output-dir={output}", "--seed=1", *words, *pairs])


def test_training_on_it_is_refused(root, tmp_path, capsys):
    assert call("shapes_a", root, tmp_path / "run", "--trainer=CoOp") == 1
    assert "The data set ShapesA has no training items. It is for testing" in capsys.readouterr().err


@pytest.mark.parametrize("name", SETS)
def test_zero_shot_clip_is_tested_on_it_and_well_above_chance(name, root, tmp_path):
    assert call(name, root, tmp_path / "run", "--trainer=ZeroshotCLIP", "--eval-only") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["dataset"], results["total"]) == (SETS[name].__name__, N_IMAGES * SETS[name].n_classes)
    assert 20 < results["accuracy"] < 65  # chance is 1 or 2; of 144 images, 4 points are one standard deviation
