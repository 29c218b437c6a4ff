"""ProGrad: CoOp whose steps never go against what zero-shot CLIP knows.

Paper: Prompt-aligned Gradient for Prompt Tuning, Zhu, Niu, Han, Wu, Zhang, ICCV 2023, https://arxiv.org/abs/2205.14865

    G_d  = gradient of the cross entropy of softmax(z) and y      z CoOp's logits, y the labels
    G_g  = gradient of T^2 KL(softmax(z_0 / T) | softmax(z / T))  z_0 the logits of the hand-made prompt
    step = G_d                                                    if G_d . G_g >= 0
           G_d - LAMBDA (G_d . u) u,   u = G_g / |G_g|            else: they conflict

Where code and paper differ, and where this file does:
- The code's second loss is the cross entropy of softmax(z / T) with softmax(z_0 / T). It is the KL divergence and a
  constant, so the gradient is the same. This file logs the cross entropy, too.
- LAMBDA is 1. The authors' scripts take 0.8 for 8 and 16 shots on Flowers102, DTD and EuroSAT: see ..._lambda08.yaml.
- The hand-made prompts are the code's: "a type of pet, a photo of a {}.", so that the class name stands at the end.
- TEMPLATE_INIT is the code's start: those words at the end of N_CTX vectors, and zeros before them. Words behind the
  class name, if a data set of your own has some, are left out.
- The code computes z_0 in float32 beside a float16 z. Here both are in PREC, with one image feature for both.
- The two are compared for each learned tensor. There is one, also where each class has a context of its own (CSC).
- On several GPUs the sums of both gradients over all GPUs are compared, which is what one GPU would do.
With LAMBDA 0 it is CoOp.

Run:   TRAINER=ProGrad bash scripts/cocoop/base2new_train.sh caltech101 1
       TRAINER=ProGrad bash scripts/coop/main.sh caltech101 rn50_ep100 end 16 4 False
Cost:  one pass of the prompts forward through the text tower in a step, as CoOp's, and two backward.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY, compute_accuracy
from engine.distributed import sum_over_ranks

from .class_features import guide_features
from .context import ContextTrainer, CustomCLIP, word_embeddings


def aligned(gradient: Tensor, guide: Tensor, weight: float) -> Tensor:
    """Returns a gradient without `weight` times its part along the guide's if the two conflict, else as it is."""
    direction = F.normalize(guide.flatten(), dim=0).view_as(guide)
    along = (gradient * direction).sum()
    return torch.where(along < 0, gradient - weight * along * direction, gradient)


@TRAINER_REGISTRY.register()
class ProGrad(ContextTrainer):
    """Prompt-aligned gradient."""

    node = "PROGRAD"
    stays_eager = "takes two gradients of one forward pass"
    own_templates = {
        "OxfordPets": "a type of pet, a photo of a {}.",
        "OxfordFlowers": "a type of flower, a photo of a {}.",
        "FGVCAircraft": "a type of aircraft, a photo of a {}.",
        "DescribableTextures": "a texture of {}.",
        "Food101": "a type of food, a photo of {}.",
    }
    image_tower = ContextTrainer.image_tower  # named beside forward_backward, which takes features: INPUT.VIEWS works

    @classmethod
    def add_config(cls, cfg: CN) -> None:
        super().add_config(cfg)
        cfg.TRAINER.PROGRAD.LAMBDA = 1.0  # part of the conflict that is taken out of a gradient; 0: CoOp
        cfg.TRAINER.PROGRAD.T = 1.0  # temperature of both predictions in the second loss
        cfg.TRAINER.PROGRAD.TEMPLATE_INIT = False  # start from the words of the hand-made prompt, zeros before them

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        errors, node = super().config_errors(cfg), cfg.TRAINER.PROGRAD
        if not node.LAMBDA >= 0:
            errors.append(f"TRAINER.PROGRAD.LAMBDA is {node.LAMBDA}; it must be 0 (CoOp) or more.")
        if not node.T > 0:
            errors.append(f"TRAINER.PROGRAD.T is {node.T}; it must be above 0.")
        if node.TEMPLATE_INIT and node.CTX_INIT:
            errors.append(
                "TRAINER.PROGRAD.TEMPLATE_INIT and CTX_INIT both say how the context starts. Set one of them."
            )
        return errors

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> CustomCLIP:
        model = super().prompted_clip(clip_model, classnames, **changes)
        if self.cfg.TRAINER.PROGRAD.TEMPLATE_INIT and not changes:  # else a checkpoint is going to be loaded
            ctx = model.prompt_learner.ctx  # (M, D), or (C, M, D) if class-specific
            words = self.templates()[0].partition("{}")[0].strip()
            start = word_embeddings(clip_model, words)
            if not 1 <= len(start) <= ctx.shape[-2]:
                raise ValueError(
                    f"TRAINER.PROGRAD.TEMPLATE_INIT is True, but {words!r}, the start of the hand-made prompt, has "
                    f"{len(start)} tokens; it must have 1 to N_CTX ({ctx.shape[-2]}). Set TEMPLATE_INIT False."
                )
            with torch.no_grad():
                ctx.zero_()[..., -len(start) :, :] = start
        return model

    @cached_property
    def zero_shot_features(self) -> Tensor:
        """The hand-made prompt's text features (C, E) float32, normalised. Only training needs them."""
        return guide_features(self.clip_model, self.dm.dataset.classnames, self.templates())

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        weight, temperature = self.cfg.TRAINER.PROGRAD.LAMBDA, self.cfg.TRAINER.PROGRAD.T
        with self.autocast:
            features, labels = self.parse_features(batch)
            logits = self.model.classify(features)
            zero_shot = (self.model.classify(features, self.zero_shot_features) / temperature).softmax(dim=-1)
            loss = self.loss(logits, labels)
            guide = temperature**2 * F.cross_entropy(logits / temperature, zero_shot)
        parameters, own = self.trained.parameters(), self.scaler.scale(guide * self.batch_share)
        directions = [sum_over_ranks(one) for one in torch.autograd.grad(own, parameters, retain_graph=True)]

        def align() -> None:
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.grad = aligned(parameter.grad, direction, weight)

        self.model_backward_and_update(loss, change=align)
        return {"loss": loss.detach(), "guide": guide.detach(), "acc": compute_accuracy(logits, labels)[0]}
