"""CLIP-Adapter beside its formula in float64: zero-shot at r = 0, a step; new classes."""

import pytest
import torch

from inference.classifier import Classifier
from tests.support.tiny_run import CLASSES, build_trainer, run_train, tiny_cfg
from tests.support.tolerance import assert_near
from tests.trainers.on_features.by_hand import E, batch_of, cross_entropy, scale_of, step, texts_of, unit

TEMPLATE = "a photo of a {}."


@pytest.fixture
def make(tiny_files, tmp_path):
    data, clips = tiny_files
    own = ("TRAINER.NAME", "CLIPAdapter", "TRAINER.CLIP_ADAPTER.PREC", "fp32")
    return lambda *pairs: build_trainer(tiny_cfg(data, clips["vit"], tmp_path / "run", *own, *pairs))


def naive(trainer, features, weights, ratio):
    down, up = weights
    adapted = ((features.double() @ down.T).clamp(min=0) @ up.T).clamp(min=0)
    mixed = ratio * adapted + (1 - ratio) * features.double()
    return scale_of(trainer) * unit(mixed) @ unit(texts_of(TEMPLATE)[0]).T


@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
def test_loss_and_gradients_of_a_step_are_those_of_the_formula(make, ratio):
    trainer, (features, labels) = make("TRAINER.CLIP_ADAPTER.RATIO", ratio), batch_of()
    weights = [p.detach().double().requires_grad_() for p in trainer.model.prompt_learner.parameters()]
    assert [weight.shape for weight in weights] == [(E // 4, E), (E, E // 4)]
    expected = cross_entropy(naive(trainer, features, weights, ratio), labels)
    loss, gradients = step(trainer, features, labels)
    assert_near(loss, expected)
    assert_near(gradients, list(torch.autograd.grad(expected, weights)))


def test_without_the_network_it_is_zero_shot_clip(make):
    trainer, (features, _) = make("TRAINER.CLIP_ADAPTER.RATIO", 0.0), batch_of()
    expected = scale_of(trainer) * unit(features.double()) @ unit(texts_of(TEMPLATE)[0]).T
    assert_near(trainer.classify_features(features), expected)


def test_it_answers_new_classes(make, tmp_path):
    run_train(make("INPUT.VIEWS", 2).cfg)
    classifier = Classifier.from_run(tmp_path / "run")
    features, _ = batch_of()
    other = classifier.with_classes(["tea_pot", "wine_bottle", "face"])
    logits, others = (one.trainer.classify_features(features) for one in (classifier, other))
    assert_near(others[:, 1:], logits[:, [2, 0]])  # a class's logit is its own


def test_as_many_classes_as_the_network_is_wide_are_not_taken_for_its_rows(make, monkeypatch):
    monkeypatch.setattr("trainers.clip_adapter.REDUCTION", E // len(CLASSES))
    trainer = make()
    state = trainer.model.prompt_learner.state_dict()
    assert state["down.weight"].shape[0] == len(CLASSES)
    other = {key: value + 1 for key, value in state.items()}
    checkpoint = {"state_dict": other, "classnames": ["a", "b", "c"]}
    assert trainer.class_rows().fit(checkpoint, state, trainer.output_dir / "model.pth.tar-1") == ""
    assert checkpoint["state_dict"] is other


def test_a_share_beyond_one_is_refused(make):
    with pytest.raises(ValueError, match=r"RATIO is 1.5; it must be from 0 \(zero-shot CLIP\) to 1"):
        make("TRAINER.CLIP_ADAPTER.RATIO", 1.5)
