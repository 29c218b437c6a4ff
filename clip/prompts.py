"""The exact fast text encoder: of prompts that share a context, compute only what differs.

The text tower is causal and a prompt's feature is read at its end token. Hence, exactly:

    1. positions after the end token are not computed;
    2. the prefix, the positions that are the same in all prompts (a context that all classes share), is computed once
       per context;
    3. positions before the first learned vector ([SOS], a name in front) depend on nothing that is learned: their keys
       and values in every layer are computed once, when the encoder is built;
    4. in the last layer only the end token is a query.

Where the tower's own weights are learned, nothing of it is a constant: 3. does not hold, [SOS] is a row of the prefix.

Cost: rows of the tower for C classes, M context vectors, s_c own tokens of a class (name, full stop, end; about 4),
against 77 C without this:

    one context, end      M + sum(s_c)              one context, middle   M/2 + sum(M/2 + s_c)
    a context per class   sum(M + s_c)              name in front         sum(M + 2)
    B contexts (CoCoOp)   B (M + sum(s_c))          classes' own vectors from block b on (TCP): there sum(M + s_c)
    tuned tower, W words before the name, no context                          1 + W + sum(s_c)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .packed_tower import Group, run_tower
from .prompt_layout import PromptLayout
from .two_towers import TwoTowers, read_out


def shares_positions(clip_model: TwoTowers) -> bool:
    """Whether prompts share what stands in front: the tower is causal, begins with [SOS] and is read at the end."""
    return clip_model.transformer.causal and clip_model.pooling == "end" and clip_model.tokenizer.n_start == 1


class PromptEncoder(nn.Module):
    """Context vectors to the text features of all classes, equal to encoding all L tokens of every prompt.

    Args:
        clip_model: The model whose text tower is used, see `shares_positions`. Its weights are shared, not copied; its
            dtype must be final.
        layout: The prompts.
        class_specific: Whether every class has context vectors of its own.
        class_deep: Whether every class has deep prompts of its own.
        tuned: Whether the tower's own weights are learned.
        chunk_rows: Rows (positions of prompts) encoded at once; 0: all. More are encoded in chunks of contexts and
            classes. To bound memory, the activations of a chunk are computed again in the backward pass, except those
            of the last chunk, with which the backward pass begins.
    """

    def __init__(
        self,
        clip_model: TwoTowers,
        layout: PromptLayout,
        *,
        class_specific: bool = False,
        class_deep: bool = False,
        tuned: bool = False,
        chunk_rows: int = 0,
    ):
        super().__init__()
        assert not (tuned and class_deep), "deep prompts stand behind a cached [SOS]"
        assert chunk_rows >= 0, f"chunk_rows is {chunk_rows}: build_prompt_encoder chooses"
        assert shares_positions(clip_model), "the prompts of this tower share nothing: use PlainPromptEncoder"
        self.transformer = clip_model.transformer
        self.ln_final, self.text_projection = clip_model.ln_final, clip_model.text_projection
        self.text_projection_bias = getattr(clip_model, "text_projection_bias", None)
        self.class_specific, self.chunk_rows = class_specific, chunk_rows
        n_prefix = 1 if class_specific else layout.n_prefix
        split = {"n_split": n_prefix - 1 if class_deep else 0}
        rows = PromptRows(clip_model, layout, n_prefix=n_prefix, n_cached=0 if tuned else 1, **split)
        self.register_buffer("cached", None if tuned else rows.cache_start(), persistent=False)
        self.packs = nn.ModuleList(
            _Pack(rows, classes, self.cached, class_specific) for classes in rows.split(chunk_rows)
        )
        # From the order of the packed prompts back to the classes'.
        class_order = torch.cat([pack.classes for pack in self.packs]).argsort()
        self.register_buffer("class_order", class_order, persistent=False)

    def forward(self, ctx: Tensor, deep: Sequence[Tensor | None] = ()) -> Tensor:
        """Encodes the prompts.

        Args:
            ctx: (M, D), or (C, M, D) if class-specific; with one more dimension B in front, B contexts at once.
            deep: (K, D), or None: before block 1, 2, ... of the tower they replace positions 1 to K. These must belong
                to the prefix: K <= M with one context for all classes and the class token at the end. With
                `class_deep`, the last is (C, K, D). A tuned tower takes none.

        Returns:
            (C, E) or (B, C, E) features, not normalised, in the tower's dtype.
        """
        assert self.cached is not None or not deep, "deep prompts stand behind a cached [SOS]"
        n_dims = 3 if self.class_specific else 2
        contexts = ctx if ctx.dim() > n_dims else ctx[None]
        parts = [self._encode_chunked(contexts, pack, deep, is_last=pack is self.packs[-1]) for pack in self.packs]
        features = torch.cat(parts, dim=1)[:, self.class_order]
        return features if ctx.dim() > n_dims else features[0]

    @property
    def n_rows(self) -> int:
        """Rows of the tower that one context costs, in the block with the most."""
        return sum(pack.n_rows for pack in self.packs)

    def _encode_chunked(self, contexts: Tensor, pack: _Pack, deep: Sequence[Tensor | None], *, is_last: bool) -> Tensor:
        n_at_once = max(1, self.chunk_rows // pack.n_rows)
        # Not in a trace, which would fix the number of chunks for all later batches.
        is_chunked = self.chunk_rows and not torch.compiler.is_compiling()
        features, chunks = [], contexts.split(n_at_once) if is_chunked else (contexts,)
        for i, chunk in enumerate(chunks, start=1):
            recompute = torch.is_grad_enabled() and not (is_last and i == len(chunks))
            encode = partial(checkpoint, self._encode, use_reentrant=False) if recompute else self._encode
            features.append(encode(chunk, pack, deep))
        return torch.cat(features)

    def _encode(self, contexts: Tensor, pack: _Pack, deep: Sequence[Tensor | None]) -> Tensor:
        rows = {"n_prefix": pack.n_prefix, "cached": self.cached, "deep": [pack.deep(vectors) for vectors in deep]}
        x = run_tower(self.transformer, pack.embed(contexts), pack.groups, **rows)
        return read_out(x, self.ln_final, self.text_projection, self.text_projection_bias)  # (B, N, D) -> (B, N, E)


class PromptRows:
    """Which positions a class computes: its suffix, from the first learned vector behind the prefix to the end token.

    Args:
        n_prefix: Number of leading positions that all prompts share, [SOS] among them.
        n_cached: How many of these are constants: 1, [SOS], or 0, where nothing in a prompt is one.
        n_split: Number of rows that each suffix takes over from the prefix in the middle of the tower.
    """

    def __init__(
        self, clip_model: TwoTowers, layout: PromptLayout, *, n_prefix: int, n_cached: int = 1, n_split: int = 0
    ):
        self.clip_model, self.layout = clip_model, layout
        self.n_prefix, self.n_cached, self.n_split = n_prefix, n_cached, n_split
        self.vectors = layout.vectors()
        first_vector = (self.vectors >= 0).int().argmax(dim=1)  # what stands before it is a constant, if anything is
        self.first = (first_vector * n_cached).clamp(min=n_prefix).tolist()  # where the suffix starts
        self.end = (layout.eot + 1).tolist()
        # Classes with equally many constant positions and equally long suffixes stand side by side.
        self.sorted = sorted(range(len(self.end)), key=self.lengths)

    def lengths(self, class_: int) -> tuple[int, int]:
        """Number of constant positions between the prefix and the suffix, length of the suffix."""
        return self.first[class_] - self.n_prefix, self.end[class_] - self.first[class_]

    def split(self, chunk_rows: int) -> list[list[int]]:
        """Splits the sorted classes so that each part's rows, prefix included, fit `chunk_rows` (0: one part)."""
        parts, n_rows = [[]], self.n_prefix
        for class_ in self.sorted:
            n_suffix = self.n_split + self.lengths(class_)[1]
            if chunk_rows and parts[-1] and n_rows + n_suffix > chunk_rows:
                parts.append([])
                n_rows = self.n_prefix
            parts[-1].append(class_)
            n_rows += n_suffix
        return parts

    @torch.no_grad()
    def embed(self, classes: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds positions of prompts: token and position, for a learned vector its position alone.

        Args:
            classes, positions: (R,) int64.

        Returns:
            (1, R, D) embeddings in the tower's dtype, and (R,) the index of the context vector, -1 for tokens.
        """
        clip_model, column = self.clip_model, self.layout.order[classes, positions]
        vector = self.vectors[classes, positions]
        device, dtype = clip_model.positional_embedding.device, clip_model.dtype
        token = clip_model.token_embedding(self.layout.tokens[classes, column].to(device)).type(dtype)
        position = clip_model.positional_embedding[positions.to(device)].type(dtype)
        embedded = position + token * (vector < 0)[:, None].to(device)
        return embedded[None], vector

    @torch.no_grad()
    def cache(self, classes: list[int], positions: range, cached: Tensor | None) -> Tensor:
        """Keys and values (layers, 2, 1, H, n, p, d) of constant positions of n prompts, behind those cached before."""
        x, _ = self.embed(*_grid(classes, positions))
        record: list = []
        run_tower(self.clip_model.transformer, x, [Group(len(classes), len(positions))], cached=cached, record=record)
        return torch.stack([torch.stack(keys_values) for [keys_values] in record])

    def cache_start(self) -> Tensor:
        """Keys and values (layers, 2, 1, H, 1, d) of [SOS]."""
        return self.cache([0], range(1), None)[:, :, :, :, 0]


class _Pack(nn.Module):
    """The rows of some classes in one matrix: the learned prefix, then the suffixes, group after group."""

    def __init__(self, rows: PromptRows, classes: list[int], cached: Tensor | None, class_specific: bool):
        super().__init__()
        self.n_prefix, self.n_split = rows.n_prefix - rows.n_cached, rows.n_split
        self.sizes: list[tuple[int, int]] = []
        grids = [_grid(classes[:1], range(rows.n_cached, rows.n_prefix))]
        for i, ((n_constant, n_suffix), group) in enumerate(groupby(classes, key=rows.lengths)):
            members = list(group)
            self.sizes.append((len(members), n_suffix))
            grids += [_grid([class_], range(rows.first[class_], rows.end[class_])) for class_ in members]
            constant = range(rows.n_prefix, rows.n_prefix + n_constant)
            cached_words = rows.cache(members, constant, cached) if n_constant else None
            self.register_buffer(f"cached_{i}", cached_words, persistent=False)
        row_class, row_position = (torch.cat(column) for column in zip(*grids, strict=True))
        base, vector = rows.embed(row_class, row_position)
        slot = (vector >= 0).nonzero()[:, 0]  # (K,) rows that hold a learned vector
        source = vector[slot] + (row_class[slot] * rows.layout.n_ctx if class_specific else 0)
        for name, value in (("base", base), ("slot", slot), ("source", source), ("classes", torch.tensor(classes))):
            self.register_buffer(name, value.to(base.device), persistent=False)
        self.n_rows = max(base.shape[1], sum(n * (self.n_split + n_suffix) for n, n_suffix in self.sizes))

    @property
    def groups(self) -> list[Group]:
        return [Group(n, n_suffix, getattr(self, f"cached_{i}")) for i, (n, n_suffix) in enumerate(self.sizes)]

    def embed(self, contexts: Tensor) -> Tensor:
        """Contexts (B, M, D) or (B, C, M, D) -> the matrix of rows (B, R, D)."""
        vectors = contexts.flatten(1, -2)[:, self.source]  # (B, K, D)
        return self.base.expand(contexts.shape[0], -1, -1).index_add(1, self.slot, vectors.type(self.base.dtype))

    def deep(self, vectors: Tensor | None) -> Tensor | None:
        """As the tower takes deep prompts: (K, D) -> (1, K, D); (C, K, D) -> (1, N, K, D), of the pack's classes."""
        if vectors is None:
            return None
        assert vectors.dim() == 2 or self.n_split, "for deep prompts of each class, build with class_deep"
        return (vectors if vectors.dim() == 2 else vectors[self.classes])[None]


def _grid(classes: list[int], positions: range) -> tuple[Tensor, Tensor]:
    """The class and the position of every row, class by class."""
    class_, position = torch.tensor(classes), torch.arange(positions.start, positions.stop)
    return class_.repeat_interleave(len(positions)), position.repeat(len(classes))
