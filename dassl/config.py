"""The default config."""

from yacs.config import CfgNode as CN

from engine import get_cfg_default


def clean_cfg(cfg: CN, trainer: str) -> None:
    """Removes the options of all trainers but this one, as far as they stand under its name in capitals."""
    for key in set(cfg.TRAINER) - {"NAME", trainer.upper()}:
        del cfg.TRAINER[key]
