"""Static prompts: one set for all images. Their text features are the classifier, a matrix of C rows.

What CoOp and the methods on its context share. trainers/context.py has what prompts for each image need as well.
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
from engine.features.head import LinearHead
from engine.text import shorten

from .base import PromptedCLIP, option_errors
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


class StaticPromptTrainer(ContextTrainer):
    """Trains the context of static prompts. A method names its `node`, whose options are those below and its own."""

    fixed_text_features: Tensor | None = None

    @classmethod
    def add_config(cls, cfg: CN) -> None:
        node = cfg.TRAINER[cls.node] = CN()
        node.N_CTX = 16  # number of context vectors; with CTX_INIT its number of tokens
        node.CSC = False  # a context for each class
        node.CTX_INIT = ""  # words to start from; "": random
        node.PREC = "fp16"  # fp32, fp16, amp, bf16
        node.CLASS_TOKEN_POSITION = "end"  # end, middle, front
        node.CHUNK_ROWS = 16384  # rows of the text tower at once, bounds memory; 0: all
        node.SHARD_CLASSES = False  # several ranks: each encodes the prompts of its share of the classes

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        return super().config_errors(cfg) + option_errors(cfg, {f"TRAINER.{cls.node}.CLASS_TOKEN_POSITION": POSITIONS})

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> CustomCLIP:
        node = self.cfg.TRAINER[self.node]
        options = {"class_specific": node.CSC, "position": node.CLASS_TOKEN_POSITION, **self.start_options(**changes)}
        learner = PromptLearner(clip_model, classnames, **options)
        return CustomCLIP(clip_model, learner, chunk_rows=node.CHUNK_ROWS, shard_classes=node.SHARD_CLASSES)

    def checkpoint_fields(self) -> dict[str, Any]:
        position = self.cfg.TRAINER[self.node].CLASS_TOKEN_POSITION
        return {**super().checkpoint_fields(), "class_token_position": position}

    def before_load(self, name: str, checkpoint: dict[str, Any]) -> None:
        super().before_load(name, checkpoint)
        own = self.cfg.TRAINER[self.node].CLASS_TOKEN_POSITION
        if (learned := checkpoint.get("class_token_position", own)) != own:
            raise ValueError(
                f"TRAINER.{self.node}.CLASS_TOKEN_POSITION is {own}, but the class token stood at {shorten(learned)} "
                "when the checkpoint's context was learned. Set it so."
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
        node = self.cfg.TRAINER[self.node]
        return {**super().result_fields(), "csc": node.CSC, "class_token_position": node.CLASS_TOKEN_POSITION}
