"""An exported classifier: the same answers from numpy alone, in a process without this project; and read back."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import export
from engine import TRAINER_REGISTRY
from inference.classifier import Classifier
from tests.support.tiny_run import CLASSES, run_train, tiny_cfg
from tests.support.tolerance import assert_near
from trainers.coop import CoOp

ALONE = """
import json, sys
import numpy as np
from safetensors.numpy import load_file

assert not any(name in sys.modules for name in ("engine", "clip", "torch"))
head, x = load_file(sys.argv[1] + "/classifier.safetensors"), np.load(sys.argv[2])
if "scale" in head:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
logits = head.get("scale", 1) * x @ head["weight"].T + head.get("bias", 0)
for key, owner in zip(head.get("keys", ()), head.get("owners", ())):
    logits[:, owner] += head["alpha"] * np.exp(-head["beta"] * (1 - x @ key))
names = json.load(open(sys.argv[1] + "/config.json", encoding="utf-8"))["classnames"]
print(json.dumps({"logits": logits.tolist(), "names": [names[i] for i in logits.argmax(axis=1)]}))
"""


@pytest.fixture
def exported(tiny_files, tmp_path):
    """exported(KEY, VALUE, ...): the folder of a tiny run, its classifier, and the folder that it is exported to."""

    def exported(*pairs):
        cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", "FEATURES.DIR", "", *pairs)
        results = run_train(cfg)
        assert export.main([cfg.OUTPUT_DIR, "--out", str(tmp_path / "out")]) == 0
        return results, Classifier.from_run(cfg.OUTPUT_DIR), tmp_path / "out"

    return exported


@pytest.mark.parametrize(
    "options",
    [
        ("TRAINER.NAME", "CoOp"),
        ("TRAINER.NAME", "CoOp", "TRAINER.COOP.CSC", True),
        ("TRAINER.NAME", "KgCoOp"),
        ("TRAINER.NAME", "ProGrad"),
        ("TRAINER.NAME", "TCP"),
        ("TRAINER.NAME", "LinearProbe"),
        ("TRAINER.NAME", "LPPlusPlus"),
        ("TRAINER.NAME", "GDA"),
        ("TRAINER.NAME", "TipAdapter"),
        ("TRAINER.NAME", "TipAdapterF", "OPTIM.NAME", "adamw"),
        ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True),
        ("TRAINER.NAME", "ZeroshotCLIP2", "RUN.EVAL_ONLY", True),
    ],
)
def test_numpy_alone_gives_the_same_answers_and_so_does_reading_it_back(tiny_files, tmp_path, exported, options):
    images = sorted((tiny_files[0] / "test").glob("*/*.png"))
    results, classifier, folder = exported(*options)
    np.save(tmp_path / "x.npy", classifier.image_features(images).numpy())

    command = [sys.executable, "-I", "-c", ALONE, str(folder), str(tmp_path / "x.npy")]
    alone = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)

    assert_near(alone["logits"], classifier.logits(images))
    assert alone["names"] == classifier(images).names
    back = Classifier.from_export(folder)
    assert back.classnames == list(CLASSES)
    assert_near(back.logits(images), classifier.logits(images))
    facts = json.loads((folder / "config.json").read_text())
    assert {key: facts[key] for key in ("accuracy", "seed", "shots", "trainer")} == {
        key: results[key] for key in ("accuracy", "seed", "shots", "trainer")
    }
    with pytest.raises(ValueError, match="is no run's folder.*It is an export: demo.py, "):
        Classifier.from_run(folder)
    card = (folder / "README.md").read_text()
    assert f"{results['accuracy']:.2f} %" in card and "face, leopard, wine_bottle" in card


def test_the_preprocessing_is_that_of_a_test(exported):
    folder = exported("INPUT.TRANSFORMS", ("random_resized_crop", "random_flip", "normalize"))[2]
    assert json.loads((folder / "config.json").read_text())["preprocessing"]["TRANSFORMS"] == ["normalize"]


@pytest.mark.parametrize("name", ["CoOp", "LinearProbe", "LPPlusPlus", "TipAdapter"])  # of each kind of head one
def test_the_lines_on_the_page_run(tiny_files, tmp_path, exported, name):
    images = sorted((tiny_files[0] / "test").glob("*/*.png"))
    _, classifier, folder = exported("TRAINER.NAME", name)
    np.save(folder / "features.npy", classifier.image_features(images).numpy())
    lines = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]

    said = subprocess.run([sys.executable, "-I", "-c", lines], cwd=folder, capture_output=True, text=True, check=True)

    assert said.stdout.strip() == str(classifier(images).names)


def test_class_features_of_each_image_are_refused(tiny_files, tmp_path, capsys):
    cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", "TRAINER.NAME", "CoCoOp", "FEATURES.DIR", "")
    run_train(cfg)
    assert export.main([cfg.OUTPUT_DIR, "--out", str(tmp_path / "out")]) == 1
    assert "CoCoOp does more than one matrix does" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_subclass_that_changes_the_logits_is_no_matrix(tiny_files, tmp_path, register, capsys):
    class Sharper(CoOp):
        def classify_features(self, features):
            return 2 * super().classify_features(features)

    register(TRAINER_REGISTRY, Sharper)
    cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", "TRAINER.NAME", "Sharper", "FEATURES.DIR", "")
    run_train(cfg)
    assert export.main([cfg.OUTPUT_DIR, "--out", str(tmp_path / "out")]) == 1
    assert "Sharper does more than one matrix does" in capsys.readouterr().err


def test_logits_that_differ_near_one_image_alone_are_no_matrix(tiny_files, tmp_path, register, capsys):
    class Remembering(CoOp):
        def classify_features(self, features):
            key = torch.eye(features.shape[1])[0]  # of an image, which no random feature is near
            is_near = torch.exp(100 * (F.cosine_similarity(features, key) - 1))
            return super().classify_features(features) + 9 * is_near[:, None] * torch.eye(len(CLASSES))[0]

    register(TRAINER_REGISTRY, Remembering)
    pairs = ("TRAINER.NAME", "Remembering", "FEATURES.DIR", "")
    cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", *pairs)
    run_train(cfg)
    assert export.main([cfg.OUTPUT_DIR, "--out", str(tmp_path / "out")]) == 1
    assert "Remembering does more than one matrix does" in capsys.readouterr().err


def test_a_folder_of_other_files_is_not_replaced(exported, tmp_path, capsys):
    _, classifier, folder = exported()
    assert export.main([str(tmp_path / "run"), "--out", str(folder)]) == 0  # its own export is
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_text("x")
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "photos")]) == 1
    assert "holds other files. Name a new folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_folder_with_more_than_an_export_is_not_replaced(exported, tmp_path, capsys):
    _, _, folder = exported()
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")  # as other programs' folders have one

    for other in (folder, tmp_path / "model"):
        assert export.main([str(tmp_path / "run"), "--out", str(other)]) == 1
        assert "holds other files. Name a new folder" in capsys.readouterr().err
    assert (folder / "notes.txt").exists() and (tmp_path / "model/config.json").read_text() == "{}"


def test_an_export_may_be_the_current_folder_and_says_where_it_cannot_be_written(
    exported, tmp_path, monkeypatch, capsys
):
    exported()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert export.main([str(tmp_path / "run"), "--out", "."]) == 0
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "README.md",
        "classifier.safetensors",
        "config.json",
    ]
    (tmp_path / "file").write_text("x")
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "file")]) == 1
    assert "file is a file. Name a new folder" in capsys.readouterr().err


def test_the_page_of_another_epoch_has_not_the_accuracy_of_the_tested_one(tiny_files, tmp_path):
    pairs = ("FEATURES.DIR", "", "TRAIN.CHECKPOINT_FREQ", 1)
    cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", *pairs)
    run_train(cfg)
    assert export.main([cfg.OUTPUT_DIR, "--out", str(tmp_path / "first"), "--epoch", "1"]) == 0

    facts = json.loads((tmp_path / "first/config.json").read_text())
    assert (facts["trainer"], facts["source"], facts["epoch"]) == ("CoOp", "Folder", 1)
    assert facts["accuracy"] is None
    assert "It was not tested." in (tmp_path / "first/README.md").read_text()
    (tmp_path / "run/results.json").unlink()  # an unfinished run's
    assert export.main([cfg.OUTPUT_DIR, "--out", str(tmp_path / "unfinished"), "--epoch", "1"]) == 0
    assert "# CoOp on Folder" in (tmp_path / "unfinished/README.md").read_text()


def test_results_of_an_evaluator_that_counts_no_images_go_on_the_page(tmp_path, exported):
    exported()
    path = tmp_path / "run/results.json"
    results = json.loads(path.read_text())
    del results["total"]  # Dassl's own says none
    path.write_text(json.dumps(results))
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    assert f"Accuracy on Folder: {results['accuracy']:.2f} %.\n" in (tmp_path / "out/README.md").read_text()


def test_a_strangers_folder_that_does_not_fit_is_refused(exported):
    _, classifier, folder = exported()
    with pytest.raises(ValueError, match="knows no other classes than its own"):
        Classifier.from_export(folder).with_classes(["a", "b", "c"])

    tensors = load_file(folder / "classifier.safetensors")
    save_file({**tensors, "weight": torch.zeros(2, 8)}, folder / "classifier.safetensors")
    with pytest.raises(ValueError, match="has 2 rows for 3 class names"):
        Classifier.from_export(folder)
    save_file({**tensors, "weight": torch.zeros(3, 5)}, folder / "classifier.safetensors")
    with pytest.raises(ValueError, match="5 numbers for each class, .* gives features of"):
        Classifier.from_export(folder)
    save_file({"weight": tensors["weight"], "bias": torch.zeros(1)}, folder / "classifier.safetensors")
    with pytest.raises(ValueError, match="classifier.safetensors is not what export.py writes"):
        Classifier.from_export(folder)
    (folder / "classifier.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="classifier.safetensors is not what export.py writes"):
        Classifier.from_export(folder)
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, "classnames": "abc"}))
    with pytest.raises(ValueError, match="config.json is not what export.py writes"):
        Classifier.from_export(folder)


@pytest.mark.parametrize(
    "change", [{"owners": torch.full((3,), 3)}, {"owners": torch.tensor([0])}, {"keys": torch.zeros(3, 5)}]
)
def test_a_strangers_keys_that_do_not_fit_are_refused(exported, change):
    folder = exported("TRAINER.NAME", "TipAdapter", "DATASET.NUM_SHOTS", 1)[2]
    path = folder / "classifier.safetensors"
    save_file({**load_file(path), **change}, path)
    with pytest.raises(ValueError, match="keys .N, E. and owners .N,. from 0 to C - 1 are needed"):
        Classifier.from_export(folder)
