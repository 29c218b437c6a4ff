"""CoOp and CoCoOp against the original's numbers: logits, loss, gradients and five steps of SGD of every case."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip import build_model
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tolerance import GOLDEN_TOLERANCE, assert_near
from trainers import cocoop, coop

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())
CASES = {method: [case for case in GOLDEN["cases"] if case["method"] == method] for method in ("CoOp", "CoCoOp")}

DESCRIPTION = ("model", "method", "position", "csc", "n_ctx", "ctx_init", "meta_net_shapes")


def build_coop(case):
    clip_model = build_model(golden_state_dict(case["model"])).requires_grad_(False)
    options = {"n_ctx": case["n_ctx"], "ctx_init": case["ctx_init"]}
    options |= {"class_specific": case["csc"], "position": case["position"]}
    learner = coop.PromptLearner(clip_model, GOLDEN["classnames"], **options)
    if not case["ctx_init"]:
        draw(np.random.default_rng(11), learner.ctx, 0.02)
    return coop.CustomCLIP(clip_model, learner).eval()


def build_cocoop(case):
    clip_model = build_model(golden_state_dict(case["model"])).requires_grad_(False).eval()
    options = {"n_ctx": case["n_ctx"], "ctx_init": case["ctx_init"]}
    learner = cocoop.PromptLearner(clip_model, GOLDEN["classnames"], **options)
    rng = np.random.default_rng(13)
    if not case["ctx_init"]:
        draw(rng, learner.ctx, 0.02)
    for _, parameter in sorted(learner.meta_net.named_parameters()):
        draw(rng, parameter, 0.2)
    return cocoop.CustomCLIP(clip_model, learner)


def draw(rng, parameter, scale):
    start = rng.standard_normal(tuple(parameter.shape), dtype=np.float32) * np.float32(scale)
    parameter.data.copy_(torch.from_numpy(start))


def head(tensor):
    return tensor.detach().reshape(-1, tensor.shape[-1])[:2].flatten()


def measure(model, case):
    """What is found of a case: at the start, and after five steps on all images."""
    images, labels = golden_images(case["model"]), torch.tensor(GOLDEN["labels"])
    learned = dict(model.prompt_learner.named_parameters())
    ctx, logits = learned["ctx"], model(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    found = {
        "ctx_head": head(ctx).clone(),
        "logits": logits.flatten(),
        "loss": loss,
        "ctx_grad_norm": ctx.grad.norm(),
        "ctx_grad_head": head(ctx.grad),
        "grad_norms": {name: parameter.grad.norm() for name, parameter in learned.items()},
    }
    optim = torch.optim.SGD(learned.values(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    losses = []
    for _ in range(5):
        loss = F.cross_entropy(model(images), labels)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return {**found, "losses_5_sgd_steps": losses, "ctx_after_head": head(ctx)}


def compare(model, case):
    found = measure(model, case)
    expected = {key: value for key, value in case.items() if key not in DESCRIPTION}
    assert_near({key: found[key] for key in expected}, expected, GOLDEN_TOLERANCE)


def case_name(case):
    return "-".join(str(case.get(key, "")) for key in ("model", "position", "csc", "n_ctx", "ctx_init"))


@pytest.mark.parametrize("case", CASES["CoOp"], ids=case_name)
def test_coop(case):
    compare(build_coop(case), case)


@pytest.mark.parametrize("case", CASES["CoCoOp"], ids=case_name)
def test_cocoop(case):
    model = build_cocoop(case)
    meta_net = model.prompt_learner.meta_net
    assert {name: list(p.shape) for name, p in meta_net.named_parameters()} == case["meta_net_shapes"]
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [
        f"prompt_learner.{name}" for name, _ in model.prompt_learner.named_parameters()
    ]
    compare(model, case)


def test_every_golden_case_is_in_a_test():
    assert sum(map(len, CASES.values())) == len(GOLDEN["cases"])
    assert {(case["position"], case["csc"]) for case in CASES["CoOp"]} >= {
        (position, csc) for position in ("end", "middle", "front") for csc in (True, False)
    }
    assert {case["ctx_init"] for case in CASES["CoCoOp"]} == {"", "a photo of a"}
