"""Prompts through a text tower that shares nothing between them: all L positions of every prompt.

A tower that is not causal (SigLIP's, CLIPA's) lets each position see the whole prompt, so no state is the same in two
prompts. It is run as it was trained: with its padding, read at the position that its pooling names.

Cost: C L rows of the tower for a context, B C L for B contexts; `chunk_rows` bounds the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .prompt_layout import PromptLayout
from .two_towers import TwoTowers, read_out


class PlainPromptEncoder(nn.Module):
    """Context vectors to the text features of all classes, as PromptEncoder, for any TwoTowers.

    Args:
        clip_model: The model whose text tower is used; its weights are shared, not copied. Its dtype must be final.
        layout: The prompts.
        class_specific: Whether every class has context vectors of its own.
        chunk_rows: Rows (positions of prompts) encoded at once; 0: all. The activations of all chunks but the last are
            computed again in the backward pass.
    """

    def __init__(
        self, clip_model: TwoTowers, layout: PromptLayout, *, class_specific: bool = False, chunk_rows: int = 0
    ):
        super().__init__()
        self.transformer = clip_model.transformer
        self.ln_final, self.text_projection = clip_model.ln_final, clip_model.text_projection
        self.text_projection_bias = getattr(clip_model, "text_projection_bias", None)
        self.class_specific, self.chunk_rows, self.n_start = class_specific, chunk_rows, layout.n_start
        device, dtype = clip_model.positional_embedding.device, clip_model.dtype
        vectors, tokens = layout.vectors(), layout.tokens.gather(1, layout.order)  # (C, L)
        with torch.no_grad():
            words = clip_model.token_embedding(tokens.to(device)).type(dtype) * (vectors < 0)[..., None].to(device)
            base = words + clip_model.positional_embedding[: tokens.shape[1]].type(dtype)
        read_at = layout.eot if clip_model.pooling == "end" else clip_model.read_at(tokens)
        for name, value in (("base", base), ("vectors", vectors), ("read_at", read_at)):
            self.register_buffer(name, value.to(device), persistent=False)

    def forward(self, ctx: Tensor, deep: Sequence[Tensor | None] = ()) -> Tensor:
        """Encodes the prompts.

        Args:
            ctx: (M, D), or (C, M, D) if class-specific; with one more dimension B in front, B contexts at once.
            deep: (K, D), or (C, K, D) with vectors of each class, or None: before block 1, 2, ... of the tower they
                replace the first K positions behind the start.

        Returns:
            (C, E) or (B, C, E) features, not normalised, in the tower's dtype.
        """
        n_dims = 3 if self.class_specific else 2
        contexts = ctx if ctx.dim() > n_dims else ctx[None]
        n_classes, length = self.vectors.shape
        n_contexts = len(contexts)
        prompts = torch.arange(n_contexts * n_classes, device=self.base.device)  # a context's classes one by one
        chunks = prompts.split(max(1, self.chunk_rows // length) if self.chunk_rows else len(prompts))
        parts = []
        for i, chunk in enumerate(chunks, start=1):
            recompute = torch.is_grad_enabled() and i < len(chunks)
            encode = partial(checkpoint, self._encode, use_reentrant=False) if recompute else self._encode
            parts.append(encode(contexts, chunk, deep))
        features = torch.cat(parts).unflatten(0, (n_contexts, n_classes))
        return features if ctx.dim() > n_dims else features[0]

    @property
    def n_rows(self) -> int:
        """Rows of the tower that one context costs."""
        return self.vectors.numel()

    def _encode(self, contexts: Tensor, prompts: Tensor, deep: Sequence[Tensor | None]) -> Tensor:
        """(N, E) features of some of the B C prompts."""
        context, class_ = prompts // len(self.vectors), prompts % len(self.vectors)
        vectors = self.vectors[class_]  # (N, L)
        own = contexts[context, class_] if self.class_specific else contexts[context]  # (N, M, D)
        x = self.base[class_]  # (N, L, D)
        if own.shape[1]:  # else the prompts are words alone
            index = vectors.clamp(min=0)[..., None].expand(-1, -1, own.shape[-1])
            x = x + own.type(self.base.dtype).gather(1, index) * (vectors >= 0)[..., None]
        x = x.permute(1, 0, 2)  # (N, L, D) -> (L, N, D)
        for i, block in enumerate(self.transformer.resblocks):
            if 0 < i <= len(deep) and deep[i - 1] is not None:
                vectors = deep[i - 1]
                x = self._replace(x, vectors.expand(len(prompts), -1, -1) if vectors.dim() == 2 else vectors[class_])
            x = block(x)
        x = x[self.read_at[class_], torch.arange(len(prompts), device=x.device)]  # (N, D)
        return read_out(x, self.ln_final, self.text_projection, self.text_projection_bias)

    def _replace(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Prompts (L, N, D) with other vectors (N, K, D) behind the start."""
        start, end = self.n_start, self.n_start + vectors.shape[1]
        return torch.cat([x[:start], vectors.type(x.dtype).permute(1, 0, 2), x[end:]])
