"""The trainer that the config names."""

from yacs.config import CfgNode as CN

import engine
from engine import TRAINER_REGISTRY


def build_trainer(cfg: CN) -> engine.TrainerX:
    """Builds the trainer that TRAINER.NAME names."""
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
