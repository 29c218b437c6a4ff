"""From the features of images to logits, where one matrix does it: what leaves the toolkit as a few numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class LinearHead(NamedTuple):
    """logits = scale * norm(features) @ weight.T, or features @ weight.T + bias.

    Attributes:
        weight: (C, E) float32; without a bias its rows are text features, normalised, or learned and of any length.
        scale: Of cosines, 1 / tau; 1 with a bias.
        bias: (C,) float32, of features that are not normalised; None for cosines.
    """

    weight: Tensor
    scale: float = 1.0
    bias: Tensor | None = None

    def logits(self, features: Tensor) -> Tensor:
        """Returns the logits (B, C) of features (B, E) float32, not normalised."""
        if self.bias is not None:
            return F.linear(features, self.weight, self.bias)
        return self.scale * F.normalize(features, dim=-1) @ self.weight.t()
