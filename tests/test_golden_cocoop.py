"""The prompt encoder with a context for each image against the original's numbers, for every golden case of CoCoOp."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip import build_model
from clip.prompt_layout import lay_out
from clip.prompts import PromptEncoder
from tests.tiny_clip import golden_images, golden_state_dict
from trainers.coop import initial_context

GOLDEN = json.loads((Path(__file__).parent / "golden" / "models.json").read_text())
CASES = [case for case in GOLDEN["cases"] if case["method"] == "CoCoOp"]


class ConditionalCLIP(nn.Module):
    """Logits (B, C) of each image for prompts whose context is shifted by what a Meta-Net makes of the image."""

    def __init__(self, case):
        super().__init__()
        self.clip_model = build_model(golden_state_dict(case["model"])).requires_grad_(False).eval()
        n_ctx, self.images = case["n_ctx"], golden_images(case["model"])
        self.ctx = nn.Parameter(initial_context(self.clip_model, n_ctx, case["ctx_init"], n_contexts=1)[0])
        self.meta_net = nn.ModuleDict({"linear1": nn.Linear(32, 32 // 16), "linear2": nn.Linear(32 // 16, 64)})
        self.encode_prompts = PromptEncoder(self.clip_model, lay_out(GOLDEN["classnames"], n_ctx))

    def forward(self):
        image_features = F.normalize(self.clip_model.encode_image(self.images), dim=-1)  # (B, E)
        bias = self.meta_net["linear2"](self.meta_net["linear1"](image_features).relu())  # (B, D)
        text_features = F.normalize(self.encode_prompts(self.ctx + bias[:, None]), dim=-1)  # (B, C, E)
        cosines = (text_features * image_features[:, None]).sum(dim=-1)
        return self.clip_model.logit_scale.exp() * cosines


def build_case(case):
    model, rng = ConditionalCLIP(case), np.random.default_rng(13)

    def draw(parameter, scale):
        start = rng.standard_normal(tuple(parameter.shape), dtype=np.float32) * np.float32(scale)
        parameter.data.copy_(torch.from_numpy(start))

    if not case["ctx_init"]:
        draw(model.ctx, 0.02)
    for _, parameter in sorted(model.meta_net.named_parameters()):
        draw(parameter, 0.2)
    return model


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['model']}-{case['n_ctx']}-{case['ctx_init']}")
def test_logits_loss_gradients_and_sgd(case):
    model, labels = build_case(case), torch.tensor(GOLDEN["labels"])
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name: list(p.shape) for name, p in model.meta_net.named_parameters()} == case["meta_net_shapes"]

    logits = model()
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    torch.testing.assert_close(logits.flatten(), torch.tensor(case["logits"]), atol=1e-4, rtol=0)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
    norms = {name: parameter.grad.norm().item() for name, parameter in learned.items()}
    assert norms == pytest.approx(case["grad_norms"], rel=1e-4, abs=1e-7)

    optim = torch.optim.SGD(learned.values(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    losses = []
    for _ in range(5):
        loss = F.cross_entropy(model(), labels)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    assert losses == pytest.approx(case["losses_5_sgd_steps"], rel=1e-5)
    head = model.ctx.detach()[:2].flatten()
    torch.testing.assert_close(head, torch.tensor(case["ctx_after_head"]), atol=1e-4, rtol=0)
