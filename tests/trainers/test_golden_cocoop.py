"""CoCoOp against the original's numbers: logits, loss, gradients and five steps of SGD of every golden case."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip import build_model
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tolerance import GOLDEN_TOLERANCE, assert_near
from trainers.cocoop import CustomCLIP, PromptLearner

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())
CASES = [case for case in GOLDEN["cases"] if case["method"] == "CoCoOp"]


def build_case(case):
    clip_model = build_model(golden_state_dict(case["model"])).requires_grad_(False).eval()
    learner = PromptLearner(clip_model, GOLDEN["classnames"], n_ctx=case["n_ctx"], ctx_init=case["ctx_init"])
    rng = np.random.default_rng(13)

    def draw(parameter, scale):
        start = rng.standard_normal(tuple(parameter.shape), dtype=np.float32) * np.float32(scale)
        parameter.data.copy_(torch.from_numpy(start))

    if not case["ctx_init"]:
        draw(learner.ctx, 0.02)
    for _, parameter in sorted(learner.meta_net.named_parameters()):
        draw(parameter, 0.2)
    return CustomCLIP(clip_model, learner)


def losses_of_sgd(model, images, labels):
    """Five steps on all images, from the model as it is; the loss before each."""
    optim = torch.optim.SGD(model.prompt_learner.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    losses = []
    for _ in range(5):
        loss = F.cross_entropy(model(images), labels)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['model']}-{case['n_ctx']}-{case['ctx_init']}")
def test_logits_loss_gradients_and_sgd(case):
    model, labels, images = build_case(case), torch.tensor(GOLDEN["labels"]), golden_images(case["model"])
    learned = dict(model.prompt_learner.named_parameters())
    meta_net = model.prompt_learner.meta_net
    assert {name: list(p.shape) for name, p in meta_net.named_parameters()} == case["meta_net_shapes"]
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [
        f"prompt_learner.{name}" for name in learned
    ]

    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    found = {
        "logits": logits.flatten(),
        "loss": loss,
        "grad_norms": {name: parameter.grad.norm() for name, parameter in learned.items()},
        "losses_5_sgd_steps": losses_of_sgd(model, images, labels),
        "ctx_after_head": model.prompt_learner.ctx[:2].flatten(),
    }
    assert_near(found, {key: case[key] for key in found}, GOLDEN_TOLERANCE)
