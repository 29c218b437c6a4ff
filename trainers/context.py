"""Learned context vectors: their start, the prompts they stand in, how these are encoded and trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.plain_prompts import PlainPromptEncoder
from clip.prompt_layout import POSITIONS, PromptLayout, lay_out
from clip.prompts import PromptEncoder, shares_positions
from clip.two_towers import TwoTowers
from engine import compute_accuracy
from engine.config.load import option_errors
from engine.device import free_memory
from engine.distributed import gather_rows, n_ranks, share
from engine.features.head import LinearHead

from .backbone import require_open
from .base import PromptedCLIP, PromptTrainer
from .compiled_prompts import CompiledEncoder
from .row_memory import bytes_per_row, rows_that_fit

logger = logging.getLogger(__name__)

FIXED_ROWS = 16384  # of a chunk, where bits may not depend on free memory


def initial_context(clip_model: TwoTowers, n_ctx: int, ctx_init: str, *, n_contexts: int) -> Tensor:
    """Draws contexts from N(0, 0.02), or embeds the words of `ctx_init` in each: (n_contexts, M, D) float32."""
    if not ctx_init:
        return torch.empty(n_contexts, n_ctx, clip_model.transformer.width).normal_(std=0.02)
    words = word_embeddings(clip_model, ctx_init)
    if len(words) != n_ctx:
        logger.warning(
            f"N_CTX is {n_ctx}, but CTX_INIT {ctx_init!r} has {len(words)} tokens: {len(words)} context vectors are "
            "learned"
        )
    return words.expand(n_contexts, -1, -1).clone()


def word_embeddings(clip_model: TwoTowers, words: str) -> Tensor:
    """Embeds words, a vector for each of their n tokens: (n, D) float32."""
    # Differs from the original: it counted words, so a word of several tokens lost its end and shifted the class name.
    tokens = torch.tensor(clip_model.tokenizer.encode(words.replace("_", " ")), dtype=torch.long)
    return clip_model.token_embedding(tokens.to(clip_model.token_embedding.weight.device)).detach().float()


class ContextLearner(nn.Module):
    """The context vectors and the prompts they stand in.

    Args:
        clip_model: Gives the token embedding.
        classnames: C names; underscores are read as spaces.
        n_ctx: M, the number of context vectors; with `ctx_init` it is the number of its tokens.
        ctx_init: Words whose embeddings the context starts from; "": drawn from N(0, 0.02).
        class_specific: A context for each class: `ctx` is (C, M, D) instead of (M, D).
        position: Where the class name stands: "end", "middle" or "front".
        words: What stands behind the context, see `lay_out`.
    """

    class_deep = False  # whether each class has deep prompts of its own
    tuned = False  # whether the text tower's own weights are learned, too

    def __init__(
        self,
        clip_model: TwoTowers,
        classnames: list[str],
        *,
        n_ctx: int = 16,
        ctx_init: str = "",
        class_specific: bool = False,
        position: str = "end",
        words: str = "{}.",
    ):
        super().__init__()
        require_open(clip_model)
        start = initial_context(clip_model, n_ctx, ctx_init, n_contexts=len(classnames) if class_specific else 1)
        self.ctx = nn.Parameter(start if class_specific else start[0])  # float32
        self.n_ctx, self.class_specific, self.position = self.ctx.shape[-2], class_specific, position
        self.layout = lay_out(classnames, self.n_ctx, position, tokenizer=clip_model.tokenizer, words=words)
        with torch.no_grad():
            tokens = self.layout.tokens.to(clip_model.token_embedding.weight.device)
            embedding = clip_model.token_embedding(tokens).type(clip_model.dtype)  # (C, L, D)
        first = self.layout.n_start  # 1, or 0 for a tokenizer without [SOS]
        self.register_buffer("token_prefix", embedding[:, :first].clone())  # (C, 1, D), [SOS]
        self.register_buffer("token_suffix", embedding[:, first + self.n_ctx :].clone())  # (C, L - 1 - M, D), name .

    def deep(self) -> Sequence[Tensor | None]:
        """Returns the deep prompts, see PromptEncoder; here there are none."""
        return ()

    def embed(self, ctx: Tensor) -> Tensor:
        """Puts a context into the prompts, for a TextEncoder: (M, D) or (C, M, D) -> (C, L, D), without positions."""
        n_classes = len(self.token_prefix)
        ctx = ctx.expand(n_classes, -1, -1).type(self.token_prefix.dtype)
        columns = torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)
        order = self.layout.order.to(columns.device)
        return columns.gather(1, order[..., None].expand_as(columns))

    def forward(self) -> Tensor:
        """Returns the embedded prompts (C, L, D), without positions, for a TextEncoder."""
        return self.embed(self.context())

    def context(self) -> Tensor:
        """Returns the context as it stands in the prompts."""
        return self.ctx


class ShardedPromptEncoder(nn.Module):
    """Encodes the prompts of this rank's classes; the features of the others come, with gradients, from their ranks.

    Args:
        build: Makes the encoder of a layout.
        layout: The prompts of all C classes.
        class_specific: Whether every class has context vectors of its own.

    Raises:
        ValueError: If there are fewer classes than ranks.
    """

    def __init__(self, build: Callable[[PromptLayout], nn.Module], layout: PromptLayout, *, class_specific: bool):
        super().__init__()
        self.n_classes, self.class_specific = len(layout.tokens), class_specific
        if self.n_classes < n_ranks():
            raise ValueError(
                f"SHARD_CLASSES is True, but {self.n_classes} classes cannot be shared out among "
                f"{n_ranks()} ranks. Leave it out, or start fewer."
            )
        self.own = share(self.n_classes)
        self.encoder = build(layout.of_classes(self.own))
        self.chunk_rows, self.n_rows = self.encoder.chunk_rows, self.encoder.n_rows

    def forward(self, ctx: Tensor, deep: Sequence[Tensor | None] = ()) -> Tensor:
        """Encodes the prompts: one context (M, D), or (C, M, D) if class-specific -> (C, E) float32, not normalised.

        `deep` are those of PromptEncoder.
        """
        deep = [vectors if vectors is None or vectors.dim() == 2 else vectors[self.own] for vectors in deep]
        own = self.encoder(ctx[self.own] if self.class_specific else ctx, deep)
        return gather_rows(own.float(), self.n_classes)  # float32: gradients of all ranks are summed

    def compiled(self, **how) -> ShardedPromptEncoder:
        """Compiles what this rank encodes, not what it exchanges with the others, see CompiledEncoder."""
        self.encoder = CompiledEncoder(self.encoder, **how)
        return self


def rows_at_once(clip_model: TwoTowers, layout: PromptLayout) -> int:
    """Returns the rows of the text tower that a GPU has room for now; FIXED_ROWS on a CPU and where bits repeat."""
    free_bytes = free_memory(clip_model.positional_embedding.device)
    if free_bytes is None or torch.are_deterministic_algorithms_enabled():
        return FIXED_ROWS
    n_keys = layout.longest if shares_positions(clip_model) else layout.tokens.shape[1]
    n_rows = rows_that_fit(free_bytes, bytes_per_row(clip_model.transformer, n_keys, clip_model.dtype))
    logger.info("Rows of the text tower at once: %s, of %.1f GB that are free", f"{n_rows:,}", free_bytes / 1e9)
    return n_rows


def build_prompt_encoder(
    clip_model: TwoTowers, prompt_learner: ContextLearner, *, chunk_rows: int = 0, shard_classes: bool = False
) -> nn.Module:
    """Builds what encodes the prompts of a ContextLearner: the exact fast encoder where they share positions.

    Args:
        clip_model: The frozen CLIP.
        prompt_learner: Has the prompts.
        chunk_rows: Rows of the text tower at once, see PromptEncoder; -1: see `rows_at_once`.
        shard_classes: Whether the ranks of a run share the classes out among them.
    """
    if chunk_rows < 0:
        chunk_rows = rows_at_once(clip_model, prompt_learner.layout)
    fast, class_specific = shares_positions(clip_model), prompt_learner.class_specific
    of_learner = {"class_deep": prompt_learner.class_deep, "tuned": prompt_learner.tuned}
    encoder = partial(PromptEncoder, **of_learner) if fast else PlainPromptEncoder
    build = partial(encoder, clip_model, class_specific=class_specific, chunk_rows=chunk_rows)
    if shard_classes and n_ranks() > 1:
        return ShardedPromptEncoder(build, prompt_learner.layout, class_specific=class_specific)
    return build(prompt_learner.layout)


class CustomCLIP(PromptedCLIP):
    """CLIP with one set of prompts for all images: their text features are the classifier, a matrix of C rows.

    `options` are those of `build_prompt_encoder`.
    """

    fixed_features: Tensor | None = None

    def __init__(self, clip_model: TwoTowers, prompt_learner: ContextLearner, **options):
        super().__init__(clip_model, prompt_learner)
        self.encode_prompts = build_prompt_encoder(clip_model, prompt_learner, **options)

    def text_features(self) -> Tensor:
        """Returns the features of all classes, (C, E) float32, normalised."""
        if self.fixed_features is not None:
            return self.fixed_features
        learner = self.prompt_learner
        return F.normalize(self.encode_prompts(learner.context(), learner.deep()).float(), dim=-1)

    @contextmanager
    def fixed_text(self) -> Iterator[None]:
        """Until its end the prompts are encoded once: they depend on no image, and nothing is learned meanwhile."""
        with torch.no_grad():
            self.fixed_features = self.text_features()
        try:
            yield
        finally:
            self.fixed_features = None

    def classify(self, features: Tensor, text_features: Tensor | None = None) -> Tensor:
        """Classifies the features of images.

        Args:
            features: (B, E) float32, not normalised.
            text_features: (C, E), normalised; None: those of `text_features`.

        Returns:
            (B, C) logits, float32 (float16 under autocast).
        """
        if text_features is None:
            text_features = self.text_features()
        return self.logit_scale.exp() * F.normalize(features, dim=-1) @ text_features.t()

    @torch.no_grad()
    def feature_head(self) -> LinearHead:
        """Returns the classifier as it is now."""
        return LinearHead(self.text_features(), float(self.logit_scale.exp()))


class ContextTrainer(PromptTrainer):
    """Trains a ContextLearner, here in prompts that are the same for all images.

    A method names its `node`. Its options are those below and its own; one that builds another model needs N_CTX,
    CTX_INIT, PREC and CHUNK_ROWS alone.
    """

    own_templates: Mapping[str, str] | None = None  # of a guided method: DATASET.NAME -> where not the data set's own

    @classmethod
    def add_config(cls, cfg: CN) -> None:
        node = cfg.TRAINER[cls.node] = CN()
        node.N_CTX = 16  # number of context vectors; with CTX_INIT its number of tokens
        node.CSC = False  # a context for each class
        node.CTX_INIT = ""  # words to start from; "": random
        node.PREC = "fp16"  # fp32, fp16, amp, bf16
        node.CLASS_TOKEN_POSITION = "end"  # end, middle, front
        node.CHUNK_ROWS = -1  # rows of the text tower at once; 0: all; -1: as many as fit the GPU
        node.SHARD_CLASSES = False  # several ranks: each encodes the prompts of its share of the classes

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        node, errors, key = cfg.TRAINER[cls.node], super().config_errors(cfg), f"TRAINER.{cls.node}"
        if node.N_CTX < 1:
            errors.append(f"{key}.N_CTX is {node.N_CTX}; it must be at least 1.")
        has_position = "CLASS_TOKEN_POSITION" in node
        return errors + (option_errors(cfg, {f"{key}.CLASS_TOKEN_POSITION": POSITIONS}) if has_position else [])

    @property
    def learned_per_class(self) -> dict[str, bool]:
        return {"ctx": self.model.prompt_learner.class_specific}

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> CustomCLIP:
        node = self.cfg.TRAINER[self.node]
        options = {"class_specific": node.CSC, "position": node.CLASS_TOKEN_POSITION, **self.start_options(**changes)}
        learner = ContextLearner(clip_model, classnames, **options)
        return CustomCLIP(clip_model, learner, chunk_rows=node.CHUNK_ROWS, shard_classes=node.SHARD_CLASSES)

    def templates(self) -> tuple[str, ...]:
        """Returns the hand-made prompt that guides the method; none where nothing does."""
        if self.own_templates is None:
            return ()
        return (self.own_templates.get(self.cfg.DATASET.NAME, self.dm.dataset.prompt_template),)

    def start_options(self, **changes) -> dict[str, Any]:
        """Returns how the context starts, by the config or by what a checkpoint decides instead."""
        node = self.cfg.TRAINER[self.node]
        return {"n_ctx": node.N_CTX, "ctx_init": node.CTX_INIT, **changes}

    def guided_step(self, batch: dict, anchors: Tensor, weight: float) -> dict[str, Tensor]:
        """Does a step on the loss and `weight` times the mean of 1 - cos(text feature, anchor), of `anchors` (C, E)."""
        with self.autocast:
            features, labels = self.parse_features(batch)
            text_features = self.model.text_features()
            logits = self.model.classify(features, text_features)
            guide = 1 - (text_features * anchors).sum(dim=-1).mean()
            loss = self.loss(logits, labels) + weight * guide
        self.model_backward_and_update(loss)
        return {"loss": loss.detach(), "guide": guide.detach(), "acc": compute_accuracy(logits, labels)[0]}

    def feature_head(self) -> LinearHead | None:
        return getattr(self.model, "feature_head", lambda: None)()

    def learned_with(self) -> dict[str, tuple[Any, str]]:
        position = self.model.prompt_learner.position
        return {"class_token_position": (position, f"TRAINER.{self.node}.CLASS_TOKEN_POSITION")}

    def before_load(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Takes the number of context vectors from the checkpoint: words may have been counted otherwise for it."""
        super().before_load(name, checkpoint)
        if name != "prompt_learner":
            return  # another part of a method's own
        learner = self.model.prompt_learner
        ctx = checkpoint["state_dict"].get("ctx", learner.ctx)
        n_ctx = ctx.shape[-2] if ctx.dim() > 1 else None
        if n_ctx and n_ctx != learner.n_ctx:
            logger.warning(f"The checkpoint has {n_ctx} context vectors, the config {learner.n_ctx}")
            self.build_learner(n_ctx=n_ctx, ctx_init="")

    def result_fields(self) -> dict[str, Any]:
        learner, node = self.model.prompt_learner, self.cfg.TRAINER[self.node]
        options = {"csc": learner.class_specific, "class_token_position": learner.position}
        options = {name: value for name, value in options.items() if name.upper() in node}
        return {**super().result_fields(), "n_ctx": learner.n_ctx, **options}
