"""CLIP's causal text tower on packed prompts: the shared prefix once, the classes' suffixes behind it, no padding.

One matrix x (B, R, D) holds every position that has to be computed. P rows of prefix come first, then the suffixes.
Prompts whose suffixes are equally long form a group, and a group is one contiguous stretch of rows:

    row        0 ... P-1        P ...                                                                 ... R-1
    holds      v_1 ... v_M      cat . [EOT]    dog . [EOT]    wine bottle . [EOT]    acoustic guitar . [EOT]
    part       prefix           group of n = 2, s = 3         group of n = 2, s = 4

Layer norms and linear layers run on the whole matrix. So does attention where rows are few: a mask says which keys a
query sees. Where they are many, most of that would be masked, and where words of each class are cached, keys stand in
no row. Then the suffixes of a group are viewed as (B, H, n, s, d).

    which keys a query sees:
    query      [SOS], cached    prefix    cached words of its class    own suffix
    prefix     all              causal    none                         none
    suffix     all              all       all                          causal

In the last block only the end tokens are queries: nothing else is read. Deep prompts put other vectors into the first
rows of the prefix before a block; then the block before it computes no output for these rows. Where each prompt has
vectors of its own there, what follows them is no longer the same in two prompts: from this block on the rest of the
prefix stands in every suffix, and no prefix is left.

    row        0 ...                                                     ... R' - 1
    holds      own_1 ... own_K v_K+1 ... v_M cat . [EOT]    own_1 ... own_K ...
    part       group of n = 2, s = M + 3                                group of n = 2, s = M + 4

B contexts, R rows, D width, H heads, d = D / H, n prompts in a group, s rows of a suffix, p positions in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import ResidualAttentionBlock, Transformer

KeysValues = tuple[Tensor, Tensor]
# Rows that attend at once. A step beside one by groups, two CPU cores in float32, as they are (AMX) and held to AVX2:
# 81 rows are 1.7 and 1.5 times as fast, 363 rows 1.2 and 1.1, 462 rows 1.15 and 1.03, 579 rows 1.05 and 0.93.
AT_ONCE = 480


class Group(NamedTuple):
    """n prompts whose suffixes have `length` rows each.

    `cached` (layers, 2, 1, H, n, p, d): keys and values of the positions between the prefix and each suffix.
    """

    n: int
    length: int
    cached: Tensor | None = None


def run_tower(
    transformer: Transformer,
    x: Tensor,
    groups: list[Group],
    *,
    n_prefix: int = 0,
    cached: Tensor | None = None,
    deep: Sequence[Tensor | None] = (),
    record: list[list[KeysValues]] | None = None,
) -> Tensor:
    """Runs the causal tower and returns the state of each prompt's last position.

    Args:
        transformer: The text tower's blocks.
        x: (B, R, D), the rows of the prefix, then the suffixes of each group.
        groups: How the rows of the suffixes are divided.
        n_prefix: P, the number of rows that stand in front of every suffix.
        cached: (layers, 2, 1, H, p, d), keys and values in front of all rows.
        deep: Deep prompts, (1 or B, K, D) each: before block 1, 2, ... they replace the first K rows of the prefix.
            None replaces nothing. The last may be each prompt's own, (1 or B, N, K, D).
        record: A list that receives, block by block, the keys and values of the suffixes of every group.

    Returns:
        (B, N, D), N prompts in the order of the groups.
    """
    n_blocks = len(transformer.resblocks)
    assert len(deep) < n_blocks, f"{len(deep)} deep prompts for {n_blocks} blocks, of which the first reads x"
    n_front = 0 if cached is None else cached.shape[-2]
    assert record is None or not deep, "the rows behind deep prompts are not recorded"
    seen = None if record is not None else _seen(x, groups, n_prefix, n_front)
    for i, layer in enumerate(transformer.resblocks):
        is_last = i + 1 == n_blocks
        vectors = deep[i] if i < len(deep) else None
        n_replaced = 0 if vectors is None else vectors.shape[-2]
        assert n_replaced <= n_prefix, f"a deep prompt of {n_replaced} vectors for a prefix of {n_prefix} rows"
        queries = slice(n_replaced, None) if n_replaced else None  # None: all rows
        queries = _end_rows(groups, n_prefix, x.device) if is_last else queries
        n_prefix_queries = 0 if is_last else n_prefix - n_replaced

        q, k, v = layer.attn.project(layer.ln_1(x), queries)
        front = None if cached is None else tuple(cached[i])
        if seen is not None:
            attended = _attend_at_once(layer, q, k, v, front, seen if queries is None else seen[queries])
        else:
            of_prefix = n_prefix_queries, n_prefix
            attended, keys_values = _attend_by_groups(layer, q, k, v, groups, i, front, of_prefix)
            if record is not None:
                record.append(keys_values)

        x = (x if queries is None else x[:, queries]) + layer.attn.out_proj(attended)
        x = x + layer.mlp(layer.ln_2(x))
        if n_replaced:
            x, groups, n_prefix = _put_in_front(vectors.type(x.dtype), x, groups, n_prefix_queries)
            seen = _seen(x, groups, n_prefix, n_front) if vectors.dim() == 4 else seen
    return x


def _put_in_front(vectors: Tensor, x: Tensor, groups: list[Group], n_rest: int) -> tuple[Tensor, list[Group], int]:
    """Puts deep prompts in front of the rows behind them, of which n_rest are prefix; returns x, groups and P anew."""
    if vectors.dim() == 3:  # of all prompts
        return torch.cat([vectors.expand(len(x), -1, -1), x], dim=1), groups, vectors.shape[1] + n_rest
    rest, *suffixes = x.split([n_rest, *(group.n * group.length for group in groups)], dim=1)
    rows, longer = [], []
    for group, own, suffix in zip(groups, vectors.split([group.n for group in groups], dim=1), suffixes, strict=True):
        assert group.cached is None, "words between the prefix and a suffix cannot follow vectors of each prompt"
        front = own.expand(len(x), -1, -1, -1), rest[:, None].expand(-1, group.n, -1, -1)
        suffix = suffix.unflatten(1, (group.n, group.length))  # (B, n s, D) -> (B, n, s, D)
        rows.append(torch.cat([*front, suffix], dim=2).flatten(1, 2))
        longer.append(Group(group.n, own.shape[2] + n_rest + group.length))
    return torch.cat(rows, dim=1), longer, 0


def _end_rows(groups: list[Group], start: int, device: torch.device) -> Tensor:
    """(N,) the row of each prompt's end token."""
    rows = []
    for n, length, _ in groups:
        rows.append(torch.arange(1, n + 1, device=device) * length + (start - 1))
        start += n * length
    return torch.cat(rows)


def _seen(x: Tensor, groups: list[Group], n_prefix: int, n_front: int) -> Tensor | None:
    """(R, p + R), whether a row sees a position: all p in front; of the rows the prefix and its prompt's, up to itself.

    None where rows are too many, or words are cached that only their class sees. Also in an export: onnxruntime 1.32
    ends with a segmentation fault where it reads this attention in float16.
    """
    is_export = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    if is_export or x.shape[1] > AT_ONCE or any(group.cached is not None for group in groups):
        return None
    row = torch.arange(x.shape[1], device=x.device)
    prompt = torch.bucketize(row, _end_rows(groups, n_prefix, x.device))  # (R,) of each row; a prefix row's is not used
    seen = ((prompt == prompt[:, None]) | (row < n_prefix)).tril()
    return F.pad(seen, (n_front, 0), value=True)


def _attend_at_once(
    layer: ResidualAttentionBlock, q: Tensor, k: Tensor, v: Tensor, front: KeysValues | None, seen: Tensor
) -> Tensor:
    """The output (B, number of queries, D)."""
    q, k, v = (t.unflatten(2, (layer.attn.num_heads, -1)).transpose(1, 2) for t in (q, k, v))  # -> (B, H, R, d)
    output = F.scaled_dot_product_attention(q, *_join(front, (k, v)), attn_mask=seen)
    return output.transpose(1, 2).flatten(2)


def _attend_by_groups(
    layer: ResidualAttentionBlock,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    groups: list[Group],
    i: int,
    front: KeysValues | None,
    of_prefix: tuple[int, int],
) -> tuple[Tensor, list[KeysValues]]:
    """The output (B, number of queries, D) in block i, and each group's own keys and values.

    `of_prefix` is how many queries, and how many keys, are the prefix's. The other queries are all rows, or the last of
    each prompt.
    """
    n_queries, n_keys = of_prefix
    n_rows = [group.n * group.length for group in groups]
    n_own = n_rows if q.shape[1] - n_queries == sum(n_rows) else [group.n for group in groups]
    q = q * (q.shape[-1] // layer.attn.num_heads) ** -0.5
    prefix, *suffixes = zip(
        q.split([n_queries, *n_own], 1), k.split([n_keys, *n_rows], 1), v.split([n_keys, *n_rows], 1), strict=True
    )
    outputs, keys_values = [], []
    if n_keys:
        output, front = _attend_prefix(layer, *prefix, front)
        outputs.append(output)
    for group, parts in zip(groups, suffixes, strict=True):
        q_own, *own = (_heads(t, group.n, layer) for t in parts)
        keys_values.append(tuple(own))
        words = None if group.cached is None else tuple(group.cached[i])
        outputs.append(_attend(q_own, *_join(words, keys_values[-1]), front))
    return torch.cat(outputs, dim=1), keys_values


def _attend_prefix(
    layer: ResidualAttentionBlock, q: Tensor, k: Tensor, v: Tensor, front: KeysValues | None
) -> tuple[Tensor, KeysValues]:
    """The output of the prefix's last rows, as many as there are queries; and what all suffixes see."""
    q, k, v = (_heads(t, 1, layer) for t in (q, k, v))
    return _attend(q, k, v, front), _join(front, (k[:, :, 0], v[:, :, 0]))


def _attend(q: Tensor, k: Tensor, v: Tensor, front: KeysValues | None) -> Tensor:
    """Causal attention of the last positions of n prompts to their own positions and to a front that all share.

    Args:
        q: (B, H, n, s_q, d), the scaled queries of each prompt's last s_q positions.
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


def _join(front: KeysValues | None, own: KeysValues) -> KeysValues:
    """Puts keys and values (1, ..., p, d) in front of (B, ..., s, d)."""
    if front is None:
        return own
    k, v = (torch.cat([f.expand(o.shape[0], *f.shape[1:]).to(o.dtype), o], -2) for f, o in zip(front, own, strict=True))
    return k, v


def _heads(x: Tensor, n: int, layer: ResidualAttentionBlock) -> Tensor:
    x = x.unflatten(2, (layer.attn.num_heads, -1)).unflatten(1, (n, -1))  # (B, n s, D) -> (B, n, s, H, d)
    return x.permute(0, 3, 1, 2, 4)  # -> (B, H, n, s, d)


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)  # (B, H, n, s, d) -> (B, n s, D)
