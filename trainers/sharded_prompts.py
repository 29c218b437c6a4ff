"""The text side of one run split over its ranks by classes: each encodes the prompts of its share of them."""

from __future__ import annotations

from torch import Tensor

from clip.model import CLIP
from clip.prompt_layout import PromptLayout
from clip.prompts import PromptEncoder
from engine.distributed import gather_rows, n_ranks, share


class ShardedPromptEncoder(PromptEncoder):
    """A PromptEncoder of this rank's classes; the features of the others come, with gradients, from the other ranks.

    Args:
        clip_model, layout, class_specific, chunk_rows: See PromptEncoder; the prompts are those of all C classes.

    Raises:
        ValueError: If there are fewer classes than ranks.
    """

    def __init__(self, clip_model: CLIP, layout: PromptLayout, *, class_specific: bool = False, chunk_rows: int = 0):
        n_classes = len(layout.tokens)
        if n_classes < n_ranks():
            raise ValueError(
                f"TRAINER.COOP.SHARD_CLASSES is True for {n_classes} classes on {n_ranks()} ranks, expected a class "
                "for each rank. Leave it out, or start fewer."
            )
        own = share(n_classes)
        super().__init__(clip_model, layout.of_classes(own), class_specific=class_specific, chunk_rows=chunk_rows)
        self.n_classes, self.own = n_classes, own

    def forward(self, ctx: Tensor) -> Tensor:
        """Encodes the prompts: one context (M, D), or (C, M, D) if class-specific -> (C, E) float32, not normalised."""
        own = super().forward(ctx[self.own] if self.class_specific else ctx)
        return gather_rows(own.float(), self.n_classes)  # float32: gradients of all ranks are summed
