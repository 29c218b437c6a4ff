"""Optimisers from the config."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from yacs.config import CfgNode as CN

import engine

from .radam import RAdam


def build_optimizer(
    model: nn.Module | Iterable[nn.Parameter] | Iterable[dict] | None,
    optim_cfg: CN,
    param_groups: list[dict] | None = None,
) -> torch.optim.Optimizer:
    """The engine's, which may be given groups of parameters in place of a model."""
    if param_groups is None and not isinstance(model, nn.Module):
        model = list(model)
        param_groups = model if model and isinstance(model[0], dict) else None
    return engine.build_optimizer(model, optim_cfg, param_groups=param_groups)
