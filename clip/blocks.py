"""The blocks of CLIP's transformers, with OpenAI's names and state-dict keys.

N sequences, L positions, W width.
"""

from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_DIM = 64  # width of one attention head in every OpenAI CLIP, in both towers


class Transformer(nn.Module):
    """Pre-norm blocks on (L, N, W); with a `context_length` limited to that many positions, and causal by default.

    Args:
        width: W.
        layers: number of blocks.
        heads: attention heads of a block.
        context_length: the most positions; None: any number.
        causal: whether a position sees only those before it and itself; None: with a context length.
        **block: what differs from OpenAI's blocks, see ResidualAttentionBlock.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        context_length: int | None = None,
        causal: bool | None = None,
        **block,
    ):
        super().__init__()
        self.width = width
        self.layers = layers
        self.context_length = context_length
        self.causal = context_length is not None if causal is None else causal
        blocks = [ResidualAttentionBlock(width, heads, self.causal, **block) for _ in range(layers)]
        self.resblocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        if self.context_length is not None:
            check_length(x.shape[0], self.context_length)
        return self.resblocks(x)


def check_length(n_tokens: int, context_length: int) -> None:
    if n_tokens > context_length:
        raise ValueError(
            f"The sequence is {n_tokens} tokens long; the text tower takes at most {context_length}. "
            "Shorten the text or use fewer context vectors."
        )


class ResidualAttentionBlock(nn.Module):
    """Attention and a two-layer network, each behind a layer norm and added to what came in.

    Args:
        d_model: W.
        n_head: attention heads.
        causal: whether a position sees only those before it and itself.
        activation: a name in ACTIVATIONS; OpenAI's is "quick_gelu".
        mlp_width: hidden width of the network; None: 4 W.
        eps: of the layer norms.
    """

    def __init__(
        self,
        d_model: int,
        n_head: int,
        causal: bool = False,
        *,
        activation: str = "quick_gelu",
        mlp_width: int | None = None,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.causal = causal
        self.attn = MultiheadAttention(d_model, n_head)
        self.ln_1 = LayerNorm(d_model, eps=eps)
        mlp_width = mlp_width or d_model * 4
        parts = [
            ("c_fc", nn.Linear(d_model, mlp_width)),
            ("gelu", ACTIVATIONS[activation]()),
            ("c_proj", nn.Linear(mlp_width, d_model)),
        ]
        self.mlp = nn.Sequential(OrderedDict(parts))
        self.ln_2 = LayerNorm(d_model, eps=eps)

    def attention(self, x: Tensor) -> Tensor:
        # The mask is as long as the sequence, not as the context: True hides a later position.
        n_tokens = x.shape[0]
        mask = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=x.device).triu(1) if self.causal else None
        return self.attn(x, x, x, need_weights=False, attn_mask=mask, is_causal=self.causal)[0]

    def extra_repr(self) -> str:
        return differing_heads(self.attn.embed_dim, self.attn.num_heads)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


def differing_heads(width: int, heads: int) -> str:
    """What a repr says of heads that are not as wide as OpenAI's: the cache of features knows a tower by it."""
    return "" if width == heads * HEAD_DIM else f"heads={heads}"


class MultiheadAttention(nn.MultiheadAttention):
    """torch's; the packed text tower, which attends in its own way, takes its two projections alone."""

    def project(self, x: Tensor, queries: Tensor | slice | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of some of the rows of x (B, R, W) (None: of all), keys and values of all: (B, R, W), not scaled."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, x.shape[-1]
        if queries is None:
            return F.linear(x, weight, bias).chunk(3, dim=-1)
        q = F.linear(x[:, queries], weight[:width], bias[:width])
        return q, *F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)


class LayerNorm(nn.LayerNorm):
    """Computes in float32 at least, and returns the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.promote_types(x.dtype, torch.float32))).type(x.dtype)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU, "gelu_tanh": partial(nn.GELU, approximate="tanh")}
