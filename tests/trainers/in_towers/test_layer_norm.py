"""LayerNorm tuning: loss and gradients by the formula, on a CLIP with the learned values; how many there are."""

import pytest
import torch
import torch.nn.functional as F

import export
from inference.classifier import Classifier
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import CLASSES, build_trainer, run_train, tiny_cfg
from tests.support.tolerance import assert_near
from tests.trainers.in_towers.norms_by_hand import key_of, naive_features, spread
from tests.trainers.in_towers.steps import LABELS, assert_step_is

N_NORMS, WIDTH = {"text": 2 * 3 + 1, "vision": 2 * 2 + 2}, 64  # of the golden CLIP: two a block, and those around
TOWERS = {"both": ("text", "vision"), "text": ("text",), "vision": ("vision",)}
ENCODERS = pytest.mark.parametrize("encoder", TOWERS)


def own_cfg(tiny_files, folder, *pairs, **own):
    own = {f"TRAINER.LAYER_NORM.{key}": value for key, value in {"PREC": "fp32", **own}.items()}
    own |= {"TRAINER.NAME": "LayerNormTuning", "FEATURES.DIR": "", **dict(zip(pairs[::2], pairs[1::2], strict=True))}
    return tiny_cfg(tiny_files[0], tiny_files[1]["vit"], folder, *(word for pair in own.items() for word in pair))


@pytest.fixture
def build(tiny_files, tmp_path):
    """build(KEY=VALUE, ...): a trainer; the keys are LAYER_NORM's."""
    return lambda **own: build_trainer(own_cfg(tiny_files, tmp_path / "run", **own))


@ENCODERS
def test_loss_and_gradients_are_the_formulas(build, encoder):
    trainer = spread(build(ENCODER=encoder))
    scale = trainer.clip_model.logit_scale.double().exp()

    def loss_of(leaves, images, dtype):
        features, texts = naive_features(trainer, leaves, images, CLASSES, dtype)
        return F.cross_entropy(scale.to(dtype) * features @ texts.t(), LABELS)

    assert_step_is(trainer, loss_of)


@ENCODERS
def test_all_norms_of_the_towers_are_learned_and_start_as_clips(build, encoder):
    trainer = build(ENCODER=encoder)
    learned, clip = trainer.model.prompt_learner.state_dict(), trainer.clip_model.state_dict()
    assert sum(value.numel() for value in learned.values()) == sum(N_NORMS[t] for t in TOWERS[encoder]) * 2 * WIDTH
    norms = {key for key in clip if ".ln_" in f".{key}"}
    assert {key_of(name) for name in learned} == {
        key for key in norms if ("vision" if key.startswith("visual.") else "text") in TOWERS[encoder]
    }
    assert all(torch.equal(value, clip[key_of(name)]) for name, value in learned.items())


def test_a_clip_in_bfloat16_gives_nearly_the_same_loss_and_learns_in_float32(build):
    losses = []
    for prec in ("fp32", "bf16"):
        trainer = spread(build(PREC=prec))
        losses.append(trainer.forward_backward({"img": golden_images("vit"), "label": LABELS})["loss"])
        learner = trainer.model.prompt_learner
        assert {dtype for x in learner.parameters() for dtype in (x.dtype, x.grad.dtype)} == {torch.float32}
    assert torch.isclose(*losses, rtol=0.05)


def test_zero_shot_the_exported_clip_gives_the_logits_of_the_run(tiny_files, tmp_path):
    run_train(own_cfg(tiny_files, tmp_path / "run", "OPTIM.LR", 1.0))
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "clip"), "--format", "clip"]) == 0
    run, merged, plain = (
        made.trainer.model_inference(golden_images("vit")).detach()
        for made in (
            Classifier.from_run(tmp_path / "run"),
            Classifier.zero_shot(tmp_path / "clip/clip.safetensors", CLASSES),
            Classifier.zero_shot(tiny_files[1]["vit"], CLASSES),
        )
    )
    assert_near(merged, run)
    assert not torch.allclose(plain, run, rtol=1e-2)
