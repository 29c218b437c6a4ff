"""Measures of answers, as functions of arrays over N images; those that are shares are in [0, 1]."""

from __future__ import annotations

import numpy as np

N_BINS = 15  # of the calibration error


def recalls(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Returns, for each class that occurs in the labels, the share of its images that is classified rightly."""
    present, counts = np.unique(labels, return_counts=True)
    return np.bincount(labels[labels == predictions], minlength=present[-1] + 1)[present] / counts


def f1_scores(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Returns 2 TP / (2 TP + FP + FN) of each class that occurs in the labels."""
    present, counts = np.unique(labels, return_counts=True)
    predicted = np.bincount(predictions, minlength=present[-1] + 1)[present]
    hits = np.bincount(labels[labels == predictions], minlength=present[-1] + 1)[present]
    return 2.0 * hits / (counts + predicted)


def calibration_error(probabilities: np.ndarray, is_hit: np.ndarray, n_bins: int = N_BINS) -> float:
    """Returns the expected calibration error: the mean gap between probability and accuracy over bins of probability.

    Args:
        probabilities: Of the predictions, in (0, 1].
        is_hit: Whether they are right.
        n_bins: Number of bins, equally wide; bin b is ((b - 1) / n_bins, b / n_bins].
    """
    bins = np.clip(np.ceil(probabilities * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=is_hit - probabilities, minlength=n_bins)  # count of the bin x its gap
    return float(np.abs(gaps).sum() / len(probabilities))
