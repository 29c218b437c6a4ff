"""KgCoOp: CoOp at weight 0, its loss and gradient by the formula, its hand-made prompts, what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from engine import TRAINER_REGISTRY
from tests.support.naive import naive_guided
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import build_trainer, tiny_cfg, valid_cfg
from tests.support.tolerance import assert_as_exact, assert_near
from trainers.kgcoop import KgCoOp

KGCOOP = ("TRAINER.NAME", "KgCoOp", "TRAINER.KGCOOP.PREC", "fp32", "TRAINER.KGCOOP.N_CTX", 2)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def cfg(tiny_files, tmp_path):
    return lambda *pairs, folder="run": tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / folder, *pairs)


def learned_context(cfg):
    """Trains, without the test; returns the context."""
    trainer = build_trainer(cfg)
    trainer.train()
    return trainer.model.prompt_learner.ctx.detach()


def step(trainer, images, labels):
    """Does one step; returns its loss and the gradient that was applied."""
    losses = trainer.forward_backward({"img": images, "label": labels})
    return losses["loss"], trainer.model.prompt_learner.ctx.grad


def gradient(loss, ctx):
    return torch.autograd.grad(loss, ctx, retain_graph=True)[0]


@pytest.mark.parametrize("pairs", [(), ("INPUT.VIEWS", 2), ("CSC", True, "CLASS_TOKEN_POSITION", "middle")])
def test_with_weight_0_it_is_coop_to_the_bit(cfg, pairs):
    def options(node):
        keys = [key if "." in key else f"TRAINER.{node}.{key}" for key in pairs[::2]]
        return [word for pair in zip(keys, pairs[1::2], strict=True) for word in pair] + ["TEST.NO_TEST", True]

    expected = learned_context(cfg(*options("COOP"), folder="coop"))
    guided = [learned_context(cfg(*KGCOOP, *options("KGCOOP"), "TRAINER.KGCOOP.W", w, folder=f"w{w}")) for w in (0, 8)]
    assert torch.equal(guided[0], expected)
    assert not torch.equal(guided[1], expected)


@pytest.mark.parametrize("template", ["a photo of a {}.", "{} texture."])
def test_loss_and_gradient_are_the_formulas(cfg, monkeypatch, template):
    monkeypatch.setattr(KgCoOp, "own_templates", {"Folder": template})
    trainer, images = build_trainer(cfg(*KGCOOP, "TRAINER.KGCOOP.W", 3.0)), golden_images("vit")
    by_dtype = []
    for dtype in (torch.float32, torch.float64):
        ctx, logits, _, learned, anchors = naive_guided(trainer, images, template, dtype)
        squared = (learned - anchors).square().sum(dim=-1).mean()  # of unit vectors, twice the cosine's distance
        loss = F.cross_entropy(logits, LABELS) + 3.0 * squared / 2
        by_dtype.append((loss.detach(), gradient(loss, ctx)))
    for found, *others in zip(step(trainer, images, LABELS), *by_dtype, strict=True):
        assert_as_exact(found, *others)


def test_a_context_that_is_the_hand_made_prompt_costs_nothing(cfg):
    """Neither does it pull: CoOp's loss and gradient are left."""
    words = ("TRAINER.KGCOOP.CTX_INIT", "a photo of a", "TRAINER.KGCOOP.N_CTX", 4)
    trainer, images = build_trainer(cfg(*KGCOOP, *words)), golden_images("vit")
    ctx, logits, *_ = naive_guided(trainer, images, "a photo of a {}.", torch.float32)
    loss = F.cross_entropy(logits, LABELS)
    expected = loss.detach(), gradient(loss, ctx)
    assert_near(list(step(trainer, images, LABELS)), list(expected))


def test_its_hand_made_prompts_are_the_data_sets_but_for_dtd(cfg, monkeypatch):
    trainer = build_trainer(cfg(*KGCOOP))
    monkeypatch.setattr(trainer.dm.dataset, "prompt_template", "a blurry {}.")
    assert trainer.templates() == ("a blurry {}.",)
    trainer.cfg.defrost()
    trainer.cfg.DATASET.NAME = "DescribableTextures"
    assert trainer.templates() == ("a photo of a {}, a type of texture.",)


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_a_negative_weight_is_refused(weight):
    errors = TRAINER_REGISTRY.get("KgCoOp").config_errors(valid_cfg(TRAINER__KGCOOP__W=weight))
    assert errors == [f"TRAINER.KGCOOP.W is {weight}; it must be 0 (CoOp) or more."]
