"""The cross-modal linear probe beside its formula in float64: the start, a step with texts, which texts are drawn."""

import pytest
import torch

from engine import DATASET_REGISTRY
from engine.data.samplers import RandomSampler
from inference.classifier import Classifier
from tests.support.tiny_run import CLASSES, build_trainer, run_train, tiny_cfg
from tests.support.tolerance import assert_near
from tests.trainers.on_features.by_hand import E, batch_of, cross_entropy, scale_of, step, texts_of, unit
from trainers.cross_modal import texts_of_step
from trainers.templates import IMAGENET_TEMPLATES_SELECT

TEMPLATE = "a photo of a {}."


@pytest.fixture
def make(tiny_files, tmp_path):
    data, clips = tiny_files
    own = ("TRAINER.NAME", "CrossModal", "TRAINER.CROSS_MODAL.PREC", "fp32")
    return lambda *pairs: build_trainer(tiny_cfg(data, clips["vit"], tmp_path / "run", *own, *pairs))


def naive(trainer, features, weight):
    return scale_of(trainer) * unit(features.double()) @ weight.T


def test_the_start_is_zero_shot_clip(make):
    trainer, (features, _) = make(), batch_of()
    assert_near(trainer.classify_features(features), naive(trainer, features, unit(texts_of(TEMPLATE)[0])))


def test_loss_and_gradient_of_a_step_are_those_of_as_many_texts_as_images(make):
    """Six of each: of three texts each is drawn twice, in whatever order."""
    trainer, generator = make("DATALOADER.TRAIN_X.BATCH_SIZE", 6), torch.Generator().manual_seed(2)
    features, labels = torch.randn(6, E, generator=generator), torch.tensor([0, 2, 1, 1, 0, 2])
    with torch.no_grad():
        weight = trainer.model.prompt_learner.weight
        weight += torch.randn(weight.shape, generator=generator) / 10
    weight = weight.detach().double().requires_grad_()
    [texts] = texts_of(TEMPLATE)
    samples = torch.cat([features.double(), texts, texts])
    owners = torch.cat([labels, torch.arange(3), torch.arange(3)])
    expected = cross_entropy(naive(trainer, samples, weight), owners)
    loss, [gradient] = step(trainer, features, labels)
    assert_near(loss, expected.detach())
    assert_near(gradient, *torch.autograd.grad(expected, weight))


@pytest.mark.parametrize(("n", "n_texts"), [(4, 21), (16, 3), (7, 7)])
def test_every_text_is_drawn_once_in_each_round_and_rounds_differ(n, n_texts):
    n_rounds, n_steps = 3, -(-3 * n_texts // n)
    drawn = [index for step in range(n_steps) for index in texts_of_step(step, n, n_texts, 1)]
    rounds = [drawn[n_texts * i : n_texts * (i + 1)] for i in range(n_rounds)]
    assert all(sorted(order) == list(range(n_texts)) for order in rounds)
    assert n_texts == 3 or len(set(map(tuple, rounds))) == n_rounds
    assert n_texts == 3 or texts_of_step(0, n, n_texts, 2) != texts_of_step(0, n, n_texts, 1)


def test_texts_are_not_drawn_in_the_order_of_as_many_images():
    for epoch in range(3):
        sampler = RandomSampler(range(12), seed=1)
        sampler.set_epoch(epoch)
        assert texts_of_step(epoch, 12, 12, 1) != sampler.order()


def test_each_step_of_a_run_draws_the_next_texts(make, monkeypatch):
    steps = []
    monkeypatch.setattr("trainers.cross_modal.texts_of_step", lambda step, n, *_: steps.append((step, n)) or [0] * n)
    make("INPUT.VIEWS", 2).train()
    assert steps == [(step, 4) for step in range(6)]  # two epochs of 12 images in batches of 4


def test_on_imagenet_the_texts_of_seven_templates_are_samples(make, register):
    register(DATASET_REGISTRY, DATASET_REGISTRY.get("Folder"), "ImageNet")
    trainer, texts = make("DATASET.NAME", "ImageNet"), texts_of(*IMAGENET_TEMPLATES_SELECT)
    assert_near(trainer.model.prompt_learner.weight, unit(sum(map(unit, texts))))
    features, owners = trainer.texts
    assert_near(features, torch.cat(texts))
    assert owners.tolist() == list(range(len(CLASSES))) * 7


def test_what_is_learned_for_each_class_is_taken_by_name_and_refuses_others(make, tmp_path):
    trainer = make("INPUT.VIEWS", 2)
    run_train(trainer.cfg)
    classifier, (features, _) = Classifier.from_run(tmp_path / "run"), batch_of()
    two = classifier.with_classes(["wine_bottle", "face"])
    logits = classifier.trainer.classify_features(features)
    assert (logits - trainer.classify_features(features)).abs().min() > 0  # it has learned something
    assert_near(two.head.logits(features), logits[:, [2, 0]])
    with pytest.raises(ValueError, match="learned for each of 3 classes"):
        classifier.with_classes(["tea_pot", "face"])
