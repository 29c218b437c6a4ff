"""A frozen image tower, prepared once: a copy that gives the same features, but for rounding, with less work.

The attention pool of a ResNet has one query. So has the last block of a vision transformer, of which the class token
alone is read. Then no key and no value has to be computed:

    q . (K x_j + k) = (K^T q) . x_j + const.        the softmax over j does not see the constant
    sum_j p_j (V x_j + v) = V (sum_j p_j x_j) + v

Batch norms go into the convolutions before them, see norms.py.

x_j state of position j; q query; K, k, V, v projections of keys and values; p attention.
B images, L positions, W width, H heads, d = W / H, D joint width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import MultiheadAttention, ResidualAttentionBlock
from ..model import AttentionPool2d, ModifiedResNet, VisionTransformer
from ..two_towers import ForeignTower, copy_modules
from .norms import fold_norms

KNOWN = (ModifiedResNet, VisionTransformer, ForeignTower)  # not their subclasses, which may compute something else


def prepare(tower: nn.Module) -> nn.Module:
    """Returns a copy of a frozen tower, in eval mode, that gives its features sooner; itself where nothing is gained.

    The tower stays as it is. The copy shares its tensors, but for convolutions that took over a batch norm. What is not
    known to be the same without a doubt, such as the blocks of another library, is computed as before.

    Args:
        tower: From images (B, 3, R, R) to features (B, E).
    """
    if type(tower) not in KNOWN:
        return tower
    prepared = copy_modules(tower)
    n_changes = fold_norms(prepared)
    if type(tower) is ModifiedResNet and type(tower.attnpool) is AttentionPool2d:
        prepared.attnpool, n_changes = OneQueryPool(prepared.attnpool), n_changes + 1
    if type(tower) is VisionTransformer and is_plain(tower.transformer.resblocks[-1]):
        blocks, n_changes = prepared.transformer.resblocks, n_changes + 1
        blocks[-1] = ClassTokenBlock(blocks[-1])
    return prepared if n_changes else tower


class OneQueryPool(nn.Module):
    """The attention pool of a ResNet: (B, W, R / 32, R / 32) -> (B, D)."""

    def __init__(self, pool: AttentionPool2d):
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        pool = self.pool
        x = x.flatten(start_dim=2).transpose(1, 2)  # (B, W, H, H) -> (B, H * H, W)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)  # (B, 1 + H * H, W)
        x = x + pool.positional_embedding.to(x.dtype)
        q, v = pool.q_proj(x[:, 0]), pool.v_proj
        return pool.c_proj(attend(q, x, pool.k_proj.weight, v.weight, v.bias, pool.num_heads))


class ClassTokenBlock(nn.Module):
    """The last block of a vision transformer, of which the class token is read: (L, B, W) -> (1, B, W)."""

    def __init__(self, block: ResidualAttentionBlock):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        attn, normed = self.block.attn, self.block.ln_1(x).transpose(0, 1)  # (B, L, W)
        (q, k, v), (q_bias, _, v_bias) = attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3)
        q = F.linear(normed[:, 0], q, q_bias)
        x = x[0] + attn.out_proj(attend(q, normed, k, v, v_bias, attn.num_heads))
        return (x + self.block.mlp(self.block.ln_2(x)))[None]


def is_plain(block: nn.Module) -> bool:
    """Says whether ClassTokenBlock computes what a block does for its first position."""
    return type(block) is ResidualAttentionBlock and type(block.attn) is MultiheadAttention and not block.causal


def attend(q: Tensor, x: Tensor, k: Tensor, v: Tensor, v_bias: Tensor, heads: int) -> Tensor:
    """Attention of one query (B, W) to states (B, L, W), by the projections (W, W) of these: (B, W)."""
    q, k, v = (tensor.unflatten(dim, (heads, -1)) for tensor, dim in ((q, 1), (k, 0), (v, 0)))
    scores = torch.einsum("bhd,hdw->bhw", q * q.shape[-1] ** -0.5, k) @ x.transpose(1, 2)  # (B, H, L)
    states = scores.softmax(dim=-1) @ x  # (B, H, W)
    # In float64: the rounding errors of many values would average out in their sum, those of this product do not.
    values = torch.einsum("bhw,hdw->bhd", states.double(), v.double()).flatten(start_dim=1)  # (B, W)
    return (values + v_bias.double()).to(x.dtype)
