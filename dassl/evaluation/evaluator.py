"""Measures that are there, and what one of one's own derives from."""

from __future__ import annotations

from collections import OrderedDict, defaultdict

from torch import Tensor

from engine.evaluation import evaluator

from .build import EVALUATOR_REGISTRY


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


class Classification(evaluator.Classification):
    """The engine's, with what Dassl's counts under its names, for those that derive from it."""

    def __init__(self, cfg, lab2cname: dict[int, str] | None = None, **named):
        self.cfg, self._lab2cname = cfg, lab2cname
        super().__init__(cfg, lab2cname)

    def reset(self) -> None:
        super().reset()
        self._y_true, self._y_pred = self._labels, self._predictions  # each one list under two names
        self._correct = self._total = 0
        self._per_class_res = defaultdict(list) if self.per_class_result else None

    def process(self, mo: Tensor, gt: Tensor) -> None:
        super().process(mo, gt)
        hits = (mo.argmax(dim=1) == gt).tolist()
        self._correct, self._total = self._correct + sum(hits), self._total + len(hits)
        if self._per_class_res is not None:
            for label, hit in zip(gt.tolist(), hits):
                self._per_class_res[label].append(int(hit))
