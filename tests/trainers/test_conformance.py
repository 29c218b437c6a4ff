"""What every registered trainer keeps, ours and a plug-in's: a new one is tested the day it lands.

EXCEPTIONS says who does not keep what, and why. The tests see that it is still so: an exception that has become
needless fails.
"""

import csv
import re
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
from PIL import Image

import predict
from clip import build_model
from engine import TRAINER_REGISTRY, TrainerX, load_checkpoint, set_random_seed
from engine.config.load import ConfigError, full_default
from engine.config.plugins import plugins
from engine.distributed import process_group
from engine.process_cache import sharing
from inference.classifier import Classifier
from tests.resume.stopping import assert_same, before_step, ended, terminate, train
from tests.support.ranks import run_ranks
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tiny_run import CLASSES, N_ITEMS, build_trainer, run_train, tiny_cfg
from tests.support.tolerance import FIT, assert_near, rounding_tolerance
from tests.trainers.on_features.by_hand import texts_of, unit

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
PLUGIN = "PluginOfThePage"  # CONTRIBUTING's trainer, as a file of somebody else's
NAMES = [*TRAINER_REGISTRY.registered_names(), PLUGIN]
WORDS = "a photo of a"  # a context that starts so is zero-shot CLIP's
EXCEPTIONS = {
    "trains": {
        "TPT": "it learns from each test image, and forgets it",
        "ZeroshotCLIP": "there is nothing to learn",
        "ZeroshotCLIP2": "there is nothing to learn",
    },
    "starts as zero-shot CLIP": {
        "CLIPAdapter": "its network is drawn",
        "CoCoOp": "its Meta-Net is drawn, and shifts the words",
        "DeepLanguage": "its vectors before later blocks are drawn",
        "IVLP": "its vectors beside the patches and before later blocks are drawn",
        "LPPlusPlus": "text features get their weight from the images",
        "LinearProbe": "it knows no words",
        "MaPLe": "its couplings, and its vectors before later blocks, are drawn",
        "PromptSRC": "its vectors beside the patches and before later blocks are drawn",
        "TCP": "its network is drawn, and replaces the words in the middle of the tower",
        "TPT": "it has stepped away from it before it answers",
        "VPT": "its vectors beside the patches are drawn",
        "ZeroshotCLIP2": "it averages several prompts",
    },
    "answers a class the same beside others": {
        "TPT": "it tunes the context by the probabilities of all classes",
    },
}
NO_DROPOUT = {"CLIPLoRA": ("TRAINER.CLIPLORA.DROPOUT_RATE", 0.0)}  # of two ranks: each drops other entries
TRAINED = [name for name in NAMES if name not in EXCEPTIONS["trains"]]
TOLERANCE = {"LinearProbe": FIT}  # of two ranks beside one; of all others that of rounding
# Of a measure in percent, of two ranks beside one: a cosine rounds, a logit is 100 of it, softmax has slopes up to 1/4.
MEASURED = 100 * 2**-23 * 100 / 4
OVERHEAD = 40_000  # bytes of a checkpoint besides its tensors: names, random generators, the archive itself

every = pytest.mark.parametrize("name", NAMES)
every_trained = pytest.mark.parametrize("name", TRAINED)


@contextmanager
def unless_excepted(item, name, errors=AssertionError):
    """Lets an item fail where EXCEPTIONS says that it does, and there alone."""
    with pytest.raises(errors) if name in EXCEPTIONS[item] else nullcontext():
        yield


class Files(NamedTuple):
    """What the runs of this module are made from."""

    data: Path
    clip: Path
    plugin: Path
    folder: Path

    def cfg(self, name, folder, *pairs):
        """A run of two epochs of three batches, without weight decay: what has no gradient stays as it is.

        Features are kept nowhere, so each run encodes its images.
        """
        own = ("TRAINER.NAME", name, "RUN.EVAL_ONLY", name not in TRAINED, "FEATURES.DIR", "", "OPTIM.WEIGHT_DECAY", 0)
        own += ("RUN.PLUGINS", (str(self.plugin),)) if name == PLUGIN else ()
        group = getattr(TRAINER_REGISTRY.get(name), "node", "")
        node = full_default().TRAINER.get(group, {})
        own += (f"TRAINER.{group}.PREC", "fp32") if "PREC" in node else ()
        for key in (key for key in node if key.startswith("PROMPT_DEPTH")):  # the towers have two and three blocks
            own += (f"TRAINER.{group}.{key}", 2)
        return tiny_cfg(self.data, self.clip, self.folder / folder, *own, *pairs)

    def registered(self, name):
        """Until its end there is a trainer of that name."""
        return plugins([str(self.plugin)]) if name == PLUGIN else nullcontext()

    def build(self, name, folder, *pairs):
        """The trainer as at the start of a process."""
        with self.registered(name):
            cfg = self.cfg(name, folder, *pairs)
            set_random_seed(cfg.SEED)
            return build_trainer(cfg)


@pytest.fixture(scope="module")
def files(tiny_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conformance")
    [text] = re.findall(r"^`trainers/taskres.py`:\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    text = text.replace("from .", "from trainers.").replace("TaskRes", PLUGIN).replace("TASKRES", PLUGIN.upper())
    (folder / "plugin.py").write_text(text, encoding="utf-8")
    return Files(tiny_files[0], tiny_files[1]["vit"], folder / "plugin.py", folder)


@pytest.fixture(scope="module")
def finished(files):
    """finished(name, KEY, VALUE, ...): the trainer at the end of a run, which is done once, and results.json."""
    done = {}

    def finish(name, *pairs):
        key = (name, *pairs)
        if key not in done:
            with files.registered(name), built() as trainers:
                results = run_train(files.cfg(name, f"{name}/{'-'.join(map(str, pairs)) or 'run'}", *pairs))
            done[key] = trainers[0], results
        return done[key]

    return finish


@contextmanager
def built():
    """Collects the trainers that are built until its end."""
    trainers, build = [], TrainerX.__init__

    def record(self, cfg):
        build(self, cfg)
        trainers.append(self)

    with patch.object(TrainerX, "__init__", record):
        yield trainers


def open_parameters(*modules):
    return {p for module in modules if module is not None for p in module.parameters() if p.requires_grad}


@every
def test_it_can_be_trained(files, name):
    with files.registered(name), unless_excepted("trains", name, ConfigError):
        files.cfg(name, "trained", "RUN.EVAL_ONLY", False)


@every
def test_it_learns_what_it_has_registered_and_nothing_of_clip(files, finished, name):
    trainer, results = finished(name)
    learned = open_parameters(*trainer.models.values())
    assert open_parameters(trainer.clip_model, getattr(trainer, "model", None)) <= learned
    assert {parameter for model in trainer.models.values() for parameter in model.parameters()} == learned
    assert sum(parameter.numel() for parameter in learned) == results.get("n_params", 0)
    found = trainer.clip_model.state_dict()
    for key, value in golden_state_dict("vit").items():
        assert torch.equal(found[key], value), key
    start = files.build(name, f"{name}/start")
    for part, model in trainer.models.items():
        for key, parameter in model.named_parameters():
            assert not torch.equal(parameter, start.models[part].get_parameter(key)), f"{key} was not trained"


@every
def test_it_starts_as_zero_shot_clip(files, name):
    with files.registered(name):
        node = getattr(TRAINER_REGISTRY.get(name), "node", "")
        keys = full_default().TRAINER.get(node, {})
        words = {"CTX_INIT": WORDS, "N_CTX": len(WORDS.split())} if "CTX_INIT" in keys else {}
        pairs = [word for key in words.keys() & keys for word in (f"TRAINER.{node}.{key}", words[key])]
        trainer = files.build(name, f"{name}/words", *pairs)
    images = golden_images("vit")
    with torch.no_grad():
        found = trainer.model_inference(as_in_a_test(trainer, images))
        features = build_model(golden_state_dict("vit")).encode_image(images).double()
    assert (found.shape, found.dtype) == ((len(images), len(CLASSES)), torch.float32)
    scale = golden_state_dict("vit")["logit_scale"].double().exp()
    with unless_excepted("starts as zero-shot CLIP", name):
        assert_near(found, scale * unit(features) @ unit(texts_of(f"{WORDS} {{}}.")[0]).T)


def as_in_a_test(trainer, images):
    """Images (B, 3, H, W), or as many views of each as the method sees, all the same."""
    if trainer.test_transform is None:
        return images
    n_views = len(trainer.test_transform(Image.new("RGB", (40, 36))))
    return images[:, None].expand(-1, n_views, -1, -1, -1)


@every_trained
def test_an_interrupted_run_ends_with_the_same_bits(files, name):
    """It goes on from the middle of its steps; one that has no steps starts over."""
    losses, expected = end(files.build(name, f"{name}/alone"))
    stopped, n_steps = files.build(name, f"{name}/stopped"), len(losses) // 2 + 1
    if losses:
        before_step(stopped, n_steps, terminate)
    else:
        stop_in_tower(stopped)
    assert not train(stopped)
    losses_again, found = end(files.build(name, f"{name}/stopped"))
    assert losses_again == losses[n_steps:]
    assert_same(found, expected)


def end(trainer):
    """Trains to the end; returns the losses of the steps, and what the run leaves."""
    losses = before_step(trainer, 0, None)
    assert train(trainer)
    return losses, ended(trainer)


def stop_in_tower(trainer):
    """Ends the run in the second batch of images that it encodes."""
    n_calls = []

    def stop(*_):
        n_calls.append(1)
        if len(n_calls) == 2:
            handle.remove()
            terminate()

    handle = trainer.image_tower().register_forward_pre_hook(stop)


@pytest.mark.slow
def test_two_ranks_learn_and_measure_what_one_does(files, finished):
    outcomes = run_ranks(2, partial(run_all, files), files.folder / "said", time_s=250)
    assert [code for code, _ in outcomes] == [0, 0], (files.folder / "said/rank0.err").read_text()
    for name in NAMES:
        trainer, results = finished(name, *NO_DROPOUT.get(name, ()))
        for given in (given[name] for _, given in outcomes):
            assert_near(given["learned"], state_of(trainer), TOLERANCE.get(name))
            measured = {key: results[key] for key in given["measured"]}
            assert given["measured"] == pytest.approx(measured, rel=rounding_tolerance(), abs=MEASURED)


def run_all(files, rank):
    """What one of several ranks gives: for each trainer what it has learned and measured."""
    given = {}
    with process_group(use_cuda=False), sharing():
        for name in NAMES:
            trainer = files.build(name, f"{name}/ranks", *NO_DROPOUT.get(name, ()))
            trainer.train() if name in TRAINED else trainer.test()
            given[name] = {"learned": state_of(trainer), "measured": dict(trainer.results)}
    return given


def state_of(trainer):
    return {f"{part} {key}": x for part, model in trainer.models.items() for key, x in model.state_dict().items()}


@every
def test_new_class_names_are_answered_or_refused_with_the_reason(files, finished, name):
    """Of other classes, one that it knows has the logits that it has among its own."""
    finished(name)
    images = sorted((files.data / "test").glob("*/*.png"))
    classifier = Classifier.from_run(files.folder / name / "run")
    try:
        other = classifier.with_classes(["tea_pot", "wine_bottle", "face"])
    except ValueError as error:
        assert re.search("learned for each of 3 classes .* but .* has 3 .*tea_pot|does not know 'tea_pot'", str(error))
        return
    own, found = classifier.logits(images), other.logits(images)
    new = classifier.with_classes(["zebra", "tea_pot"]).logits(images)
    with unless_excepted("answers a class the same beside others", name):
        assert_near(found[:, 1:], own[:, [2, 0]])
        assert_near(new[:, 1], found[:, 0])
    assert not torch.allclose(new[:, 0], new[:, 1], rtol=1e-3)


@every_trained
def test_a_saved_file_holds_what_was_learned_and_nothing_of_clip(files, finished, name):
    trainer, _ = finished(name)
    clip = {value for value in trainer.clip_model.state_dict().values() if value.numel() > 1}
    for part, model in trainer.models.items():
        [path] = (files.folder / name / "run" / part).glob("model*")
        saved = load_checkpoint(path)
        for key, value in saved["state_dict"].items():
            assert not any(value.shape == own.shape and torch.equal(value, own) for own in clip), key
        state = (saved["optimizer"] or {"state": {}})["state"].values()
        tensors = [*saved["state_dict"].values(), *(x for one in state for x in one.values() if torch.is_tensor(x))]
        assert path.stat().st_size < sum(tensor.nbytes for tensor in tensors) + OVERHEAD
        learned = sum(parameter.nbytes for parameter in model.parameters())
        said = sum(buffer.nbytes for buffer in model.buffers())
        assert sum(tensor.nbytes for tensor in tensors) <= 3 * learned + said + 64  # with both moments of Adam


@every
def test_predict_answers_as_the_test_did(files, finished, tmp_path, name):
    """predictions.csv gives the accuracy of results.json, and predict.py the same answers."""
    _, results = finished(name)
    run, out = files.folder / name / "run", tmp_path / "answers.csv"
    words = [str(run), str(files.data / "test"), "--format", "csv", "--topk", "2", "--out", str(out)]
    assert predict.main(words) == 0
    rows, answers = read(run / "predictions.csv"), {row["path"]: row for row in read(out)}
    n_hits = sum(row["prediction"] == row["true"] for row in rows)
    assert len(rows) == len(CLASSES) * N_ITEMS["test"]
    assert 100 * n_hits / len(rows) == pytest.approx(results["accuracy"])
    assert [str(files.data / row["path"]) for row in rows] == list(answers)
    for row in rows:
        answer = answers[str(files.data / row["path"])]
        found = answer["true"], answer["prediction"], answer["class_2"]
        assert (row["true"], row["prediction"], row["second"]) == found
        for ours, theirs in (("probability", "probability_1"), ("second_probability", "probability_2")):
            assert float(row[ours]) == pytest.approx(float(answer[theirs]), abs=2e-6)


def read(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
