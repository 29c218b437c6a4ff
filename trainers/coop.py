"""CoOp: the words of CLIP's prompt are replaced by learned vectors.

Paper: Learning to Prompt for Vision-Language Models, Zhou, Yang, Loy, Liu, IJCV 2022, https://arxiv.org/abs/2109.01134

    t_i      = [V]_1 ... [V]_M [CLASS_i] .                        one context for all classes, or [V]^i for each (CSC)
    p(y=i|x) = softmax_i(cos(g(t_i), f(x)) / tau)                 g text tower, f image tower: frozen

Run:   bash scripts/coop/main.sh caltech101 rn50_ep50 end 16 1 False
Cost:  the text tower, forward and backward, for what differs between prompts (clip/prompts.py); images only forward.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.clip import tokenize
from clip.model import CLIP
from clip.prompt_layout import POSITIONS, lay_out
from clip.prompts import PromptEncoder
from engine import TRAINER_REGISTRY

from .base import PromptTrainer, option_errors

logger = logging.getLogger(__name__)


class PromptLearner(nn.Module):
    """The context vectors and the prompts they stand in.

    Args:
        clip_model: Gives the token embedding.
        classnames: C names; underscores are read as spaces.
        n_ctx: M, the number of context vectors; with `ctx_init` it is the number of its tokens.
        ctx_init: Words whose embeddings the context starts from; "": drawn from N(0, 0.02).
        class_specific: A context for each class: `ctx` is (C, M, D) instead of (M, D).
        position: Where the class name stands: "end", "middle" or "front".
    """

    def __init__(
        self,
        clip_model: CLIP,
        classnames: list[str],
        *,
        n_ctx: int = 16,
        ctx_init: str = "",
        class_specific: bool = False,
        position: str = "end",
    ):
        super().__init__()
        start = initial_context(clip_model, n_ctx, ctx_init, n_contexts=len(classnames) if class_specific else 1)
        self.ctx = nn.Parameter(start if class_specific else start[0])  # float32
        self.n_ctx, self.class_specific = self.ctx.shape[-2], class_specific
        self.layout = lay_out(classnames, self.n_ctx, position, context_length=clip_model.context_length)
        with torch.no_grad():
            tokens = self.layout.tokens.to(clip_model.token_embedding.weight.device)
            embedding = clip_model.token_embedding(tokens).type(clip_model.dtype)  # (C, L, D)
        self.register_buffer("token_prefix", embedding[:, :1].clone())  # (C, 1, D), [SOS]
        self.register_buffer("token_suffix", embedding[:, 1 + self.n_ctx :].clone())  # (C, L - 1 - M, D), name . [EOT]

    def forward(self) -> Tensor:
        """Returns the embedded prompts (C, L, D), without positions, for a TextEncoder."""
        n_classes = len(self.token_prefix)
        ctx = self.ctx.expand(n_classes, -1, -1).type(self.token_prefix.dtype)
        columns = torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)
        order = self.layout.order.to(columns.device)
        return columns.gather(1, order[..., None].expand_as(columns))


def initial_context(clip_model: CLIP, n_ctx: int, ctx_init: str, *, n_contexts: int) -> Tensor:
    """Draws contexts from N(0, 0.02), or embeds the words of `ctx_init` in each: (n_contexts, M, D) float32."""
    if not ctx_init:
        return torch.empty(n_contexts, n_ctx, clip_model.transformer.width).normal_(std=0.02)
    tokens = tokenize(ctx_init.replace("_", " "))[0]
    # Differs from the original: it counted words, so a word of several tokens lost its end and shifted the class name.
    n_tokens = int(tokens.argmax()) - 1
    if n_tokens != n_ctx:
        logger.warning(
            f"N_CTX is {n_ctx}, but CTX_INIT {ctx_init!r} has {n_tokens} tokens: {n_tokens} context vectors are learned"
        )
    device = clip_model.token_embedding.weight.device
    words = clip_model.token_embedding(tokens[1 : 1 + n_tokens].to(device)).detach().float()
    return words.expand(n_contexts, -1, -1).clone()


class CustomCLIP(nn.Module):
    """CLIP whose text features are those of the learned prompts.

    Args:
        clip_model: The frozen CLIP.
        prompt_learner: What is trained.
        chunk_rows: Rows of the text tower at once, see PromptEncoder.
    """

    def __init__(self, clip_model: CLIP, prompt_learner: PromptLearner, *, chunk_rows: int = 0):
        super().__init__()
        self.image_encoder = clip_model.visual
        self.logit_scale = clip_model.logit_scale
        self.prompt_learner = prompt_learner
        self.encode_prompts = PromptEncoder(
            clip_model, prompt_learner.layout, class_specific=prompt_learner.class_specific, chunk_rows=chunk_rows
        )

    def text_features(self) -> Tensor:
        """Returns the features of all classes, (C, E) float32, normalised."""
        return F.normalize(self.encode_prompts(self.prompt_learner.ctx).float(), dim=-1)

    def forward(self, images: Tensor, text_features: Tensor | None = None) -> Tensor:
        """Classifies images.

        Args:
            images: (B, 3, H, W), normalised with CLIP's mean and std.
            text_features: (C, E) from `text_features`, computed here if None.

        Returns:
            (B, C) logits, float32 (float16 under autocast).
        """
        if text_features is None:
            text_features = self.text_features()
        image_features = self.image_encoder(images.type(self.image_encoder.conv1.weight.dtype))
        image_features = F.normalize(image_features.float(), dim=-1)  # (B, E)
        return self.logit_scale.exp() * image_features @ text_features.t()


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimisation."""

    node = "COOP"
    not_in_identity = ("TRAINER.COOP.CHUNK_ROWS",)
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

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        node = cfg.TRAINER.COOP
        errors = super().config_errors(cfg) + option_errors(cfg, {"TRAINER.COOP.CLASS_TOKEN_POSITION": POSITIONS})
        if node.CTX_INIT and not node.CTX_INIT.replace("_", " ").strip():
            errors.append(f"TRAINER.COOP.CTX_INIT is {node.CTX_INIT!r}, expected words, or nothing for a random start.")
        if node.N_CTX < 1:
            errors.append(f"TRAINER.COOP.N_CTX is {node.N_CTX}, expected at least 1.")
        if node.CHUNK_ROWS < 0:
            errors.append(f"TRAINER.COOP.CHUNK_ROWS is {node.CHUNK_ROWS}, expected 0 (all at once) or more.")
        return errors

    def prompted_clip(self, clip_model: CLIP, classnames: list[str], **changes) -> CustomCLIP:
        node = self.cfg.TRAINER.COOP
        options = {"n_ctx": node.N_CTX, "ctx_init": node.CTX_INIT, **changes}
        learner = PromptLearner(
            clip_model, classnames, class_specific=node.CSC, position=node.CLASS_TOKEN_POSITION, **options
        )
        return CustomCLIP(clip_model, learner, chunk_rows=node.CHUNK_ROWS)

    def before_load(self, name: str, state_dict: dict[str, Tensor]) -> None:
        """Takes the number of context vectors from the checkpoint: words may have been counted otherwise."""
        ctx = state_dict.get("ctx", self.model.prompt_learner.ctx)
        n_ctx = ctx.shape[-2] if ctx.dim() > 1 else None
        if n_ctx and n_ctx != self.model.prompt_learner.n_ctx:
            logger.warning(f"The checkpoint has {n_ctx} context vectors, the config {self.model.prompt_learner.n_ctx}")
            self.build_learner(n_ctx=n_ctx, ctx_init="")

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        self.fixed_text_features = self.model.text_features()  # once per evaluation: they depend on no image
        try:
            return super().test(split)
        finally:
            self.fixed_text_features = None

    def model_inference(self, images: Tensor) -> Tensor:
        return self.model(images, self.fixed_text_features)

    def result_fields(self) -> dict[str, Any]:
        node = self.cfg.TRAINER.COOP
        return {
            "n_ctx": self.model.prompt_learner.n_ctx,
            "csc": node.CSC,
            "class_token_position": node.CLASS_TOKEN_POSITION,
        }
