"""Optimisers and learning-rate schedules."""

from engine import build_lr_scheduler, build_optimizer

__all__ = ["build_lr_scheduler", "build_optimizer"]
