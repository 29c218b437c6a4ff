"""Prompts inside the towers: learned vectors before the blocks, and what the methods that learn them share.

    text block i    reads [SOS] t_i,1 ... t_i,M w [CLASS] . [EOT]    i < J_t; w the words of CTX_INIT behind the first M
    image block i   reads [CLS] patches v_i,1 ... v_i,K              i < J_v; v has no position

t_0, v_0 stand in the inputs. t_i, v_i replace what the block before has made of these positions. From block J on they
keep it. All else is CLIP's own, frozen: the towers' blocks are run as they are, none is copied.

Cost: the text tower as CoOp's, exactly: [SOS], the vectors of every block and w do not depend on the class, so they are
computed once (clip/prompts.py). Gradients of the v pass through the image tower in every step, and no feature of an
image can be kept; without v both stay as in CoOp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine.features.head import LinearHead

from .backbone import require_open, require_vit
from .base import PromptTrainer
from .context import ContextLearner, CustomCLIP


def draw_prompts(n_blocks: int, n_vectors: int, width: int) -> nn.ParameterList:
    """Draws vectors for some blocks from N(0, 0.02): (n_vectors, width) float32 each."""
    return nn.ParameterList(torch.empty(n_vectors, width).normal_(std=0.02) for _ in range(n_blocks))


def published_name(name: str) -> str:
    """Returns how MaPLe's authors call a learned tensor in a checkpoint of the whole model: in towers, by its block."""
    part, _, block = name.partition(".")
    if part == "text":
        return f"text_encoder.transformer.resblocks.{int(block) + 1}.VPT_shallow"
    if part == "vision":
        return f"image_encoder.transformer.resblocks.{block}.VPT_shallow" if block != "0" else "image_encoder.VPT"
    return f"prompt_learner.{name}"


class DeepLearner(ContextLearner):
    """The context t_0 of deep prompts: the first M tokens of words are learned, the others stay.

    A method adds its vectors of the blocks, and what they become: `deep` and `vision_prompts`.

    Args:
        clip_model: Gives the token embedding and the widths.
        classnames: C names; underscores are read as spaces.
        n_ctx: M, the number of learned vectors.
        ctx_init: Words of at least M tokens; "": drawn from N(0, 0.02).

    Raises:
        ValueError: If there are fewer words than vectors.
    """

    def __init__(self, clip_model: TwoTowers, classnames: list[str], *, n_ctx: int, ctx_init: str = ""):
        n_words = len(clip_model.tokenizer.encode(ctx_init.replace("_", " "))) if ctx_init else n_ctx
        if n_words < n_ctx:
            raise ValueError(
                f"There are {n_ctx} context vectors, but CTX_INIT {ctx_init!r} has {n_words} tokens. Lower their "
                "number, or set CTX_INIT to '' for a random start."
            )
        super().__init__(clip_model, classnames, n_ctx=n_words, ctx_init=ctx_init)
        start = self.ctx.detach()
        self.ctx, self.n_ctx = nn.Parameter(start[:n_ctx].clone()), n_ctx  # float32
        self.register_buffer("words", start[n_ctx:].clone(), persistent=False)  # CLIP's own

    def context(self) -> Tensor:
        """Returns what stands before the class name: (M + number of fixed words, D) float32."""
        return torch.cat([self.ctx, self.words])

    def vision_prompts(self) -> Sequence[Tensor]:
        """Returns the (K, D_v) vectors of image blocks 0, 1, ...; none where the image tower has no prompts."""
        raise NotImplementedError


class IndependentLearner(DeepLearner):
    """Vectors of their own for every block of both towers.

    Args:
        clip_model, classnames, n_ctx, ctx_init: Of the text, see DeepLearner.
        depth: J_t, the blocks of the text tower that have vectors, at least 1.
        n_vision, vision_depth: K and J_v of the image tower; 0: none.
    """

    def __init__(
        self,
        clip_model: TwoTowers,
        classnames: list[str],
        *,
        n_ctx: int,
        ctx_init: str = "",
        depth: int = 1,
        n_vision: int = 0,
        vision_depth: int = 0,
    ):
        super().__init__(clip_model, classnames, n_ctx=n_ctx, ctx_init=ctx_init)
        self.text = draw_prompts(depth - 1, n_ctx, self.ctx.shape[-1])
        self.vision = draw_prompts(vision_depth, n_vision, clip_model.visual.transformer.width if vision_depth else 0)

    def deep(self) -> Sequence[Tensor]:
        return list(self.text)

    def vision_prompts(self) -> Sequence[Tensor]:
        return list(self.vision)


class DeepPromptedCLIP(CustomCLIP):
    """CLIP with prompts in both towers. With none in the image tower, it is a CustomCLIP."""

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images (B, 3, H, W), normalised with CLIP's mean and std: (B, C) logits."""
        return self.classify(self.image_features(images))

    def image_features(self, images: Tensor) -> Tensor:
        """Returns the features (B, E) of images, float32, not normalised."""
        return self.image_encoder(images, self.prompt_learner.vision_prompts()).float()


class DeepPromptTrainer(PromptTrainer):
    """Trains prompts inside the towers. A method names its `node`, and declares its options; it may define `learner`.

    Options that begin with N_CTX count vectors, those that begin with PROMPT_DEPTH the blocks that have some; what ends
    in VISION is of the image tower, in TEXT of the text tower, others of both.
    """

    learner_class = IndependentLearner
    may_leave_images = False  # True: 0 vectors in 0 blocks of the image tower leave it as it is

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        node, errors, group = cfg.TRAINER[cls.node], super().config_errors(cfg), f"TRAINER.{cls.node}"
        counts = {key: node[key] for key in node if key.startswith(("N_CTX", "PROMPT_DEPTH"))}
        of_images = {key: n for key, n in counts.items() if key.endswith("VISION")} if cls.may_leave_images else {}
        for key, n in counts.items():
            if n < 1 and (any(of_images.values()) or key not in of_images):
                least = "1, or all that end in VISION 0" if key in of_images else "1"
                errors.append(f"{group}.{key} is {n}; it must be at least {least}.")
        return errors

    def learner(self, clip_model: TwoTowers, classnames: list[str]) -> DeepLearner:
        """Builds what is trained, here vectors of their own for each tower."""
        node = self.cfg.TRAINER[self.node]
        text = {"n_ctx": node.N_CTX_TEXT, "ctx_init": node.CTX_INIT, "depth": node.PROMPT_DEPTH_TEXT}
        vision = {"n_vision": node.get("N_CTX_VISION", 0), "vision_depth": node.get("PROMPT_DEPTH_VISION", 0)}
        return self.learner_class(clip_model, classnames, **text, **vision)

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> nn.Module:
        self.check_towers(clip_model)
        node, learner = self.cfg.TRAINER[self.node], self.learner(clip_model, classnames)
        kind = DeepPromptedCLIP if learner.vision_prompts() else CustomCLIP
        return kind(clip_model, learner, chunk_rows=node.CHUNK_ROWS, shard_classes=node.SHARD_CLASSES)

    def check_towers(self, clip_model: TwoTowers) -> None:
        """Raises ValueError if a tower takes no prompts, or has fewer blocks than are to have some."""
        require_open(clip_model)
        node, visual, n_text = self.cfg.TRAINER[self.node], clip_model.visual, clip_model.transformer.layers
        depths = {key: node[key] for key in node if key.startswith("PROMPT_DEPTH") and node[key]}
        if any(not key.endswith("TEXT") for key in depths):
            does = "puts vectors beside the patches of a ViT in OpenAI's layout"
            require_vit(visual, self.cfg, does, "use DeepLanguage, which leaves the image tower alone")
        for key, depth in depths.items():
            n_vision = n_text if key.endswith("TEXT") else visual.transformer.layers
            n_blocks = min(n_vision, n_vision if key.endswith("VISION") else n_text)
            if depth > n_blocks:
                raise ValueError(
                    f"TRAINER.{self.node}.{key} is {depth}, but {self.cfg.MODEL.BACKBONE.NAME} has {n_blocks} blocks "
                    f"that could have vectors. Set it to at most {n_blocks}."
                )

    def feature_head(self) -> LinearHead | None:
        return self.model.feature_head() if self.uses_features else None

    def fixed_words(self) -> str:
        """Returns CTX_INIT where some of its words stay fixed, so that what was learned belongs to it; else ""."""
        return self.cfg.TRAINER[self.node].CTX_INIT if len(self.model.prompt_learner.words) else ""

    def published_names(self) -> dict[str, str]:
        return {name: published_name(name) for name, _ in self.model.prompt_learner.named_parameters()}

    def learned_with(self) -> dict[str, tuple[Any, str]]:
        key = f"TRAINER.{self.node}.CTX_INIT ('' where all of its words are learned)"
        return {**super().learned_with(), "fixed_words": (self.fixed_words(), key)}

    def result_fields(self) -> dict[str, Any]:
        return {**super().result_fields(), "n_ctx": self.model.prompt_learner.n_ctx}
