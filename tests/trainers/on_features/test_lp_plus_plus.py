"""LP++ beside its formula in float64: the start, steps, what they descend; what is learned for each class."""

import pytest
import torch

from inference.classifier import Classifier
from tests.resume import stopping
from tests.support.tiny_run import CLASSES, build_trainer, run_train, tiny_cfg, write_images
from tests.support.tolerance import assert_near
from tests.trainers.on_features.by_hand import E, batch_of, cross_entropy, texts_of, unit, views_of

TEMPLATE, OPTIONS = "a photo of a {}.", "TRAINER.LP_PLUS_PLUS."
FULL_BATCH = ("INPUT.VIEWS", 1, "DATALOADER.TRAIN_X.BATCH_SIZE", 100)
PAPERS = ("OPTIM.LR", 4.0, "OPTIM.WEIGHT_DECAY", 0.0, "OPTIM.LR_SCHEDULER", "single_step")


@pytest.fixture
def make(tiny_files, tmp_path):
    data, clips = tiny_files

    def build(*pairs, data=data, folder="run"):
        own = ("TRAINER.NAME", "LPPlusPlus", f"{OPTIONS}PREC", "fp32", *FULL_BATCH, *PAPERS)
        return build_trainer(tiny_cfg(data, clips["vit"], tmp_path / folder, *own, *pairs))

    return build


def naive_start(trainer):
    """The training images' x (N, E) and labels, t (C, E), and at the start w (C, E) and a (C,), float64."""
    views, labels = views_of(trainer, 1)
    x, t = unit(views[:, 0]), unit(texts_of(TEMPLATE)[0])
    w = torch.stack([x[labels == c].sum(dim=0) for c in range(len(CLASSES))])
    alpha = 250 * torch.stack([(x[labels == c] @ t[c]).mean() for c in range(len(CLASSES))]).mean()
    return x, labels, t, w, alpha.repeat(len(CLASSES))


def naive_steps(x, labels, t, w, a, b, n_steps, *, is_summed, lr=4.0, lr_alpha=0.25, momentum=0.9):
    """The losses before each step, and what is learned after them."""
    step_w = lr * len(x) / torch.linalg.matrix_norm(x, ord=2) ** 2
    step_a = lr_alpha * len(x) / (x @ t.T).pow(2).sum(dim=0).max()
    moved, total, losses = [torch.zeros_like(w), torch.zeros_like(b)], torch.zeros_like(a), []
    for i in range(1, n_steps + 1):
        w, a, b = (value.detach().requires_grad_() for value in (w, a, b))
        loss = cross_entropy(x @ (w + a[:, None] * t).T + b, labels)
        of_w, of_a, of_b = torch.autograd.grad(loss, (w, a, b))
        moved = [momentum * one + gradient for one, gradient in zip(moved, (of_w, of_b))]
        total = is_summed * total + of_a
        w, b = w - step_w * moved[0], b - step_w * moved[1]
        a = a - step_a * total if i % 10 == 0 else a
        losses.append(loss.item())
    return losses, (w, a, b)


def learned(trainer):
    own = trainer.model.prompt_learner
    return [value.detach().clone() for value in (own.weight, own.alpha, own.bias)]


def train(trainer):
    """Trains; returns the loss of each step."""
    step, losses = trainer.forward_backward, []

    def watched(batch):
        found = step(batch)
        losses.append(found["loss"].item())
        return found

    trainer.forward_backward = watched
    trainer.train()
    return losses


def test_it_starts_from_sums_of_features_also_where_classes_have_fewer_images(make, tmp_path):
    data = write_images(tmp_path / "data")
    (data / "train" / "leopard" / "0.png").unlink()
    trainer, (features, _) = make(data=data), batch_of()
    trainer.prepare()
    _, _, t, w, a = naive_start(trainer)
    own = trainer.model.prompt_learner
    assert_near([own.weight, own.alpha], [w, a])
    assert 0 < own.bias.abs().max() <= E**-0.5
    expected = unit(features.double()) @ (w + a[:, None] * t).T + own.bias
    assert_near(trainer.classify_features(features), expected)


@pytest.mark.parametrize("is_summed", [True, False])
def test_twenty_one_steps_are_those_of_the_formula(make, is_summed):
    """Two of them are alpha's: the second tells a sum of gradients from the current one."""
    trainer = make("OPTIM.MAX_EPOCH", 21, f"{OPTIONS}SUM_GRADIENTS", is_summed, f"{OPTIONS}LR_ALPHA", 40.0)
    *start, b = (*naive_start(trainer), trainer.model.prompt_learner.bias.detach().double())
    expected, values = naive_steps(*start, b, 21, is_summed=is_summed, lr_alpha=40.0)
    assert_near(train(trainer), expected)
    assert_near(learned(trainer), list(values))


def test_it_descends_at_its_own_steps_without_bias_momentum_and_old_gradients(make):
    pairs = (f"{OPTIONS}BIAS", False, f"{OPTIONS}SUM_GRADIENTS", False, "OPTIM.MOMENTUM", 0.0)
    losses = train(make(*pairs, "OPTIM.MAX_EPOCH", 60))
    assert all(after < before for before, after in zip(losses, losses[1:]))
    faster = train(make(*pairs, "OPTIM.MAX_EPOCH", 60, "OPTIM.LR", 400.0, folder="faster"))
    assert any(after > before for before, after in zip(faster, faster[1:]))  # else any step would pass


def test_a_stopped_run_goes_on_with_the_gradients_of_before(make):
    """Stopped before the fifth of twelve steps; the tenth takes the sum of all."""
    pairs = ("OPTIM.MAX_EPOCH", 12, "TRAIN.RESUME_EVERY_S", 1e-9)
    alone = make(*pairs, folder="alone")
    assert stopping.train(alone)
    expected, stopped = stopping.ended(alone), make(*pairs)
    start = stopping.before_step(stopped, 5, stopping.kill)
    assert not stopping.train(stopped)
    again = make(*pairs)
    assert stopping.train(again)
    assert len(start) == 4 and again.start_epoch == 4
    stopping.assert_same(stopping.ended(again), expected)


def test_without_bias_there_is_none(make):
    trainer = make(f"{OPTIONS}BIAS", False)
    trainer.train()
    assert trainer.model.prompt_learner.bias.abs().max() == 0


def test_class_vectors_are_taken_by_name_exported_and_refuse_other_classes(make, tmp_path):
    run_train(make().cfg)
    classifier, (features, _) = Classifier.from_run(tmp_path / "run"), batch_of()
    assert_near(classifier.head.logits(features), classifier.trainer.classify_features(features))
    two = classifier.with_classes(["wine_bottle", "face"])
    assert_near(two.head.logits(features), classifier.head.logits(features)[:, [2, 0]])
    with pytest.raises(ValueError, match="learned for each of 3 classes"):
        classifier.with_classes(["tea_pot", "face"])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("OPTIM.NAME", "adam"), "OPTIM.NAME is 'adam', expected one of: sgd"),
        ((f"{OPTIONS}LR_ALPHA", -1.0), r"LR_ALPHA is -1.0; it must be 0 \(alpha stays\) or more."),
        (("MODEL.INIT_WEIGHTS", "x"), "LPPlusPlus starts from the training images. Leave it out."),
    ],
)
def test_options_that_mean_nothing_are_refused(make, pairs, message):
    with pytest.raises(ValueError, match=message):
        make(*pairs)
