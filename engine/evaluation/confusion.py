"""The confusion matrix: how many images of each class are taken for each class, as a tensor, a table and a picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..checkpoint import write_torch_file
from ..files import write_csv

logger = logging.getLogger(__name__)

N_PAIRS = 25  # that a picture lists


def confusion_counts(labels: Sequence[int], predictions: Sequence[int], n_classes: int) -> np.ndarray:
    """Returns (C, C) int64: row i counts the images of label i by predicted class.

    Answers beyond the classes, which a model may have outputs for, are not in it.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    known = predictions < n_classes
    cells = labels[known] * n_classes + predictions[known]
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def shares_of(counts: np.ndarray) -> np.ndarray:
    """Returns (C, C) float64: each row of the counts divided by its sum; a class without images keeps its zeros."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def save_shares(path: Path, counts: np.ndarray) -> None:
    """Saves the shares as a tensor."""
    # Differs from the original: over all classes, so that a class without images keeps its row.
    write_torch_file(torch.from_numpy(shares_of(counts)), path)
    logger.info("Confusion matrix is saved to %s", path)


def write_table(path: Path, counts: np.ndarray, classnames: Sequence[str]) -> None:
    """Writes the counts as CSV: a header with the predicted classes, and a row for each true class, its name first."""
    rows = ([name, *row] for name, row in zip(classnames, counts.tolist(), strict=True))
    write_csv(path, [["true", *classnames], *rows])


def most_confused(counts: np.ndarray, n: int = N_PAIRS) -> list[tuple[int, int]]:
    """Returns up to n pairs (true class, predicted class) of errors, those of the most images first."""
    errors = counts - np.diag(np.diag(counts))
    cells = np.argsort(-errors, axis=None, kind="stable")[:n]
    pairs = zip(*(index.tolist() for index in np.unravel_index(cells, counts.shape)), strict=True)
    return [pair for pair in pairs if errors[pair]]
