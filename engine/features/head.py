"""From the features of images to logits, where a few arrays do it: what leaves the toolkit as a file of numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
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


class CachedHead(NamedTuple):
    """logits_c = scale * x . w_c + alpha * sum_k exp(-beta (1 - x . k)), k the keys of class c, x = norm(features).

    Attributes:
        weight: (C, E) float32, text features, normalised.
        scale: 1 / tau.
        keys: (N, E) float32, features of training images, or learned ones.
        owners: (N,) int64, the class of each key.
        alpha, beta: How much the keys say, and how fast that falls off.
    """

    weight: Tensor
    scale: float
    keys: Tensor
    owners: Tensor
    alpha: float
    beta: float

    def logits(self, features: Tensor) -> Tensor:
        """Returns the logits (B, C) of features (B, E) float32, not normalised."""
        features = F.normalize(features, dim=-1)
        votes = (-self.beta * (1 - features @ self.keys.t())).exp()  # (B, N)
        classes = torch.arange(len(self.weight), device=self.owners.device)
        is_owner = (self.owners[:, None] == classes).to(votes.dtype)  # (N, C)
        return self.scale * features @ self.weight.t() + self.alpha * votes @ is_owner


Head = LinearHead | CachedHead
