"""TaskRes beside its formula in float64: the start, a step, templates; what is learned for each class."""

import pytest
import torch

from engine import DATASET_REGISTRY
from inference.classifier import Classifier
from tests.support.tiny_run import build_trainer, run_train, tiny_cfg
from tests.support.tolerance import assert_near
from tests.trainers.on_features.by_hand import batch_of, cross_entropy, scale_of, step, texts_of, unit
from trainers.templates import IMAGENET_TEMPLATES_SELECT

TEMPLATE = "a photo of a {}."


@pytest.fixture
def make(tiny_files, tmp_path):
    data, clips = tiny_files
    own = ("TRAINER.NAME", "TaskRes", "TRAINER.TASKRES.PREC", "fp32")
    return lambda *pairs: build_trainer(tiny_cfg(data, clips["vit"], tmp_path / "run", *own, *pairs))


def naive(trainer, features, texts, residual, alpha):
    return scale_of(trainer) * unit(features.double()) @ unit(texts + alpha * residual).T


@pytest.mark.parametrize(("alpha", "residual"), [(0.5, 0.0), (0.0, 1.0)])
def test_without_a_residual_or_its_weight_it_is_zero_shot_clip(make, alpha, residual):
    trainer, (features, _) = make("TRAINER.TASKRES.ALPHA", alpha), batch_of()
    with torch.no_grad():
        trainer.model.prompt_learner.residual.normal_().mul_(residual)
    [texts] = texts_of(TEMPLATE)
    assert_near(trainer.classify_features(features), scale_of(trainer) * unit(features.double()) @ unit(texts).T)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_loss_and_gradient_of_a_step_are_those_of_the_formula(make, alpha):
    trainer, (features, labels) = make("TRAINER.TASKRES.ALPHA", alpha), batch_of()
    with torch.no_grad():
        residual = trainer.model.prompt_learner.residual.normal_().double().requires_grad_()
    expected = cross_entropy(naive(trainer, features, texts_of(TEMPLATE)[0], residual, alpha), labels)
    loss, [gradient] = step(trainer, features, labels)
    assert_near(loss, expected)
    assert_near(gradient, *torch.autograd.grad(expected, residual))


def test_on_imagenet_eight_templates_are_averaged_as_they_are(make, register):
    register(DATASET_REGISTRY, DATASET_REGISTRY.get("Folder"), "ImageNet")
    trainer = make("DATASET.NAME", "ImageNet")
    expected = torch.stack(texts_of(*IMAGENET_TEMPLATES_SELECT, TEMPLATE)).mean(dim=0)
    assert_near(trainer.model.prompt_learner.class_features, expected)


def test_what_is_learned_for_each_class_is_taken_by_name_and_refuses_others(make, tmp_path):
    """The class features go with the residuals, so that a class is on other data what it was trained to be."""
    run_train(make("INPUT.VIEWS", 2).cfg)
    classifier = Classifier.from_run(tmp_path / "run")
    features, _ = batch_of()
    two = classifier.with_classes(["wine_bottle", "face"])
    assert classifier.trainer.model.prompt_learner.residual.abs().min() > 0
    assert_near(two.head.logits(features), classifier.head.logits(features)[:, [2, 0]])
    with pytest.raises(ValueError, match="learned for each of 3 classes"):
        classifier.with_classes(["tea_pot", "face"])
