"""Trainers in Dassl's form, and their registry."""

from .build import TRAINER_REGISTRY, build_trainer
from .trainer import SimpleTrainer, TrainerBase, TrainerX
