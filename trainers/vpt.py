"""VPT: learned vectors beside the patches, before the blocks of the image tower; the text stays CLIP's.

Paper: Visual Prompt Tuning, Jia, Tang, Chen, Cardie, Belongie, Hariharan, Lim, ECCV 2022,
       https://arxiv.org/abs/2203.12119; here as the baseline of MaPLe, https://arxiv.org/abs/2210.03117

    image block i   reads [CLS] patches v_i,1 ... v_i,K          i < J; v_i from N(0, 0.02)
    loss = cross entropy(s cos(g("a photo of a CLASS."), f(x, v)), y)    g text tower, f image tower: frozen

Where VPT's paper and this file differ, as MaPLe's authors have it:
- The classifier is the text, not a learned head, so it knows new classes.
- The vectors stand behind the patches and have no position; they start from N(0, 0.02).
Where their code and this project differ:
- Vectors are kept in float32 and gradients are scaled with PREC fp16; theirs are rounded to float16 in each step.
- Width and number of blocks are the backbone's, not always 768 and 12.

Run:   TRAINER=VPT bash scripts/cocoop/base2new_train.sh caltech101 1
       TRAINER=VPT bash scripts/cocoop/base2new_test.sh caltech101 1
Cost:  the image tower, forward and backward, in every step. The text is encoded once for the whole run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY

from .base import PromptedCLIP
from .class_features import ensemble_features
from .deep_prompts import DeepPromptTrainer, draw_prompts


class VisionPromptLearner(nn.Module):
    """The v_i: vectors (K, D_v) float32 of the first `depth` blocks of an image tower of width D_v."""

    def __init__(self, width: int, *, n_ctx: int, depth: int):
        super().__init__()
        self.n_ctx = n_ctx
        self.vision = draw_prompts(depth, n_ctx, width)


class CustomCLIP(PromptedCLIP):
    """CLIP with vectors in its image tower and fixed text features (C, E) float32, normalised."""

    def __init__(self, clip_model: TwoTowers, prompt_learner: VisionPromptLearner, text_features: Tensor):
        super().__init__(clip_model, prompt_learner)
        self.register_buffer("text_features", text_features, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images (B, 3, H, W), normalised with CLIP's mean and std: (B, C) logits."""
        return self.classify(self.image_encoder(images, list(self.prompt_learner.vision)).float())

    def classify(self, features: Tensor) -> Tensor:
        return self.logit_scale.exp() * F.normalize(features, dim=-1) @ self.text_features.t()


@TRAINER_REGISTRY.register()
class VPT(DeepPromptTrainer):
    """Deep visual prompt tuning."""

    node = "VPT"
    learned_per_class = {"vision": False}

    @staticmethod
    def add_config(cfg: CN) -> None:
        node = cfg.TRAINER.VPT = CN()
        node.N_CTX_VISION = 8  # K, vectors behind the patches
        node.CTX_INIT = "a photo of a"  # words before the class name, which are not learned
        node.PREC = "fp16"  # fp32, fp16, amp, bf16
        node.PROMPT_DEPTH_VISION = 12  # J, blocks that have vectors; 1: in the input alone
        node.CHECKPOINT_ACTIVATIONS = False  # compute those of the image tower again in the backward pass: less memory

    def fixed_words(self) -> str:
        return self.cfg.TRAINER.VPT.CTX_INIT

    def templates(self) -> tuple[str, ...]:
        words = self.cfg.TRAINER.VPT.CTX_INIT.replace("_", " ")
        return (f"{words} {{}}.".lstrip(),)

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> CustomCLIP:
        self.check_towers(clip_model)
        with torch.no_grad():
            text_features = ensemble_features(clip_model, classnames, self.templates())
        self.warn_of_features(text_features)
        node, width = self.cfg.TRAINER.VPT, clip_model.visual.transformer.width
        learner = VisionPromptLearner(width, n_ctx=node.N_CTX_VISION, depth=node.PROMPT_DEPTH_VISION)
        return CustomCLIP(clip_model, learner, text_features)
