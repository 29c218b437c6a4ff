"""CoOp against the original's numbers: logits, loss, gradient and a trajectory of SGD, for every golden case."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip import build_model
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tolerance import GOLDEN_TOLERANCE, assert_near
from tests.trainers.test_golden_cocoop import CASES as COCOOP_CASES
from tests.trainers.test_golden_cocoop import losses_of_sgd
from trainers.coop import CustomCLIP, PromptLearner

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())
CASES = [case for case in GOLDEN["cases"] if case["method"] == "CoOp"]


def case_name(case):
    return (
        f"{case['model']}-{case['position']}-{'csc' if case['csc'] else 'unified'}-{case['n_ctx']}-{case['ctx_init']}"
    )


def build_case(case):
    clip_model = build_model(golden_state_dict(case["model"])).requires_grad_(False)
    learner = PromptLearner(
        clip_model,
        GOLDEN["classnames"],
        n_ctx=case["n_ctx"],
        ctx_init=case["ctx_init"],
        class_specific=case["csc"],
        position=case["position"],
    )
    if not case["ctx_init"]:
        n_classes, n_ctx = len(GOLDEN["classnames"]), case["n_ctx"]
        shape = (n_classes, n_ctx, 64) if case["csc"] else (n_ctx, 64)
        start = np.random.default_rng(11).standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        learner.ctx.data.copy_(torch.from_numpy(start))
    return CustomCLIP(clip_model, learner).eval(), golden_images(case["model"])


def head(tensor):
    return tensor.detach().reshape(-1, tensor.shape[-1])[:2].flatten()


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_logits_loss_gradient_and_sgd(case):
    model, images = build_case(case)
    labels, ctx = torch.tensor(GOLDEN["labels"]), model.prompt_learner.ctx

    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    found = {
        "logits": logits.flatten(),
        "loss": loss,
        "ctx_grad_norm": ctx.grad.norm(),
        "ctx_grad_head": head(ctx.grad),
        "losses_5_sgd_steps": losses_of_sgd(model, images, labels),
        "ctx_after_head": head(ctx),
    }
    assert_near(found, {key: case[key] for key in found}, GOLDEN_TOLERANCE)


def test_every_golden_case_is_in_a_test():
    assert len(CASES) + len(COCOOP_CASES) == len(GOLDEN["cases"])
    assert {(case["position"], case["csc"]) for case in CASES} >= {
        (position, csc) for position in ("end", "middle", "front") for csc in (True, False)
    }
    assert {case["ctx_init"] for case in COCOOP_CASES} == {"", "a photo of a"}
