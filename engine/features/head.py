"""From the features of images to logits, where one matrix does it: what leaves the toolkit as a few numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class LinearHead(NamedTuple):
    """logits = scale * norm(features) @ weight.T + bias, or features @ weight.T + bias.

    Attributes:
        weight: (C, E) float32; of cosines without a bias its rows are text features, normalised, or learned and of any
            length.
        scale: Of cosines, 1 / tau; None: the features are not normalised.
        bias: (C,) float32; None for 0.
    """

    weight: Tensor
    scale: float | None = None
    bias: Tensor | None = None

    def logits(self, features: Tensor) -> Tensor:
        """Returns the logits (B, C) of features (B, E) float32, not normalised."""
        features = features if self.scale is None else self.scale * F.normalize(features, dim=-1)
        return F.linear(features, self.weight, self.bias)
