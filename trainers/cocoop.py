"""CoCoOp: the learned context is shifted for each image, by what a small network makes of the image's feature.

Paper: Conditional Prompt Learning for Vision-Language Models, Zhou, Yang, Loy, Liu, CVPR 2022,
       https://arxiv.org/abs/2203.05557

    v_m(x)   = v_m + pi,  pi = h_theta(f(x))                      h Meta-Net: Linear E -> E/16, ReLU, Linear -> D
    t_i(x)   = v_1(x) ... v_M(x) [CLASS_i] .
    p(y=i|x) = softmax_i(cos(g(t_i(x)), f(x)) / tau)              f normalised; g text tower, f image tower: frozen

Run:   bash scripts/cocoop/base2new_train.sh caltech101 1
       bash scripts/cocoop/base2new_test.sh caltech101 1
Cost:  the text tower once for every image, forward and backward: B (M + own tokens of C classes) positions instead
       of 77 B C (clip/prompts.py), in testing too. CHUNK_ROWS bounds the memory, at the price of a second forward pass.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY

from .base import PromptedCLIP
from .context import ContextLearner, ContextTrainer, build_prompt_encoder

REDUCTION = 16  # the Meta-Net's bottleneck


class PromptLearner(ContextLearner):
    """The context vectors, and the Meta-Net that shifts them for an image.

    Args:
        clip_model: Gives the token embedding and the widths.
        classnames: C names; underscores are read as spaces.
        n_ctx: M, the number of context vectors; with `ctx_init` it is the number of its tokens.
        ctx_init: Words whose embeddings the context starts from; "": drawn from N(0, 0.02).
    """

    def __init__(self, clip_model: TwoTowers, classnames: list[str], *, n_ctx: int = 4, ctx_init: str = ""):
        super().__init__(clip_model, classnames, n_ctx=n_ctx, ctx_init=ctx_init)
        vis_dim, ctx_dim = clip_model.visual.output_dim, self.ctx.shape[-1]
        layers = [
            ("linear1", nn.Linear(vis_dim, vis_dim // REDUCTION)),
            ("relu", nn.ReLU()),
            ("linear2", nn.Linear(vis_dim // REDUCTION, ctx_dim)),
        ]
        self.meta_net = nn.Sequential(OrderedDict(layers))  # float32

    def contexts(self, image_features: Tensor) -> Tensor:
        """Shifts the context for each image: features (B, E), normalised, float32 -> (B, M, D)."""
        return self.ctx + self.meta_net(image_features)[:, None]

    def forward(self, image_features: Tensor) -> Tensor:
        """Returns the embedded prompts (B, C, L, D) of images (B, E), without positions, for a TextEncoder."""
        return torch.stack([self.embed(context) for context in self.contexts(image_features)])


class CustomCLIP(PromptedCLIP):
    """CLIP with prompts for each image. `options` are those of `build_prompt_encoder`."""

    def __init__(self, clip_model: TwoTowers, prompt_learner: PromptLearner, **options):
        super().__init__(clip_model, prompt_learner)
        self.encode_prompts = build_prompt_encoder(clip_model, prompt_learner, **options)

    def classify(self, features: Tensor) -> Tensor:
        """Classifies images by their features (B, E), float32: (B, C) logits, float16 under autocast."""
        image_features = F.normalize(features, dim=-1)
        text_features = self.encode_prompts(self.prompt_learner.contexts(image_features))
        text_features = F.normalize(text_features.float(), dim=-1)  # (B, C, E)
        return self.logit_scale.exp() * (text_features @ image_features[..., None])[..., 0]


@TRAINER_REGISTRY.register()
class CoCoOp(ContextTrainer):
    """Conditional context optimisation."""

    node = "COCOOP"
    learned_per_class = {"ctx": False, "meta_net": False}

    @staticmethod
    def add_config(cfg: CN) -> None:
        cfg.TRAINER.COCOOP = CN()
        cfg.TRAINER.COCOOP.N_CTX = 16  # number of context vectors; with CTX_INIT its number of tokens
        cfg.TRAINER.COCOOP.CTX_INIT = ""  # words to start from; "": random
        cfg.TRAINER.COCOOP.PREC = "fp16"  # fp32, fp16, amp, bf16
        cfg.TRAINER.COCOOP.CHUNK_ROWS = -1  # rows of the text tower at once; 0: all; -1: as many as fit the GPU

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> CustomCLIP:
        learner = PromptLearner(clip_model, classnames, **self.start_options(**changes))
        return CustomCLIP(clip_model, learner, chunk_rows=self.cfg.TRAINER.COCOOP.CHUNK_ROWS)
