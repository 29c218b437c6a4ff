"""A finished run as a classifier: the test's own logits, without the data set; other classes; words alone."""

import re
import shlex
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import train
from clip.clip import load, tokenize
from clip.prompts import PromptEncoder
from clip.weights import read_state_dict
from engine import DATASET_REGISTRY
from inference.classifier import Classifier
from tests.support.tiny_run import CLASSES, build_trainer, run_train, tiny_cfg, train_flags, write_images
from tests.support.tolerance import assert_near

PLUGIN = """
from engine import TRAINER_REGISTRY
from trainers.coop import CoOp
from yacs.config import CfgNode as CN

@TRAINER_REGISTRY.register()
class Sharper(CoOp):
    @staticmethod
    def add_config(cfg):
        cfg.TRAINER.SHARPER = CN({"FACTOR": 1.0})

    def classify_features(self, features):
        return self.cfg.TRAINER.SHARPER.FACTOR * super().classify_features(features)
"""


@pytest.fixture
def make(tiny_files, tmp_path):
    """make(name, KEY, VALUE, ...): a tiny run's config in a folder of that name."""
    data, clips = tiny_files
    return lambda name, *pairs: tiny_cfg(data, clips["vit"], tmp_path / name, "FEATURES.DIR", "", *pairs)


@pytest.fixture
def paths(tiny_files):
    """The nine test images, in the order of the test."""
    return sorted((tiny_files[0] / "test").glob("*/*.png"))


def trained(trainer):
    """The options of a run that trains, or only tests where there is nothing to train."""
    return ["TRAINER.NAME", trainer, "RUN.EVAL_ONLY", trainer.startswith("Zeroshot"), "OPTIM.MAX_EPOCH", 1]


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp", "LinearProbe", "ZeroshotCLIP"])
def test_logits_are_those_of_the_runs_own_test_without_its_data(tiny_files, tmp_path, name):
    data = write_images(tmp_path / "data")
    cfg = tiny_cfg(data, tiny_files[1]["vit"], tmp_path / "run", "FEATURES.DIR", "", *trained(name))
    results = run_train(cfg)
    trainer = build_trainer(cfg)
    if not cfg.RUN.EVAL_ONLY:
        trainer.load_model(cfg.OUTPUT_DIR, epoch=results["epoch"] or None)
    trainer.test()
    logits = torch.cat([logits for logits, _ in trainer.predictions("test")])
    images = sorted((data / "test").glob("*/*.png"))
    shutil.move(data, tmp_path / "elsewhere")

    classifier = Classifier.from_run(tmp_path / "run")

    moved = [tmp_path / "elsewhere" / path.relative_to(data) for path in images]
    assert classifier.classnames == list(CLASSES)
    assert torch.equal(classifier.logits(moved), logits)
    predicted = [CLASSES.index(name) for name in classifier(moved).names]
    assert sum(i == j // 3 for j, i in enumerate(predicted)) == results["correct"]


class TestImages:
    @pytest.fixture
    def classifier(self, make):
        run_train(make("run"))
        return Classifier.from_run(make("run").OUTPUT_DIR)

    def test_paths_pil_images_arrays_and_folders_are_the_same_images(self, classifier, paths):
        probabilities, names = classifier(paths)
        images = [Image.open(path) for path in paths]

        assert_near(probabilities, classifier.logits(paths).softmax(dim=1))
        assert names == [CLASSES[i] for i in probabilities.argmax(dim=1)]
        for same in (images, [np.asarray(image) for image in images], paths[0].parents[1]):
            assert_near(classifier(same).probabilities, probabilities)

    def test_topk_is_sorted_and_one_image_is_enough(self, classifier, paths):
        probabilities = classifier(paths[0]).probabilities[0].tolist()
        ranked = sorted(zip(CLASSES, probabilities), key=lambda pair: -pair[1])

        assert classifier.topk(paths[0], k=9) == [ranked]

    def test_text_features_and_image_features_give_the_logits(self, classifier, paths):
        scale = classifier.trainer.clip_model.logit_scale.exp()
        cosines = F.normalize(classifier.image_features(paths), dim=1) @ classifier.text_features().t()

        assert_near(scale * cosines, classifier.logits(paths))

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            ([], "There are no images"),
            ([np.zeros((4, 4))], "An array is float64 of shape .4, 4.; it must be uint8"),
            ([np.zeros((4, 4, 2), np.uint8)], "An array is uint8 of shape .4, 4, 2.; it must be uint8"),
            ([3], "An image is of type int"),
        ],
    )
    def test_what_is_no_image_is_refused(self, classifier, images, message):
        with pytest.raises(ValueError, match=message):
            classifier(images)


class TestClasses:
    def test_contexts_of_each_class_refuse_others(self, make):
        run_train(make("run", "TRAINER.COOP.CSC", True))
        classifier = Classifier.from_run(make("run").OUTPUT_DIR)

        with pytest.raises(ValueError, match="learned for each of 3 classes"):
            classifier.with_classes(["tea_pot", "face"])

    def test_a_text_is_no_list_of_classes(self, make, tiny_files):
        run_train(make("run"))
        with pytest.raises(ValueError, match="The classes are 'cat'; they must be a list of names"):
            Classifier.from_run(make("run").OUTPUT_DIR).with_classes("cat")
        with pytest.raises(ValueError, match="they must be a list of names"):
            Classifier.zero_shot(tiny_files[1]["vit"], [])

    def test_classes_of_ones_own_that_are_one_prompt_are_warned_of(self, make):
        run_train(make("run"))
        classifier = Classifier.from_run(make("run").OUTPUT_DIR)

        assert classifier.trainer.warnings == []
        (warning,) = classifier.with_classes(["face", "tea_pot", "tea pot"]).trainer.warnings
        assert "Some classes make the same prompt" in warning

    def test_text_features_that_depend_on_the_image_are_refused(self, make):
        run_train(make("run", "TRAINER.NAME", "CoCoOp"))
        with pytest.raises(ValueError, match="CoCoOp has no text features that all images share"):
            Classifier.from_run(make("run").OUTPUT_DIR).text_features()


def test_zero_shot_is_the_formula(make, tiny_files, paths):
    names, template = ["face", "tea_pot"], "a drawing of a {}."
    classifier = Classifier.zero_shot(tiny_files[1]["vit"], names, template)

    model, transform = load(tiny_files[1]["vit"], "cpu")
    with torch.no_grad():
        texts = model.encode_text(tokenize([template.format(name.replace("_", " ")) for name in names]))
        images = model.encode_image(torch.stack([transform(Image.open(path)) for path in paths]))
        expected = model.logit_scale.exp() * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).t()
    assert_near(classifier.logits(paths), expected)
    assert_near(classifier(paths).probabilities, expected.softmax(dim=1))
    for refused in ("a drawing", "{} and {}", "a {} {kind}", "a {} {"):
        with pytest.raises(ValueError, match="it must have {} for the name, once"):
            Classifier.zero_shot(tiny_files[1]["vit"], names, refused)
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        classifier.topk(paths, 0)
    with pytest.raises(ValueError, match="An image is 4 x 0 pixels"):
        classifier(np.zeros((0, 4, 3), np.uint8))


def test_building_one_encodes_its_prompts_once_and_leaves_the_callers_seeds(make, tiny_files, monkeypatch):
    run_train(make("run"))
    calls, encode = [], PromptEncoder.forward
    monkeypatch.setattr(PromptEncoder, "forward", lambda *args: calls.append(args) or encode(*args))
    torch.manual_seed(7), np.random.seed(7)
    expected = torch.rand(3), np.random.rand()
    torch.manual_seed(7), np.random.seed(7)

    Classifier.from_run(make("run").OUTPUT_DIR)
    Classifier.zero_shot(tiny_files[1]["vit"], ["cat", "dog"])

    assert len(calls) == 1
    assert torch.equal(torch.rand(3), expected[0]) and np.random.rand() == expected[1]


def test_of_a_method_that_sees_pixels_the_prompts_are_encoded_once_for_all_images(make, paths, monkeypatch):
    run_train(make("run", "TRAINER.NAME", "CLIPLoRA", "TRAINER.CLIPLORA.PREC", "fp32"))
    calls, encode = [], PromptEncoder.forward
    monkeypatch.setattr(PromptEncoder, "forward", lambda *args: calls.append(args) or encode(*args))
    classifier = Classifier.from_run(make("run").OUTPUT_DIR)
    first, again = classifier.logits(paths), classifier.logits(paths)
    assert len(calls) == 1 and torch.equal(first, again)


def test_threads_make_and_use_classifiers_of_one_clip_at_once(make, paths, monkeypatch):
    run_train(make("run"))
    classifier = Classifier.from_run(make("run").OUTPUT_DIR)
    lists = [["face", f"tea_pot_{i}", f"horse_{i}"][: 2 + i % 2] for i in range(4)]
    expected = [classifier.with_classes(names).logits(paths[:4]) for names in lists]
    get = DATASET_REGISTRY.get
    monkeypatch.setattr(DATASET_REGISTRY, "get", lambda name: time.sleep(0.02) or get(name))  # other threads go on

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(classifier.with_classes, lists))
        logits = list(pool.map(lambda other: other.logits(paths[:4]), found))

    assert [other.classnames for other in found] == lists
    assert all(torch.equal(one, other) for one, other in zip(logits, expected))
    assert all(other.trainer.clip_model is classifier.trainer.clip_model for other in found)


def test_zero_shot_reads_the_weights_once_and_warns_of_those_that_are_not_openais(tiny_files, monkeypatch, caplog):
    reads = []
    monkeypatch.setattr("clip.clip.read_state_dict", lambda path: reads.append(path) or read_state_dict(path))

    Classifier.zero_shot(tiny_files[1]["vit"], ["face", "tea_pot"])

    assert len(reads) == 1
    assert "vit.pt are not OpenAI's" in caplog.text
    caplog.clear()
    Classifier.zero_shot("ViT-T/8-shapes", ["circle", "square"])
    assert "OpenAI" not in caplog.text


class TestRun:
    def test_an_evaluation_a_checkpoint_and_an_epoch_are_models_of_a_run(self, make, paths):
        cfg = make("run", "TRAIN.CHECKPOINT_FREQ", 1)
        run_train(cfg)
        run_train(make("test", "RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", cfg.OUTPUT_DIR, "RUN.LOAD_EPOCH", 1))
        first = Classifier.from_run(cfg.OUTPUT_DIR, epoch=1).logits(paths)

        last = Classifier.from_run(cfg.OUTPUT_DIR).logits(paths)

        checkpoint = f"{cfg.OUTPUT_DIR}/prompt_learner/model.pth.tar-1"
        assert torch.equal(Classifier.from_run(checkpoint).logits(paths), first)
        assert torch.equal(Classifier.from_run(make("test").OUTPUT_DIR).logits(paths), first)
        assert not torch.equal(last, first)

    def test_a_plug_in_comes_back_with_its_options_and_is_missed_where_it_is_gone(self, argv, tmp_path, paths):
        plugin = tmp_path / "sharper.py"
        plugin.write_text(PLUGIN)
        options = argv("run", "TRAINER.NAME", "Sharper", "TRAINER.SHARPER.FACTOR", "3.0")
        assert train.main([f"--plugin={plugin}", *options]) == 0
        classifier = Classifier.from_run(tmp_path / "run")

        plain = classifier.trainer.model
        assert_near(classifier.logits(paths), 3 * plain.classify(classifier.image_features(paths)))
        with pytest.raises(ValueError, match="Sharper has no text features"):
            classifier.text_features()
        plugin.unlink()
        with pytest.raises(ValueError, match="The run's plug-in .*sharper.py does not exist"):
            Classifier.from_run(tmp_path / "run")

    def test_a_folder_that_is_no_finished_run_is_refused(self, make, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
            Classifier.from_run(tmp_path / "nowhere")
        cfg = make("seeds/seed1")
        run_train(cfg)
        with pytest.raises(ValueError, match="is no run's folder: it has no config.yaml.* It holds the runs seed1"):
            Classifier.from_run(tmp_path / "seeds")
        (tmp_path / "seeds/seed1/results.json").unlink()
        with pytest.raises(ValueError, match="is not finished.* or choose an epoch that is saved: 2"):
            Classifier.from_run(cfg.OUTPUT_DIR)

    def test_an_unfinished_run_names_the_command_that_finishes_it(self, argv, tmp_path, paths):
        plugin = tmp_path / "sharper.py"
        plugin.write_text(PLUGIN)
        options = argv("run", "TRAINER.NAME", "Sharper", "TRAINER.SHARPER.FACTOR", "3.0")
        assert train.main([f"--plugin={plugin}", *options]) == 0
        logits = Classifier.from_run(tmp_path / "run").logits(paths)
        (tmp_path / "run/results.json").unlink()
        shutil.rmtree(tmp_path / "run/prompt_learner")

        with pytest.raises(ValueError, match="is not finished") as error:
            Classifier.from_run(tmp_path / "run")
        command = re.search(r"finish it with: python train.py (.*)\.$", str(error.value))[1]

        assert train.main(shlex.split(command)) == 0
        assert torch.equal(Classifier.from_run(tmp_path / "run").logits(paths), logits)

    def test_a_run_that_skips_bad_test_images_is_a_classifier_too(self, make, paths):
        run_train(make("run", "TEST.ON_BAD_IMAGE", "skip"))
        assert Classifier.from_run(make("run").OUTPUT_DIR)(paths[0]).names[0] in CLASSES

    def test_what_the_run_has_said_of_its_precision_is_not_said_again(self, make, caplog):
        run_train(make("run", "TRAINER.COOP.PREC", "fp16"))
        assert "needs a GPU" in caplog.text
        caplog.clear()
        assert Classifier.from_run(make("run").OUTPUT_DIR).trainer.precision == "fp32"
        assert "needs a GPU" not in caplog.text

    def test_a_file_that_is_no_checkpoint_is_refused(self, make):
        run_train(make("run"))
        with pytest.raises(ValueError, match="log.txt is no checkpoint"):
            Classifier.from_run(f"{make('run').OUTPUT_DIR}/log.txt")

    def test_a_model_that_was_trained_anew_is_not_the_one_that_was_tested(self, make, paths):
        cfg = make("run")
        run_train(cfg)
        run_train(make("test", "RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", cfg.OUTPUT_DIR, "RUN.LOAD_EPOCH", 2))
        shutil.rmtree(cfg.OUTPUT_DIR)
        run_train(make("run", "OPTIM.LR", 0.5))

        with pytest.raises(ValueError, match="The model that the run in .* tested has changed since"):
            Classifier.from_run(make("test").OUTPUT_DIR)
        assert Classifier.from_run(cfg.OUTPUT_DIR)(paths[0]).names[0] in CLASSES

    def test_relative_paths_of_a_run_are_found_from_another_folder(self, tiny_files, tmp_path, monkeypatch, paths):
        home, away = tmp_path / "home", tmp_path / "away"
        home.mkdir(), away.mkdir()
        (home / "sharper.py").write_text(PLUGIN)
        shutil.copy(tiny_files[1]["vit"], home / "clip.pt")
        monkeypatch.chdir(home)
        flags = train_flags(tmp_path, tiny_files[0], "clip.pt")
        flags, pairs = ["--plugin=sharper.py", *flags], ["FEATURES.DIR", "", "TRAINER.NAME", "Sharper"]
        assert train.main([*flags, "--output-dir=output/run", *pairs]) == 0
        test = ["--eval-only", "--model-dir=output/run", "--load-epoch=3", "--output-dir=output/test"]
        assert train.main([*flags, *test, *pairs]) == 0
        classifier = Classifier.from_run("output/test")
        here = classifier.logits(paths)

        monkeypatch.chdir(away)

        assert torch.equal(classifier.with_classes(CLASSES).logits(paths), here)
        assert torch.equal(Classifier.from_run(home / "output/test").logits(paths), here)
        assert torch.equal(Classifier.from_run("../home/output/run").logits(paths), here)

    def test_other_weights_are_refused(self, tiny_files, tmp_path):
        own = shutil.copy(tiny_files[1]["vit"], tmp_path / "clip.pt")
        cfg = tiny_cfg(tiny_files[0], own, tmp_path / "run", "FEATURES.DIR", "")
        run_train(cfg)
        weights = torch.load(own)
        torch.save({**weights, "logit_scale": weights["logit_scale"] + 1}, own)

        with pytest.raises(ValueError, match="was made with other weights of .*clip.pt"):
            Classifier.from_run(cfg.OUTPUT_DIR)
