"""Measures."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from engine import EVALUATOR_REGISTRY, build_evaluator
from engine.evaluator import Classification

__all__ = ["EVALUATOR_REGISTRY", "Classification", "EvaluatorBase", "build_evaluator"]


class EvaluatorBase:
    """What an evaluator of one's own derives from."""

    def __init__(self, cfg, lab2cname: dict[int, str] | None = None):
        self.cfg, self.lab2cname = cfg, lab2cname

    def reset(self) -> None:
        """Forgets all processed batches."""
        raise NotImplementedError

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Adds a batch: logits (B, C) and labels (B,)."""
        raise NotImplementedError

    def evaluate(self) -> OrderedDict:
        """Logs and returns the results by name, the main one first."""
        raise NotImplementedError
