"""Accuracy."""

from engine import compute_accuracy
