"""Runs whose answers do not depend on the images say so: a single class, zero-shot at chance, a loss at ln C."""

import math
import re

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_run import own_warnings, run_train, tiny_cfg

ZERO_SHOT = ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True)
TINY_COCOOP = ("TRAINER.NAME", "CoCoOp", "TRAINER.COCOOP.PREC", "fp32")
ONE_BATCH = ("DATALOADER.TRAIN_X.BATCH_SIZE", 12, "DATALOADER.TEST.BATCH_SIZE", 60)
N_ITEMS = {"train": 4, "test": 20}  # images of each class


@pytest.fixture
def run(tiny_files, tmp_path):
    """run(classes, KEY, VALUE, ...): the results and the log of a run on noise, which no class name describes."""

    def call(names, *pairs):
        rng = np.random.default_rng(7)
        for split, n_items in N_ITEMS.items():
            for name in names:
                (tmp_path / "data" / split / name).mkdir(parents=True)
                for i in range(n_items):
                    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
        results = run_train(tiny_cfg(tmp_path / "data", tiny_files[1]["vit"], tmp_path / "run", *ONE_BATCH, *pairs))
        return results, (tmp_path / "run" / "log.txt").read_text()

    return call


@pytest.mark.parametrize("pairs", [ZERO_SHOT, ("OPTIM.MAX_EPOCH", 1)], ids=["zero-shot", "CoOp"])
@pytest.mark.parametrize(("names", "subset"), [(["cat"], "all"), (["cat", "dog"], "base"), (["ant", "cat"], "new")])
def test_a_single_class_is_always_right(names, subset, pairs, run):
    results, log = run(names, "DATASET.SUBSAMPLE_CLASSES", subset, *pairs)
    said = (
        "There is a single class, 'cat': every answer is right, whatever is learned. Add another class, or leave "
        "DATASET.SUBSAMPLE_CLASSES at all."
    )
    assert results["accuracy"] == 100 and own_warnings(results) == [said]
    assert log.index(f"Warning: {said}\n") < log.index("Loading CLIP")


def test_zero_shot_at_chance(run):
    results, log = run(["Cat", "CAT", "cat"], *ZERO_SHOT)  # one prompt: every answer is the first class
    said = (
        "The accuracy is 33.33% of 60 images, not above 51.59%: chance (33.33%) and 3 standard deviations. Check the "
    )
    assert results["accuracy"] == pytest.approx(100 / 3)  # 1/3 + 3 sqrt(1/3 * 2/3 / 60) = 0.51591
    assert [text for text in results["warnings"] if text.startswith(said)]
    assert f"Warning: {said}" in log


class TestLossAtLnC:
    """The prompts of three classes are one, so every class has the probability 1/3 and the loss is ln 3 for ever."""

    SAID = re.compile(
        rf"The loss has stood at {math.log(3):.4f} for (\d) epochs: ln 3 = {math.log(3):.4f} is the loss of answers "
        r"that do not depend on the image\. Check whether the backbone knows the class names, OPTIM\.LR and the "
        r"images\."
    )

    @pytest.mark.parametrize(("n_epochs", "n_seen"), [(3, 3), (7, 5)])
    def test_it_is_told_once_while_the_run_trains(self, n_epochs, n_seen, run):
        results, log = run(["Cat", "CAT", "cat"], "OPTIM.MAX_EPOCH", n_epochs)
        [said] = filter(self.SAID.fullmatch, results["warnings"])
        assert self.SAID.fullmatch(said)[1] == str(n_seen)
        training = log.partition("Finish training")[0]
        assert training.count(said) == 1
        earlier = training.partition(said)[0]
        assert f"epoch [{n_seen}/" in earlier and f"epoch [{n_seen + 1}/" not in earlier

    def test_cocoop_too(self, run):
        results, _ = run(["Cat", "CAT", "cat"], "OPTIM.MAX_EPOCH", 3, *TINY_COCOOP)
        assert any(map(self.SAID.fullmatch, results["warnings"]))

    def test_two_epochs_say_nothing(self, run):
        results, _ = run(["Cat", "CAT", "cat"], "OPTIM.MAX_EPOCH", 2)
        assert not any(map(self.SAID.fullmatch, results["warnings"]))

    def test_a_loss_elsewhere_says_nothing(self, run):
        results, _ = run(["cat", "dog", "plane"], "OPTIM.MAX_EPOCH", 4, "OPTIM.LR", 0.1)
        assert not [text for text in results["warnings"] if "The loss has stood" in text]
