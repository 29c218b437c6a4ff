"""Temperature scaling: one number by which logits are divided, so that probabilities are as sure as they are right.

Paper: On Calibration of Modern Neural Networks, Guo, Pleiss, Sun, Weinberger, ICML 2017, https://arxiv.org/abs/1706.04599

    T = argmin over T > 0 of the mean of -ln softmax(z / T)_y          z: logits, y: label
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TOLERANCE = 1e-12  # of ln T
LIMIT = 60  # of |ln T|


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Returns the temperature of logits (N, C), whose rows have a finite maximum, and labels (N,), int64.

    None where no T is the best one: all answers are right (the smaller T, the better), they are no better than those of
    equal probabilities (the larger, the better), or a label has the probability 0.
    """
    logits = np.asarray(logits, dtype=np.float64)
    gaps = logits - logits.max(axis=1, keepdims=True)
    of_label, is_in = gaps[np.arange(len(labels)), labels], np.isfinite(gaps)
    finite = np.where(is_in, gaps, 0.0)  # a class that is left out has the probability 0

    def slope(log_s: float) -> tuple[float, float]:
        """The derivative of the mean by s = 1 / T, in which it is convex; and the slope's own by ln s."""
        p = np.exp(np.exp(log_s) * gaps)
        p /= p.sum(axis=1, keepdims=True)
        mean_gap = (p * finite).sum(axis=1)
        variance = (p * finite**2).sum(axis=1) - mean_gap**2
        return float((mean_gap - of_label).mean()), float(np.exp(log_s) * variance.mean())

    is_best_above_zero = (finite.sum(axis=1) / is_in.sum(axis=1)).mean() < of_label.mean()  # slope at s = 0
    if not (np.isfinite(of_label).all() and of_label.any() and is_best_above_zero):
        return None
    low = next((x for x in range(0, -LIMIT, -1) if slope(x)[0] < 0), None)
    high = next((x for x in range(LIMIT) if slope(x)[0] > 0), None)
    if low is None or high is None:
        return None
    return float(np.exp(-root_between(low, high, slope)))


def root_between(low: float, high: float, function: Callable[[float], tuple[float, float]]) -> float:
    """Returns where a function is zero that is negative at `low` and positive at `high`, by Newton's method.

    A step that would leave the interval halves it instead. scipy's root finders take half a second to import.

    Args:
        low, high: The interval.
        function: From x to the value and the derivative.
    """
    x, moved = (low + high) / 2, np.inf
    while moved > TOLERANCE:
        value, derivative = function(x)
        low, high = (x, high) if value < 0 else (low, x)
        newton = x - value / derivative if derivative > 0 else np.inf
        following = newton if low <= newton <= high else (low + high) / 2
        x, moved = following, abs(following - x)
    return x
