"""CoOp: the words of CLIP's prompt are replaced by learned vectors.

Paper: Learning to Prompt for Vision-Language Models, Zhou, Yang, Loy, Liu, IJCV 2022, https://arxiv.org/abs/2109.01134

    t_i      = [V]_1 ... [V]_M [CLASS_i] .                        one context for all classes, or [V]^i for each (CSC)
    p(y=i|x) = softmax_i(cos(g(t_i), f(x)) / tau)                 g text tower, f image tower: frozen

Run:   bash scripts/coop/main.sh caltech101 rn50_ep50 end 16 1 False
Cost:  the text tower, forward and backward, for what differs between prompts (clip/prompts.py); images only forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode as CN

from clip.prompt_layout import POSITIONS
from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY
from engine.features.head import LinearHead
from engine.text import shorten

from .base import PromptedCLIP, TextEncoder, load_clip_to_cpu, option_errors  # noqa: F401  files written for the original look here
from .context import ContextLearner, ContextTrainer, build_prompt_encoder


class PromptLearner(ContextLearner):
    """The context vectors and the prompts they stand in: one context for all classes, or one for each."""

    def forward(self) -> Tensor:
        """Returns the embedded prompts (C, L, D), without positions, for a TextEncoder."""
        return self.embed(self.ctx)


class CustomCLIP(PromptedCLIP):
    """CLIP with one set of prompts for all images. `options` are those of `build_prompt_encoder`."""

    def __init__(self, clip_model: TwoTowers, prompt_learner: PromptLearner, **options):
        super().__init__(clip_model, prompt_learner)
        self.encode_prompts = build_prompt_encoder(clip_model, prompt_learner, **options)

    def text_features(self) -> Tensor:
        """Returns the features of all classes, (C, E) float32, normalised."""
        return F.normalize(self.encode_prompts(self.prompt_learner.ctx).float(), dim=-1)

    def classify(self, features: Tensor, text_features: Tensor | None = None) -> Tensor:
        """Classifies the features of images.

        Args:
            features: (B, E) float32, not normalised.
            text_features: (C, E) from `text_features`, computed here if None.

        Returns:
            (B, C) logits, float32 (float16 under autocast).
        """
        if text_features is None:
            text_features = self.text_features()
        return self.logit_scale.exp() * F.normalize(features, dim=-1) @ text_features.t()


@TRAINER_REGISTRY.register()
class CoOp(ContextTrainer):
    """Context optimisation."""

    node = "COOP"
    not_in_identity = ("TRAINER.COOP.CHUNK_ROWS", "TRAINER.COOP.SHARD_CLASSES")
    fixed_text_features: Tensor | None = None

    @staticmethod
    def add_config(cfg: CN) -> None:
        cfg.TRAINER.COOP = CN()
        cfg.TRAINER.COOP.N_CTX = 16  # number of context vectors; with CTX_INIT its number of tokens
        cfg.TRAINER.COOP.CSC = False  # a context for each class
        cfg.TRAINER.COOP.CTX_INIT = ""  # words to start from; "": random
        cfg.TRAINER.COOP.PREC = "fp16"  # fp32, fp16, amp, bf16
        cfg.TRAINER.COOP.CLASS_TOKEN_POSITION = "end"  # end, middle, front
        cfg.TRAINER.COOP.CHUNK_ROWS = 16384  # rows of the text tower at once, bounds memory; 0: all
        cfg.TRAINER.COOP.SHARD_CLASSES = False  # several ranks: each encodes the prompts of its share of the classes

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        return super().config_errors(cfg) + option_errors(cfg, {"TRAINER.COOP.CLASS_TOKEN_POSITION": POSITIONS})

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> CustomCLIP:
        node = self.cfg.TRAINER.COOP
        options = {"class_specific": node.CSC, "position": node.CLASS_TOKEN_POSITION, **self.start_options(**changes)}
        learner = PromptLearner(clip_model, classnames, **options)
        return CustomCLIP(clip_model, learner, chunk_rows=node.CHUNK_ROWS, shard_classes=node.SHARD_CLASSES)

    def checkpoint_fields(self) -> dict[str, Any]:
        return {**super().checkpoint_fields(), "class_token_position": self.cfg.TRAINER.COOP.CLASS_TOKEN_POSITION}

    def before_load(self, name: str, checkpoint: dict[str, Any]) -> None:
        super().before_load(name, checkpoint)
        own = self.cfg.TRAINER.COOP.CLASS_TOKEN_POSITION
        if (learned := checkpoint.get("class_token_position", own)) != own:
            raise ValueError(
                f"TRAINER.COOP.CLASS_TOKEN_POSITION is {own}, but the class token stood at {shorten(learned)} when the "
                "checkpoint's context was learned. Set it so."
            )

    @contextmanager
    def fixed_text(self) -> Iterator[None]:
        """Until its end the prompts are encoded once: they depend on no image, and nothing is learned meanwhile."""
        with torch.no_grad():
            self.fixed_text_features = self.model.text_features()
        try:
            yield
        finally:
            self.fixed_text_features = None

    def predictions(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        with self.fixed_text():
            yield from super().predictions(split)

    @torch.no_grad()
    def linear_head(self) -> LinearHead:
        fixed = self.fixed_text_features
        return LinearHead(self.model.text_features() if fixed is None else fixed, float(self.model.logit_scale.exp()))

    def classify_features(self, features: Tensor) -> Tensor:
        return self.model.classify(features, self.fixed_text_features)

    def result_fields(self) -> dict[str, Any]:
        node = self.cfg.TRAINER.COOP
        return {**super().result_fields(), "csc": node.CSC, "class_token_position": node.CLASS_TOKEN_POSITION}
