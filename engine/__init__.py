"""The engine: config, data loading, optimisation, checkpoints, evaluation and the training loop. It knows no method.

A name below is imported when it is asked for, so `engine.text` or `engine.registry` alone cost no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

MODULES = {  # the module of each public name
    "DATASET_REGISTRY": "registry",
    "EVALUATOR_REGISTRY": "registry",
    "TRAINER_REGISTRY": "registry",
    "DataManager": "data.manager",
    "DatasetBase": "data.datum",
    "Datum": "data.datum",
    "Registry": "registry",
    "TrainerX": "trainer",
    "build_evaluator": "evaluation.evaluator",
    "build_lr_scheduler": "optim",
    "build_optimizer": "optim",
    "build_transform": "data.transforms",
    "compute_accuracy": "evaluation.evaluator",
    "get_cfg_default": "config.defaults",
    "load_checkpoint": "checkpoint",
    "load_pretrained_weights": "checkpoint",
    "save_checkpoint": "checkpoint",
    "set_random_seed": "random_state",
}
__all__ = sorted(MODULES)


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *MODULES]
