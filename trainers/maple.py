"""MaPLe: learned vectors before the blocks of the text tower, and what linear maps make of them in the image tower.

Paper: MaPLe: Multi-modal Prompt Learning, Khattak, Rasheed, Maaz, Khan, Khan, CVPR 2023,
       https://arxiv.org/abs/2210.03117

    text block i    reads [SOS] t_i,1 ... t_i,M w [CLASS] . [EOT]   t_0 w is "a photo of a" at the start; i < J
    image block i   reads [CLS] patches v_i,1 ... v_i,M             v_i = F_i(t_i), F_i linear, D_t -> D_v
    loss = cross entropy(s cos(g(t, CLASS), f(x, v)), y)            g text tower, f image tower: frozen; w is fixed

t_1, t_2, ... start from N(0, 0.02). F_1, F_2, ... start equal, as copies of one drawn map; F_0 is drawn for itself.

Where the authors' code and this project differ:
- Vectors and couplings are kept in float32 and gradients are scaled with PREC fp16; theirs are not scaled, and F_0 is
  float16.
- More vectors than CTX_INIT has tokens are refused; theirs start at random then.
- Widths and numbers of blocks are the backbone's, not always 512, 768 and 12.
With couplings of zero it is IVLP whose vision prompts are zero.

Run:   TRAINER=MaPLe bash scripts/cocoop/base2new_train.sh caltech101 1
       TRAINER=MaPLe bash scripts/cocoop/base2new_test.sh caltech101 1
Cost:  CoOp's text tower (trainers/deep_prompts.py), and the image tower forward and backward in every step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY

from .deep_prompts import DeepLearner, DeepPromptTrainer, draw_prompts


class MultiModalPromptLearner(DeepLearner):
    """The t_i, and the couplings F_i to the image tower. Its tensors have the names of the authors' checkpoints.

    Args:
        clip_model: Gives the token embedding and the widths.
        classnames: C names; underscores are read as spaces.
        n_ctx: M, the number of learned vectors.
        ctx_init: Words of at least M tokens; "": drawn from N(0, 0.02).
        depth: J, the blocks of both towers that have vectors, at least 1.
    """

    def __init__(
        self, clip_model: TwoTowers, classnames: list[str], *, n_ctx: int = 2, ctx_init: str = "", depth: int = 9
    ):
        super().__init__(clip_model, classnames, n_ctx=n_ctx, ctx_init=ctx_init)
        text_dim, vision_dim = self.ctx.shape[-1], clip_model.visual.transformer.width
        self.proj = nn.Linear(text_dim, vision_dim)  # F_0
        self.compound_prompts_text = draw_prompts(depth - 1, n_ctx, text_dim)  # t_1, t_2, ...
        coupling = nn.Linear(text_dim, vision_dim)
        self.compound_prompt_projections = nn.ModuleList(copy.deepcopy(coupling) for _ in range(depth - 1))

    def deep(self) -> Sequence[Tensor]:
        return list(self.compound_prompts_text)

    def vision_prompts(self) -> Sequence[Tensor]:
        couplings = zip(self.compound_prompt_projections, self.compound_prompts_text, strict=True)
        return [self.proj(self.ctx), *(coupling(vectors) for coupling, vectors in couplings)]


@TRAINER_REGISTRY.register()
class MaPLe(DeepPromptTrainer):
    """Multi-modal prompt learning."""

    node = "MAPLE"
    learned_per_class = dict.fromkeys(("ctx", "proj", "compound_prompts_text", "compound_prompt_projections"), False)

    @staticmethod
    def add_config(cfg: CN) -> None:
        node = cfg.TRAINER.MAPLE = CN()
        node.N_CTX = 2  # M, vectors in each tower
        node.CTX_INIT = "a photo of a"  # words before the class name, the first M of them learned; "": M random vectors
        node.PREC = "fp16"  # fp32, fp16, amp, bf16
        node.PROMPT_DEPTH = 9  # J, blocks of each tower that have vectors; 1: in the inputs alone
        node.CHUNK_ROWS = -1  # rows of the text tower at once; 0: all; -1: as many as fit the GPU
        node.SHARD_CLASSES = False  # several ranks: each encodes the prompts of its share of the classes
        node.CHECKPOINT_ACTIVATIONS = False  # compute those of the image tower again in the backward pass: less memory

    def learner(self, clip_model: TwoTowers, classnames: list[str]) -> MultiModalPromptLearner:
        node = self.cfg.TRAINER.MAPLE
        options = {"n_ctx": node.N_CTX, "ctx_init": node.CTX_INIT, "depth": node.PROMPT_DEPTH}
        return MultiModalPromptLearner(clip_model, classnames, **options)
