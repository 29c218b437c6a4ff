"""The confusion matrix: how many images of each class are taken for each class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..checkpoint import write_torch_file

logger = logging.getLogger(__name__)


def confusion_counts(labels: Sequence[int], predictions: Sequence[int], *, n_classes: int) -> np.ndarray:
    """Returns (C, C) int64: row i counts the images of label i by predicted class.

    Answers beyond the classes, which a model may have outputs for, are not in it.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    known = predictions < n_classes
    cells = labels[known] * n_classes + predictions[known]
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def save_shares(path: Path, labels: Sequence[int], predictions: Sequence[int], *, n_classes: int) -> None:
    """Saves the matrix as a tensor (C, C) float64: row i holds the shares of label i's images by predicted class."""
    # Differs from the original: over all classes, so that a class without images keeps its row.
    counts = confusion_counts(labels, predictions, n_classes=n_classes)
    write_torch_file(torch.from_numpy(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)), path)
    logger.info("Confusion matrix is saved to %s", path)
