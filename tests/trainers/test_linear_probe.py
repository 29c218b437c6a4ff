"""Linear probe: the search after its description with scikit-learn, features by hand, restricted outputs, errors."""

import json
import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torchvision.transforms import functional as TF

import train
from clip import build_model
from engine import load_checkpoint
from engine.config.load import read_yaml
from tests.support.script_calls import ROOT, call, commands, words
from tests.support.tiny_clip import golden_state_dict
from tests.support.tiny_run import CLASSES, build_trainer, tiny_cfg, write_images
from tests.support.tolerance import EXACT, FIT, assert_near
from trainers import linear_probe
from trainers.linear_probe import fit, linear_weights, measure, search_log_c

PROBE = ("TRAINER.NAME", "LinearProbe", "TRAINER.LINEAR_PROBE.PREC", "fp32")


@pytest.fixture
def make(tiny_files, tmp_path):
    """Builds a LinearProbe on the tiny folder, or on another, whose own folder is tmp_path/run."""

    def build(*pairs, data=None, folder="run"):
        return build_trainer(tiny_cfg(data or tiny_files[0], tiny_files[1]["vit"], tmp_path / folder, *PROBE, *pairs))

    return build


def made_up(n_classes, seed):
    """Features and labels of two sets of 5 and 8 items of each class: directions with much noise."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_classes, 16))
    sets = []
    for n_items in (5, 8):
        labels = np.arange(n_classes * n_items) % n_classes
        noise = 1.5 * rng.standard_normal((len(labels), 16))
        sets.append(((centres[labels] + noise).astype(np.float32), labels))
    return sets


def naive_search(train_set, selection):
    """The search as it is described, every fit done anew."""

    def accuracy(c):
        model = LogisticRegression(C=c, solver="lbfgs", max_iter=1000).fit(*train_set)
        return np.mean(model.predict(selection[0]) == selection[1])

    candidates = [1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6]
    best = candidates[int(np.argmax([accuracy(c) for c in candidates]))]
    low, high = math.log10(best) - 1, math.log10(best) + 1  # plain floats: a NumPy one makes scikit-learn use float64
    for _ in range(8):
        if accuracy(10**low) < accuracy(10**high):
            winner, low = high, (low + high) / 2
        else:
            winner, high = low, (low + high) / 2
    return winner


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize(("n_classes", "seed"), [(2, 0), (3, 1), (6, 2), (6, 3)])
def test_the_search_finds_the_c_of_the_description(n_classes, seed):
    train_set, selection = made_up(n_classes, seed)
    found = search_log_c(partial(measure, train_set, selection))
    assert found == pytest.approx(naive_search(train_set, selection), abs=1e-9)


@pytest.mark.parametrize("best", [-6.6, -2.37, 0.99, 4.5])
def test_eight_bisections_come_close_to_the_best_with_fifteen_fits(best):
    asked = []

    def accuracy(log_c):
        asked.append(log_c)
        return -abs(log_c - best)

    assert search_log_c(accuracy) == pytest.approx(best, abs=2 / 2**7)
    assert asked[:7] == [6, 4, 2, 0, -2, -4, -6]
    assert len(asked) == len(set(asked)) == 7 + 2 + 6  # the second bisection starts at the grid's best


def test_ties_go_to_the_largest_of_the_grid_and_the_smaller_end():
    assert search_log_c(lambda log_c: 50.0) == 6 - 1
    assert search_log_c(lambda log_c: float(log_c in (2, -2))) == 2


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_fit_is_a_linear_layer(n_classes):
    train_set, (features, _) = made_up(n_classes, seed=4)
    classifier = LogisticRegression(C=0.1, max_iter=1000).fit(*train_set)
    layer = torch.nn.Linear(16, n_classes)
    layer.load_state_dict(linear_weights(fit(*train_set, log_c=-1)))
    features = features.astype(np.float64)
    assert_near(layer.double()(torch.from_numpy(features)).softmax(dim=1), classifier.predict_proba(features), EXACT)


def by_hand(path, cfg):
    """An image as the test transform leaves it, (1, 3, 32, 32), through CLIP's image tower: (1, E)."""
    image = Image.open(path).convert("RGB")  # 40 x 36 pixels
    image = TF.center_crop(TF.resize(image, 32), [32, 32])
    mean, std = (torch.tensor(values)[:, None, None] for values in (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
    with torch.no_grad():
        return build_model(golden_state_dict("vit")).encode_image(((TF.to_tensor(image) - mean) / std)[None])


@pytest.mark.parametrize("sampler", ["SequentialSampler", "RandomSampler"])
def test_features_are_clips_of_images_without_augmentation_in_the_order_of_the_items(make, sampler):
    trainer = make("DATALOADER.TEST.SAMPLER", sampler)
    items = random.Random(1).sample(trainer.dm.dataset.train_x, 6)
    features, labels = trainer.extract_features(items)
    assert (features.dtype, labels.tolist()) == (np.float32, [item.label for item in items])
    expected = torch.cat([by_hand(item.impath, trainer.cfg) for item in items])
    assert_near(features, expected)


def test_half_precision_gives_float32_features_near_those_of_float32(make):
    items = make().dm.dataset.test
    half, full = (make("TRAINER.LINEAR_PROBE.PREC", prec).extract_features(items)[0] for prec in ("bf16", "fp32"))
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 0.1 * np.abs(full).max()


class TestTraining:
    def test_the_classifier_is_fitted_on_all_training_items_with_the_c_that_won(self, make):
        trainer = make()
        trainer.train()
        dataset = trainer.dm.dataset
        (features, labels), selection = map(trainer.extract_features, (dataset.train_x, dataset.val))
        log_c = naive_search((features, labels), selection)
        expected = LogisticRegression(C=10**log_c, max_iter=1000).fit(features, labels)
        assert_near(trainer.classifier.weight, expected.coef_, FIT)
        assert_near(trainer.classifier.bias, expected.intercept_, FIT)
        features, labels = trainer.extract_features(dataset.test)
        assert trainer.results["accuracy"] == pytest.approx(100 * expected.score(features, labels))
        assert trainer.result_fields() == {"n_params": 3 * 32 + 3, "c": pytest.approx(10**log_c)}

    def test_held_out_items_that_are_trained_on_are_left_out_while_c_is_searched(
        self, make, tiny_files, tmp_path, monkeypatch
    ):
        """Without val items and with all of the four training items of a class, two of these are held out."""
        sizes = []
        monkeypatch.setattr(
            linear_probe, "measure", lambda fitted, on, log_c: sizes.append((len(fitted[1]), len(on[1])))
        )
        monkeypatch.setattr(linear_probe, "search_log_c", lambda accuracy: accuracy(0) or 0)
        fits = []
        monkeypatch.setattr(linear_probe, "fit", lambda *args: fits.append(len(args[1])) or fit(*args))
        make(data=write_images(tmp_path / "data", splits=("train", "test"))).train()
        assert (sizes, fits) == ([(6, 6)], [12])


def run(tiny_files, output_dir, *words):
    """One call of train.py on the tiny config, whose backbone and size are replaced."""
    argv = ["--trainer", "LinearProbe", "--output-dir", str(output_dir), "--root", str(tiny_files[0]), "--seed", "1"]
    argv += ["--config-file", str(ROOT / "configs/trainers/LinearProbe/tiny.yaml"), *words]
    pairs = {"DATASET.NAME": "Folder", "INPUT.SIZE": "(32, 32)", "MODEL.BACKBONE.NAME": str(tiny_files[1]["vit"])}
    pairs |= {"USE_CUDA": "False", "DATALOADER.NUM_WORKERS": "0"}
    return train.main(argv + [word for pair in pairs.items() for word in pair])


def test_a_run_end_to_end_and_its_test_elsewhere(tiny_files, tmp_path, capsys):
    """TEST.FINAL_MODEL best_val takes the one model that there is."""
    pairs = ("DATASET.NUM_SHOTS", "2", "TEST.FINAL_MODEL", "best_val")
    assert run(tiny_files, tmp_path / "run", *pairs) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert (results["trainer"], results["shots"], results["source"]) == ("LinearProbe", 2, "Folder")
    assert (results["n_params"], results["n_ctx"], results["epoch"]) == (99, None, 0)
    assert 0 < results["c"] <= 1e7
    assert results["accuracy"] == pytest.approx(100 * results["correct"] / 9)
    log = (tmp_path / "run/log.txt").read_text()
    assert "C = 1.000e+06: " in log
    assert log.count("% of 6 items (") == 15
    assert log.index("Choose C = ") < log.index("\nFinish training\n") < log.index("\n=> result\n* total: 9\n")
    checkpoint = load_checkpoint(tmp_path / "run/classifier/model-best.pth.tar")
    assert checkpoint["classnames"] == list(CLASSES)
    assert run(tiny_files, tmp_path / "eval", "--eval-only", "--model-dir", str(tmp_path / "run")) == 0
    evaluated = json.loads((tmp_path / "eval/results.json").read_text())
    for key in ("accuracy", "macro_f1", "c", "n_params", "source", "shots"):
        assert evaluated[key] == results[key]
    assert run(tiny_files, tmp_path / "run", *pairs) == 0
    assert "Done already: " in capsys.readouterr().out


class TestOtherDataSets:
    @pytest.fixture
    def trained(self, make):
        trainer = make()
        trainer.train()
        return trainer

    def test_of_some_classes_only_their_outputs_are_kept(self, make, trained, some_classes):
        trainer = make("DATASET.NAME", "Some", "RUN.EVAL_ONLY", True, data=some_classes[1], folder="eval")
        trainer.load_model(trained.output_dir)
        images = torch.randn(5, 3, 32, 32)
        assert torch.equal(trainer.model_inference(images), trained.model_inference(images)[:, [2, 0]])
        assert trainer.result_fields()["c"] == trained.result_fields()["c"]
        trainer.test()
        features, labels = trained.extract_features([x for x in trained.dm.dataset.test if x.label != 1])
        logits = trained.classifier(torch.from_numpy(features))
        logits[:, 1] = -torch.inf
        expected = 100 * (logits.argmax(dim=1).numpy() == labels).mean()
        assert (trainer.results["total"], trainer.results["accuracy"]) == (6, pytest.approx(expected))

    @pytest.mark.parametrize(
        ("entry", "value", "reason"),
        [
            ("weight", torch.zeros(2, 32), r"`weight` is \(2, 32\), which is not a row for each of its 3 `classnames`"),
            ("log_c", "x", "`log_c` is 'x'; it must be a number from -7 to 7, or None"),
            ("log_c", 400.0, "`log_c` is 400.0; it must be a number from -7 to 7, or None"),
        ],
    )
    def test_a_strangers_entry_is_refused(self, make, trained, some_classes, tmp_path, entry, value, reason):
        path = trained.output_dir / "classifier" / "model-best.pth.tar"
        checkpoint = torch.load(path)
        (checkpoint["state_dict"] if entry in checkpoint["state_dict"] else checkpoint)[entry] = value
        (tmp_path / "other" / "classifier").mkdir(parents=True)
        torch.save(checkpoint, tmp_path / "other" / "classifier" / path.name)
        trainer = make("DATASET.NAME", "Some", "RUN.EVAL_ONLY", True, data=some_classes[1], folder="eval")
        with pytest.raises(ValueError, match=rf"other/classifier/{path.name}: The .*{reason}\. Name another"):
            trainer.load_model(tmp_path / "other")

    def test_a_model_is_needed(self, make):
        with pytest.raises(ValueError, match="--model-dir is empty. Give the folder of a LinearProbe run"):
            make("RUN.EVAL_ONLY", True).load_model("")


class TestConfig:
    def test_options(self, make):
        with pytest.raises(ValueError, match="LINEAR_PROBE.PREC is 'amp', expected one of: fp32, fp16, bf16"):
            make("TRAINER.LINEAR_PROBE.PREC", "amp")
        for key in ("RESUME", "MODEL.INIT_WEIGHTS"):
            with pytest.raises(
                ValueError, match=f"{key} is .*x, but LinearProbe is fitted from the start. Leave it out"
            ):
                make(key, "x")

    def test_one_class(self, make):
        with pytest.raises(ValueError, match="The data set Folder has 1 class. A linear probe needs at least 2"):
            make("DATASET.SUBSAMPLE_CLASSES", "new")

    def test_nothing_to_choose_c_on(self, make, tmp_path):
        data = write_images(tmp_path / "data", splits=("train", "test"))
        for path in data.glob("train/*/[1-9].png"):
            path.unlink()
        with pytest.raises(ValueError, match="Folder has no items to choose C on. Add validation items"):
            make(data=data)
        assert make("RUN.EVAL_ONLY", True, data=data)

    def test_the_files_are_called_as_their_backbones(self):
        files = {path.stem: read_yaml(path) for path in (ROOT / "configs/trainers/LinearProbe").glob("*.yaml")}
        tiny = files.pop("tiny")
        assert {name: file["MODEL.BACKBONE.NAME"] for name, file in files.items()} == {
            "rn50": "RN50",
            "rn101": "RN101",
            "vit_b32": "ViT-B/32",
            "vit_b16": "ViT-B/16",
        }
        assert (tiny["TRAINER.LINEAR_PROBE.PREC"], tiny["DATALOADER.NUM_WORKERS"]) == ("fp32", 1)


def test_the_training_script_starts_these_commands():
    expected = """train.py --output-dir output/imagenet/LinearProbe/rn50_16shots/seed{seed} --seed {seed}
        --trainer LinearProbe --dataset-config-file configs/datasets/imagenet.yaml
        --config-file configs/trainers/LinearProbe/rn50.yaml DATASET.NUM_SHOTS 16 TEST.NO_TEST True"""
    found = commands(call("linear_probe/main.sh", "imagenet rn50 16 TEST.NO_TEST True"))
    assert found == [words(expected, seed=seed) for seed in (1, 2, 3)]


@pytest.mark.parametrize(
    ("source", "shots", "environment"), [("imagenet", 16, {}), ("shapes", 4, {"SOURCE": "shapes", "SHOTS": "4"})]
)
def test_the_evaluation_script_starts_this_command(source, shots, environment):
    expected = """train.py --root /data --output-dir /o/evaluation/LinearProbe/tiny_{shots}shots/shapes_a/seed2
        --seed 2 --trainer LinearProbe --dataset-config-file configs/datasets/shapes_a.yaml
        --config-file configs/trainers/LinearProbe/tiny.yaml
        --model-dir /o/{source}/LinearProbe/tiny_{shots}shots/seed2 --eval-only"""
    environment = {"DATA": "/data", "OUTPUT": "/o", "SEEDS": "2", **environment}
    found = commands(call("linear_probe/eval.sh", "shapes_a tiny", **environment))
    assert found == [words(expected, source=source, shots=shots)]
