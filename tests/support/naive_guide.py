"""CoOp and the zero-shot CLIP that guides it, by the formula: every position of every prompt, any dtype."""

import copy

import torch
import torch.nn.functional as F

from clip.clip import tokenize
from tests.support.naive import naive_features
from tests.support.tiny_run import CLASSES, build_trainer


def plain(trainer, images, template, dtype):
    """Returns a trainer's ctx as a leaf, and what follows from it: logits, zero-shot logits, text features, anchors."""
    clip_model = copy.deepcopy(trainer.clip_model).to(dtype)
    ctx = trainer.model.prompt_learner.ctx.detach().to(dtype).requires_grad_()
    texts = [template.replace("{}", name.replace("_", " ")) for name in CLASSES]
    anchors = F.normalize(clip_model.encode_text(tokenize(texts)), dim=-1)
    learned = F.normalize(naive_features(clip_model, ctx, CLASSES, "end"), dim=-1)
    features = F.normalize(clip_model.encode_image(images.to(dtype)), dim=-1)
    scale = clip_model.logit_scale.exp()
    return ctx, scale * features @ learned.t(), scale * features @ anchors.t(), learned, anchors


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
