"""The engine: config, data loading, optimisation, checkpoints, evaluation and the training loop. It knows no method."""

from .checkpoint import load_checkpoint, load_pretrained_weights, save_checkpoint
from .config import get_cfg_default
from .data import DataManager
from .datum import DatasetBase, Datum
from .evaluator import build_evaluator, compute_accuracy
from .optim import build_lr_scheduler, build_optimizer
from .random_state import set_random_seed
from .registry import DATASET_REGISTRY, EVALUATOR_REGISTRY, TRAINER_REGISTRY, Registry
from .trainer import TrainerX
from .transforms import build_transform

__all__ = [
    "DATASET_REGISTRY",
    "EVALUATOR_REGISTRY",
    "TRAINER_REGISTRY",
    "DataManager",
    "DatasetBase",
    "Datum",
    "Registry",
    "TrainerX",
    "build_evaluator",
    "build_lr_scheduler",
    "build_optimizer",
    "build_transform",
    "compute_accuracy",
    "get_cfg_default",
    "load_checkpoint",
    "load_pretrained_weights",
    "save_checkpoint",
    "set_random_seed",
]
