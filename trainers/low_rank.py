"""CLIP-LoRA: low-rank changes of the projections of queries, keys and values in every block of CLIP's towers.

Paper: Low-Rank Few-Shot Adaptation of Vision-Language Models, Zanella, Ben Ayed, CVPR workshops 2024,
       https://arxiv.org/abs/2405.18541

    q, k, v = W x + scaling B A drop(x)      W CLIP's; A (R, D) from U(-1 / sqrt(D), 1 / sqrt(D)), B (D, R) zeros
    scaling = ALPHA / sqrt(R)                of queries, keys and values each their own A and B
    drop(x): DROPOUT_RATE of the entries of x are 0 and the others larger; only while training
    loss = cross entropy(s f w, y)           with the tuned towers, see trainers/tuned_towers.py

Where the authors' code and this project differ:
- Prompts share the positions before the name, [SOS] among them, and so the entries that are dropped there; theirs are
  drawn for each class. What is drawn for one prompt has the same distribution, but two prompts are not independent.
  With DROPOUT_RATE 0 both compute the same.
- They train 500 K steps with batches of 32, for K images of each class. That is about 16,000 / C epochs for C classes:
  MAX_EPOCH is 160, right for 100 classes. The log says how many steps a run has, and how many theirs would have.
- The rate follows its cosine from epoch to epoch and down to 0; theirs from step to step, and down to 1e-6.

Run:   TRAINER=CLIPLoRA bash scripts/few_shot.sh caltech101 vit_b16 16
Cost:  both towers, forward and backward, in every step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.blocks import MultiheadAttention
from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY
from engine.distributed import rank

from .tuned_towers import TunedTowersTrainer, blocks_of


class LowRank(nn.Module):
    """What is added to a layer from D to D: scaling B A drop(x), with learned A (R, D) and B (D, R), float32."""

    def __init__(self, width: int, *, rank: int, alpha: float, dropout: float):
        super().__init__()
        self.scaling, self.dropout = alpha / math.sqrt(rank), dropout
        self.A = nn.Parameter(torch.empty(rank, width))
        self.B = nn.Parameter(torch.zeros(width, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), in x's dtype."""
        x = F.dropout(x, self.dropout, self.training)
        return self.scaling * F.linear(F.linear(x, self.A.type(x.dtype)), self.B.type(x.dtype))

    def weight(self) -> Tensor:
        """Returns what is added to the layer's weight, (D, D)."""
        return self.scaling * self.B @ self.A


class LowRankAttention(MultiheadAttention):
    """A block's attention with something added to its queries, keys and values; it shares the block's tensors.

    Args:
        attention: That of the block.
        added: Under "q", "k" and "v", from rows (..., W) to what is added (..., W).
    """

    def __init__(self, attention: MultiheadAttention, added: nn.ModuleDict):
        super().__init__(attention.embed_dim, attention.num_heads, device="meta")
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj, self.added = attention.out_proj, added

    def project(self, x: Tensor, queries: Tensor | slice | None = None) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(x, queries)
        rows = x if queries is None else x[:, queries]
        return q + self.added["q"](rows), k + self.added["k"](x), v + self.added["v"](x)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, **_
    ) -> tuple[Tensor, None]:
        """Self-attention, as the blocks call it: (L, N, W) -> (L, N, W)."""
        assert query is key is value, "the queries are not those of the keys' rows"
        heads = [t.unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0, 3) for t in self.project(query)]
        x = F.scaled_dot_product_attention(*heads, is_causal=is_causal)  # (N, H, L, W / H)
        return (self.out_proj(x.permute(2, 0, 1, 3).flatten(2)),)  # torch's has the weights besides


@TRAINER_REGISTRY.register()
class CLIPLoRA(TunedTowersTrainer):
    """Low-rank adaptation of CLIP's attention."""

    node, steps_per_shot = "CLIPLORA", 500
    changes_no_result = ("CHECKPOINT_ACTIVATIONS",)  # in another number of chunks other entries are dropped
    fixed_by_checkpoint = ("ENCODER", "R", "ALPHA")

    @classmethod
    def add_config(cls, cfg: CN) -> None:
        super().add_config(cfg)
        node = cfg.TRAINER[cls.node]
        node.CHUNK_ROWS = 16384  # rows of the text tower at once, bounds memory; 0: all. It changes what is dropped
        node.R = 2  # rank of a change
        node.ALPHA = 1.0  # a change is scaled by ALPHA / sqrt(R)
        node.DROPOUT_RATE = 0.25  # share of a change's input that is dropped while training, from 0 to below 1

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        node, errors, group = cfg.TRAINER[cls.node], super().config_errors(cfg), f"TRAINER.{cls.node}"
        if node.R < 1:
            errors.append(f"{group}.R is {node.R}; it must be at least 1.")
        if not node.ALPHA > 0:
            errors.append(f"{group}.ALPHA is {node.ALPHA}; it must be above 0.")
        if not 0 <= node.DROPOUT_RATE < 1:
            errors.append(f"{group}.DROPOUT_RATE is {node.DROPOUT_RATE}; it must be 0 or more, and below 1.")
        return errors

    def tune(self, clip_model: TwoTowers, tower: str) -> nn.ModuleList:
        node, learned = self.cfg.TRAINER[self.node], nn.ModuleList()
        options = {"rank": node.R, "alpha": node.ALPHA, "dropout": node.DROPOUT_RATE}
        for block in blocks_of(clip_model, tower):
            added = nn.ModuleDict({name: LowRank(block.attn.embed_dim, **options) for name in ("q", "k", "v")})
            block.attn = LowRankAttention(block.attn, added.to(block.attn.out_proj.weight.device))
            learned.append(added)
        return learned

    @torch.no_grad()
    def merge_into(self, clip_model: TwoTowers) -> None:
        for tower, learned in self.model.prompt_learner.named_children():
            for block, added in zip(blocks_of(clip_model, tower), learned, strict=True):
                change = torch.cat([added[name].weight() for name in ("q", "k", "v")])
                block.attn.in_proj_weight += change.to(block.attn.in_proj_weight.device)

    def before_train(self) -> None:
        super().before_train()
        if rank() and self.point is None:
            torch.manual_seed(self.cfg.SEED + rank())  # else every rank would drop what the first one does
