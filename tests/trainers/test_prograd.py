"""ProGrad: CoOp at weight 0, its gradient by the formula, its start, what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from engine import TRAINER_REGISTRY
from tests.support.naive import naive_guided
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import build_trainer, tiny_cfg, valid_cfg
from tests.support.tolerance import FACTOR, assert_as_exact, assert_near, distance
from tests.trainers.test_kgcoop import gradient, learned_context, step
from trainers.prograd import ProGrad

PROGRAD = ("TRAINER.NAME", "ProGrad", "TRAINER.PROGRAD.PREC", "fp32", "TRAINER.PROGRAD.N_CTX", 2)
START = ("TRAINER.PROGRAD.TEMPLATE_INIT", True, "TRAINER.PROGRAD.N_CTX", 6)
TEMPLATE = "a photo of a {}."


@pytest.fixture
def cfg(tiny_files, tmp_path):
    return lambda *pairs, folder="run": tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / folder, *pairs)


@pytest.fixture
def make(cfg):
    return lambda *pairs: build_trainer(cfg(*PROGRAD, *pairs))


def labels_of(trainer, images, *, conflict):
    """Labels that zero-shot CLIP finds least likely, or those that it answers."""
    zero_shot = naive_guided(trainer, images, TEMPLATE, torch.float64)[2]
    return zero_shot.argmin(dim=1) if conflict else zero_shot.argmax(dim=1)


def plain_gradients(trainer, images, labels, dtype, temperature=1.0):
    """The gradients of the cross entropy, and of the KL divergence from zero-shot CLIP."""
    ctx, logits, zero_shot, *_ = naive_guided(trainer, images, TEMPLATE, dtype)
    p, q = ((values / temperature).log_softmax(dim=1) for values in (logits, zero_shot))
    divergence = (q.exp() * (q - p)).sum(dim=1).mean() * temperature**2
    return gradient(F.cross_entropy(logits, labels), ctx), gradient(divergence, ctx)


def plain_step(own, guide, weight):
    """The rule, with vectors."""
    inner = (own * guide).sum()
    return own - weight * inner / guide.square().sum() * guide if inner < 0 else own


@pytest.mark.parametrize("pairs", [(), ("INPUT.VIEWS", 2)])
def test_with_weight_0_it_is_coop_to_the_bit(cfg, pairs):
    pairs += ("TEST.NO_TEST", True)
    expected = learned_context(cfg(*pairs, folder="coop"))
    found = [learned_context(cfg(*PROGRAD, *pairs, "TRAINER.PROGRAD.LAMBDA", w, folder=f"w{w}")) for w in (0, 1)]
    assert torch.equal(found[0], expected)
    assert not torch.equal(found[1], expected)


@pytest.mark.parametrize("conflict", [True, False])
@pytest.mark.parametrize(("weight", "temperature", "chunk_rows"), [(1.0, 1.0, 0), (0.8, 2.0, 9)])
def test_the_gradient_is_the_rules(make, conflict, weight, temperature, chunk_rows):
    pairs = zip(("LAMBDA", "T", "CHUNK_ROWS"), (weight, temperature, chunk_rows), strict=True)
    trainer = make(*[word for key, value in pairs for word in (f"TRAINER.PROGRAD.{key}", value)])
    images = golden_images("vit")
    labels = labels_of(trainer, images, conflict=conflict)
    by_dtype = [plain_gradients(trainer, images, labels, kind, temperature) for kind in (torch.float32, torch.float64)]
    own, guide = by_dtype[1]
    assert ((own * guide).sum() < 0) == conflict
    found = step(trainer, images, labels)[1].clone()
    assert_as_exact(found, *(plain_step(*gradients, weight) for gradients in by_dtype))
    if not conflict:
        assert_as_exact(found, by_dtype[0][0], own)
    elif weight == 1:
        rounding = FACTOR * distance(by_dtype[0][0], own) * own.norm() * guide.norm()
        assert abs((found.double() * guide).sum()) <= rounding < abs((own * guide).sum())


def test_a_loss_that_is_scaled_for_float16_gives_the_same_step(make):
    images, found = golden_images("vit"), []
    for scale in (None, 2.0**12):
        trainer = make()
        if scale:
            trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        step(trainer, images, labels_of(trainer, images, conflict=True))
        found.append(trainer.model.prompt_learner.ctx.detach())
    assert_near(found[1], found[0])


def test_the_hand_made_prompt_is_the_methods_own(make, monkeypatch):
    trainer = make()
    assert trainer.templates() == (TEMPLATE,)
    monkeypatch.setattr(ProGrad, "own_templates", {"Folder": "a type of thing, a photo of a {}."})
    *_, anchors = naive_guided(trainer, golden_images("vit"), "a type of thing, a photo of a {}.", torch.float32)
    assert_near(trainer.zero_shot_features, anchors)


class TestStart:
    def test_zeros_and_the_words_of_the_hand_made_prompt(self, make):
        trainer = make(*START)
        tokens = torch.tensor(trainer.clip_model.tokenizer.encode("a photo of a"))
        words = trainer.clip_model.token_embedding(tokens)
        assert torch.equal(trainer.model.prompt_learner.ctx, torch.cat([torch.zeros(2, 64), words]))

    def test_more_words_than_vectors_are_refused(self, make):
        with pytest.raises(ValueError, match=r"'a photo of a', .*, has 4 tokens; it must have 1 to N_CTX \(2\)"):
            make("TRAINER.PROGRAD.TEMPLATE_INIT", True)

    def test_a_prompt_that_begins_with_the_name_is_refused(self, make, monkeypatch):
        monkeypatch.setattr(ProGrad, "own_templates", {"Folder": "{} texture."})
        with pytest.raises(ValueError, match="'', the start of the hand-made prompt, has 0 tokens"):
            make(*START)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"LAMBDA": -1.0}, "TRAINER.PROGRAD.LAMBDA is -1.0; it must be 0 (CoOp) or more."),
        ({"T": 0.0}, "TRAINER.PROGRAD.T is 0.0; it must be above 0."),
        (
            {"TEMPLATE_INIT": True, "CTX_INIT": "a photo"},
            "TRAINER.PROGRAD.TEMPLATE_INIT and CTX_INIT both say how the context starts. Set one of them.",
        ),
    ],
)
def test_wrong_options_are_refused(options, message):
    cfg = valid_cfg(**{f"TRAINER__PROGRAD__{key}": value for key, value in options.items()})
    assert TRAINER_REGISTRY.get("ProGrad").config_errors(cfg) == [message]
