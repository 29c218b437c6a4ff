"""PREC: what half precision changes in the numbers, what is kept in float32, and what a CPU makes of it."""

from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F

from clip import build_model
from clip.model import convert_weights
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tiny_run import build_trainer, tiny_cfg
from trainers.coop import CustomCLIP, PromptLearner

NAMES = ["face", "Boeing 737-300", "a", "wine_bottle"]
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "amp": torch.float16}
EPS = {prec: torch.finfo(dtype).eps for prec, dtype in DTYPES.items()}
EPS["fp32"] = EPS["fp16"]  # a GPU's convolutions round to TF32, whose mantissa is float16's

kinds = pytest.mark.parametrize("kind", ["vit", "rn"])
contexts = pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])])


def check_near_float32(prec, found, exact):
    """Compares losses and gradients of the context, and logits where there are any, with float32's on a CPU."""
    tolerance = 8 * EPS[prec]  # 0.8 % in float16, 6 % in bfloat16
    (loss, *logits, gradient), (exact_loss, *exact_logits, exact_gradient) = found, exact
    assert loss == pytest.approx(exact_loss, rel=tolerance)
    torch.testing.assert_close(logits, exact_logits, atol=20 * tolerance, rtol=0)  # 20 times a cosine
    assert gradient.dtype == torch.float32
    assert (gradient - exact_gradient).norm() <= 2 * tolerance * exact_gradient.norm()


@lru_cache
def build_coop(position, class_specific):
    """Returns what makes CoOp's model, which computes in chunks, of a CLIP."""
    options = {"n_ctx": 4, "position": position, "class_specific": class_specific}
    return lambda clip_model: CustomCLIP(clip_model, PromptLearner(clip_model, NAMES, **options), chunk_rows=25)


@lru_cache
def one_step(kind, prec, build, device="cpu"):
    """Loss, logits and gradient of all that is learned, from one start."""
    clip_model = build_model(golden_state_dict(kind)).requires_grad_(False)
    if prec in ("fp16", "bf16"):
        convert_weights(clip_model, DTYPES[prec])
    torch.manual_seed(3)
    model = build(clip_model).to(device)
    with torch.autocast(device, torch.float16, enabled=prec == "amp"):
        logits = model(golden_images(kind).to(device))
        loss = F.cross_entropy(logits, LABELS.to(device))
    loss.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.prompt_learner.parameters()])
    return loss.item(), logits.detach().float().cpu(), gradient.cpu()


@devices
@pytest.mark.slow
@pytest.mark.parametrize("prec", ["fp32", "fp16", "bf16", "amp"])
@contexts
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@kinds
def test_every_precision_is_near_float32(kind, position, class_specific, prec, device):
    build = build_coop(position, class_specific)
    check_near_float32(prec, one_step(kind, prec, build, device), one_step(kind, "fp32", build))


@pytest.fixture
def make(tiny_files, tmp_path):
    """Builds a CoOp trainer of this precision; KEY, VALUE, ... change its config."""
    return lambda prec, kind="vit", *pairs: build_trainer(
        tiny_cfg(tiny_files[0], tiny_files[1][kind], tmp_path / prec, "TRAINER.COOP.PREC", prec, *pairs, kind=kind)
    )


@pytest.mark.parametrize("prec", ["fp16", "amp"])
def test_on_a_cpu_float16_is_fp32_with_one_warning(make, prec, caplog):
    trainer = make(prec)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"PREC {prec} needs a GPU: fp32 is used on the CPU"]
    assert trainer.clip_model.dtype == torch.float32
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(trainer.model(images), make("fp32").model(images))


@pytest.mark.parametrize("has_bfloat16", [True, False])
@pytest.mark.parametrize("prec", ["fp32", "fp16", "bf16"])
def test_a_cpu_is_proposed_bf16_or_warned_of_it_by_its_instructions(make, prec, has_bfloat16, caplog, monkeypatch):
    monkeypatch.setattr("trainers.backbone.multiplies_bfloat16", lambda: has_bfloat16)
    with caplog.at_level("INFO", logger="trainers"):
        trainer = make(prec)
    assert trainer.precision == ("bf16" if prec == "bf16" else "fp32")
    proposed = [message for message in caplog.messages if message.startswith("PREC bf16 would encode images")]
    assert len(proposed) == (has_bfloat16 and prec != "bf16")
    warning = "No instructions for PREC bf16 were found on this processor; without them it is slower than PREC fp32"
    assert (warning in caplog.messages) == (prec == "bf16" and not has_bfloat16)


@kinds
def test_bf16_trains_a_float32_context(make, kind):
    trainer = make("bf16", kind)
    assert trainer.clip_model.dtype == torch.bfloat16
    before = trainer.model.prompt_learner.ctx.detach().clone()
    trainer.train()
    ctx = trainer.model.prompt_learner.ctx
    assert ctx.dtype == torch.float32 and ctx.isfinite().all() and not torch.equal(ctx, before)


def first_step(trainer, batch):
    """Loss of a trainer's first step and gradient of the context."""
    ctx, start = trainer.model.prompt_learner.ctx, trainer.model.prompt_learner.ctx.detach().clone()
    for _ in range(10):  # a step whose scaled loss overflows float16 changes nothing but the scale
        loss = trainer.forward_backward(batch)["loss"]
        if ctx.grad.isfinite().all():
            break
    assert ctx.dtype == torch.float32 and ctx.isfinite().all() and not torch.equal(ctx, start)
    return loss, ctx.grad.cpu()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("prec", ["fp32", "fp16", "amp", "bf16"])
@contexts
@kinds
def test_every_precision_takes_float32s_step_on_a_gpu(make, kind, class_specific, prec):
    pairs = ("TRAINER.COOP.CSC", class_specific, "TRAINER.COOP.CHUNK_ROWS", 25)
    exact, trainer = make("fp32", kind, *pairs), make(prec, kind, *pairs, "USE_CUDA", True)
    assert trainer.scaler.is_enabled() == (prec in ("fp16", "amp"))
    batch = next(iter(exact.test_loader))
    check_near_float32(prec, first_step(trainer, batch), first_step(exact, batch))
    trainer.train()
    assert trainer.model.prompt_learner.ctx.isfinite().all()
