"""What is kept of each image that a model has answered: a few numbers, and its logits only where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Answers(NamedTuple):
    """The answers to N images, as arrays (N,); probabilities are the softmax of the logits in float64.

    Attributes:
        labels: int64.
        predictions: Index of the largest logit, of equal ones the first, int64.
        probabilities: Of the prediction, float64.
        seconds: Index of the second largest logit, int64; -1 where there is one class.
        second_probabilities: Float64; 0 where there is one class.
        ranks: Of the label, from 1, int64.
        nll: -ln of the label's probability, in nats, float64.
        brier: Squared distance from the probabilities to the label's unit vector, 0 to 2, float64.
        logits: (N, C) float32; None where they are not kept.
    """

    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    seconds: np.ndarray
    second_probabilities: np.ndarray
    ranks: np.ndarray
    nll: np.ndarray
    brier: np.ndarray
    logits: np.ndarray | None = None


def answers_of(logits: Tensor, labels: Tensor, *, keep_logits: bool = False) -> Answers:
    """Returns what is kept of a batch.

    Args:
        logits: (B, C), any floating dtype and device; the largest of each row is finite.
        labels: (B,) int64, in 0 ... C - 1.
        keep_logits: Whether the logits are kept, too.
    """
    exact, of_label = logits.detach().double(), labels.to(logits.device)[:, None]
    log_p = exact.log_softmax(dim=1)
    p, own = log_p.exp(), exact.gather(1, of_label)
    best = exact.argmax(dim=1, keepdim=True)
    others = exact.scatter(1, best, -torch.inf)
    second = others.argmax(dim=1, keepdim=True)
    has_second = exact.shape[1] > 1
    earlier = torch.arange(exact.shape[1], device=exact.device) < of_label  # of equal logits the first class is first
    columns = (
        of_label[:, 0],
        best[:, 0],
        p.gather(1, best)[:, 0],
        second[:, 0] if has_second else torch.full_like(second[:, 0], -1),
        p.gather(1, second)[:, 0] if has_second else torch.zeros_like(p[:, 0]),
        ((exact > own) | ((exact == own) & earlier)).sum(dim=1) + 1,
        -log_p.gather(1, of_label)[:, 0],
        p.square().sum(dim=1) - 2 * p.gather(1, of_label)[:, 0] + 1,
    )
    arrays = (column.cpu().numpy() for column in columns)
    return Answers(*arrays, logits.detach().float().cpu().numpy() if keep_logits else None)


def join(parts: Sequence[Answers]) -> Answers:
    """Returns the answers of some batches, at least one, as one."""
    return Answers(*(None if column[0] is None else np.concatenate(column) for column in zip(*parts, strict=True)))
