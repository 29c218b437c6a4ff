"""Rectified Adam.

Paper: Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020, https://arxiv.org/abs/1908.03265
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


class RAdam(torch.optim.RAdam):
    """torch's, which decays weights as AdamW does; where the variance is not known yet, it steps without it."""

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        degenerated_to_sgd: bool = True,
    ):
        if not degenerated_to_sgd:
            raise ValueError("degenerated_to_sgd is False; only True is supported. Leave it out.")
        super().__init__(params, lr, betas, eps, weight_decay, decoupled_weight_decay=True)
