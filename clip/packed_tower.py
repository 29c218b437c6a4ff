"""CLIP's text tower on packed rows: prompts of several lengths side by side, without padding.

A matrix x (B, R, D) holds blocks, one after another: a block is n prompts of the same length s, row after row. Layer
norms and linear layers run on the whole matrix; attention views each block as (B, H, n, s, d). Every row may also see a
past, keys and values of places in front of it.

B contexts, R rows, D width, H heads, d = D / H, p places of a past.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .model import ResidualAttentionBlock, Transformer


class Block(NamedTuple):
    """n prompts of `length` rows each; `past` (layers, 2, 1, H, n, p, d): keys and values in front of each."""

    n: int
    length: int
    past: Tensor | None = None


def run_tower(
    transformer: Transformer,
    x: Tensor,
    blocks: list[Block],
    *,
    n_common: int = 0,
    past: Tensor | None = None,
    record: list | None = None,
) -> Tensor:
    """Runs the causal tower and returns the state of each prompt's last row.

    Args:
        transformer: The text tower's blocks.
        x: (B, R, D), `n_common` rows that all prompts continue, then the blocks' rows.
        blocks: How the remaining rows are divided.
        n_common: Number of leading rows that stand in front of every prompt.
        past: (layers, 2, 1, H, p, d), keys and values in front of all rows.
        record: A list that receives, layer by layer, the keys and values [(k, v), ...] of every block.

    Returns:
        (B, N, D), N prompts in the order of the blocks.
    """
    last_rows = _last_rows(blocks, n_common, x.device)
    for i, layer in enumerate(transformer.resblocks):
        is_last = i + 1 == len(transformer.resblocks)
        q, k, v = _project(layer, layer.ln_1(x), last_rows if is_last else None)
        q = q * (q.shape[-1] // layer.attn.num_heads) ** -0.5
        mixed, own = [], []
        front = None if past is None else tuple(past[i])  # (1, H, p, d) each
        n_heads, row, prompt = layer.attn.num_heads, n_common, 0
        if n_common:
            k_common, v_common = (_heads(t[:, :n_common], 1, n_heads) for t in (k, v))
            if not is_last:
                mixed.append(_attend(_heads(q[:, :n_common], 1, n_heads), k_common, v_common, front))
            front = tuple(
                _join(f, t[:, :, 0]) for f, t in zip(front or (None, None), (k_common, v_common), strict=True)
            )
        for block in blocks:
            rows = slice(row, row + block.n * block.length)
            k_own, v_own = (_heads(t[:, rows], block.n, n_heads) for t in (k, v))
            own.append((k_own, v_own))
            if block.past is not None:
                k_own, v_own = (_join(f, t) for f, t in zip(block.past[i], (k_own, v_own), strict=True))
            asking = slice(prompt, prompt + block.n) if is_last else rows
            mixed.append(_attend(_heads(q[:, asking], block.n, n_heads), k_own, v_own, front))
            row, prompt = rows.stop, prompt + block.n
        if record is not None:
            record.append(own)
        x = (x[:, last_rows] if is_last else x) + layer.attn.out_proj(torch.cat(mixed, dim=1))
        x = x + layer.mlp(layer.ln_2(x))
    return x


def _last_rows(blocks: list[Block], start: int, device: torch.device) -> Tensor:
    """(N,) the row of each prompt's end token."""
    rows = []
    for n, length, _ in blocks:
        rows.append(torch.arange(1, n + 1, device=device) * length + (start - 1))
        start += n * length
    return torch.cat(rows)


def _project(layer: ResidualAttentionBlock, x: Tensor, asking: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the rows `asking` (all for None), keys and values of all rows."""
    weight, bias, width = layer.attn.in_proj_weight, layer.attn.in_proj_bias, x.shape[-1]
    if asking is None:
        return F.linear(x, weight, bias).chunk(3, dim=-1)
    q = F.linear(x[:, asking], weight[:width], bias[:width])
    return q, *F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)


def _attend(q: Tensor, k: Tensor, v: Tensor, front: tuple[Tensor, Tensor] | None) -> Tensor:
    """Causal attention of the last rows of n prompts to their own rows and to a front that all prompts share.

    Args:
        q: (B, H, n, s_q, d), the scaled queries of each prompt's last s_q rows.
        k, v: (B, H, n, s, d).
        front: Keys and values (B or 1, H, p, d).

    Returns:
        (B, n * s_q, D)
    """
    s_q, s = q.shape[3], k.shape[3]
    scores = q @ k.mT  # (B, H, n, s_q, s)
    if s_q > 1:
        later = torch.ones(s_q, s, dtype=torch.bool, device=q.device).triu(1 + s - s_q)
        scores = scores.masked_fill(later, -torch.inf)
    if front is None:
        return _rows(scores.softmax(dim=-1) @ v)
    k_front, v_front = front
    q_flat = q.flatten(2, 3)  # (B, H, n, s_q, d) -> (B, H, n * s_q, d)
    scores_front = (q_flat @ k_front.mT).unflatten(2, q.shape[2:4])  # (B, H, n, s_q, p)
    weights = torch.cat([scores_front, scores], dim=-1).softmax(dim=-1)
    p = k_front.shape[2]
    mixed_front = weights[..., :p].flatten(2, 3) @ v_front  # (B, H, n * s_q, d)
    return _rows(weights[..., p:] @ v + mixed_front.unflatten(2, q.shape[2:4]))


def _join(front: Tensor | None, own: Tensor) -> Tensor:
    """Puts keys or values (1, ..., p, d) in front of (B, ..., s, d)."""
    return own if front is None else torch.cat([front.expand(len(own), *front.shape[1:]).to(own.dtype), own], dim=-2)


def _heads(x: Tensor, n: int, n_heads: int) -> Tensor:
    return x.unflatten(2, (n_heads, -1)).unflatten(1, (n, -1)).permute(0, 3, 1, 2, 4)  # (B, n s, D) -> (B, H, n, s, d)


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)  # (B, H, n, s, d) -> (B, n s, D)
