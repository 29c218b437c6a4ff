"""What a run leaves in results.json: what was measured, how it was made, what identifies it, what to be warned of."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from yacs.config import CfgNode as CN

from ..config.identity import identity
from ..data.bad_images import skip_warnings, skipped_fields
from ..data.transforms import describe_transform
from .folder import read_config
from .selection import NONE, knows_classes, selection_of

logger = logging.getLogger(__name__)

MEASURES = (
    *("accuracy", "error_rate", "macro_f1", "total", "correct"),
    *("top5_accuracy", "balanced_accuracy", "nll", "brier", "ece", "temperature"),
)
SEEDS_OWN = ("SEED", "RUN.MODEL_DIR", "MODEL.INIT_WEIGHTS")  # keys in which an experiment's seeds differ


def how_made(trainer) -> dict[str, Any]:
    """Returns the entries of results.json on what makes a result comparable with others, which the log has too.

    Args:
        trainer: Built, and not yet trained; loaded if it is only tested.

    Raises:
        ConfigError: If the config chooses by what TEST.ALLOW_ORACLE does not allow.
    """
    cfg = trainer.cfg
    training = cfg
    if cfg.RUN.EVAL_ONLY:
        training = read_config(cfg.RUN.MODEL_DIR) if cfg.RUN.MODEL_DIR else None
    made = {
        "selection": selection_of(trainer, training),
        "setting": setting_of(trainer, training),
        "digests": digests_of(trainer, training),
    }
    if {*made["selection"].values()} != {NONE}:
        epoch, others = (rule or "not known" for rule in made["selection"].values())
        logger.info("Chosen by: %s (epoch), %s (hyper-parameters)", epoch, others)
    if made["setting"]:
        logger.info("Setting: %s", ", ".join(made["setting"]))
    return made


def setting_of(trainer, training: CN | None) -> list[str]:
    """Returns what sets a result apart from those of the usual setting, a label each.

    transductive    the method has seen the images that it is tested on, without their labels
    open-world      what was learned on the base classes is tested on all classes
    """
    pairs = [(of.DATASET.NAME, of.DATASET.SUBSAMPLE_CLASSES) for of in (training, trainer.cfg) if of]
    name = trainer.cfg.DATASET.NAME
    labels = {"transductive": trainer.transductive, "open-world": pairs == [(name, "base"), (name, "all")]}
    return [label for label, holds in labels.items() if holds]


def digests_of(trainer, training: CN | None) -> dict[str, str | None]:
    """Returns 12 hex digits each of the hand-made prompts and the transforms; None where there are none, or not ours.

    The training transform is that of the run that has trained the model.
    """
    cfg, found = trainer.cfg, trainer.templates
    templates = list(found() if callable(found) else found)  # the original's ZeroshotCLIP2 has a list
    is_ours = getattr(trainer.dm, "has_own_transforms", False)  # not so: a manager, or a transform, of the method's
    return {
        "templates": digest_of(templates) if templates else None,
        "train_transform": digest_of(describe_transform(training, is_train=True)) if training and is_ours else None,
        "test_transform": digest_of(describe_transform(cfg, is_train=False)) if is_ours else None,
    }


def digest_of(content: Any) -> str:
    """Returns the first 12 hex digits of the sha256 of something as JSON."""
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:12]


def results_of(trainer) -> dict[str, Any]:
    """Returns the entries of results.json, from a trainer after its test."""
    cfg = trainer.cfg
    trained_on = read_config(cfg.RUN.MODEL_DIR) if cfg.RUN.MODEL_DIR else None
    source = cfg.DATASET.NAME if not cfg.RUN.EVAL_ONLY else trained_on.DATASET.NAME if trained_on else None
    return {
        **dict.fromkeys(MEASURES),  # None where TEST.NO_TEST
        **trainer.results,
        "split": cfg.TEST.SPLIT,
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "source": source,
        "seed": cfg.SEED,
        "shots": (trained_on or cfg).DATASET.NUM_SHOTS,
        "cfg": cfg.RUN.CFG,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "n_ctx": None,
        "csc": None,
        "class_token_position": None,
        "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
        "epoch": trainer.epochs_done,
        **trainer.result_fields(),
        "settings": settings_of(cfg),
        "trained_with": trained_on and settings_of(trained_on),
        "warnings": [
            *trainer.warnings,
            *skip_warnings(trainer.dm.skipped),
            *training_warnings(cfg, trained_on),
            *untested_warnings(trainer),
            *chance_warnings(trainer, trained_on),
        ],
        **skipped_fields(trainer.dm.skipped),
    }


def settings_of(cfg: CN) -> dict[str, Any]:
    """Returns the changed keys that decide what a run computes, but for those in which an experiment's seeds differ."""
    return {key: value for key, value in identity(cfg).items() if key not in SEEDS_OWN}


def training_warnings(cfg: CN, trained_on: CN | None) -> list[str]:
    """Returns a sentence if the model has learned from images at a reduced scale, and is tested on whole ones."""
    if trained_on is None or cfg.INPUT.REDUCED_DECODING or not trained_on.INPUT.REDUCED_DECODING:
        return []
    return ["The model was trained with INPUT.REDUCED_DECODING True, and is tested without it. Test it with it, too."]


def untested_warnings(trainer) -> list[str]:
    """Returns a sentence if a method's own part of the loop has left out the test, which was wanted."""
    cfg, what = trainer.cfg, "test does not call its evaluator"
    if trainer.results or cfg.TEST.NO_TEST:
        return []
    advice = "Correct it."
    if not cfg.RUN.EVAL_ONLY:
        what = "after_train does not test"
        advice = f"Test the run with --eval-only --model-dir {cfg.OUTPUT_DIR} --load-epoch {trainer.epochs_done}."
    return [f"Nothing was tested: {cfg.TRAINER.NAME}'s {what}, so the measures are empty. {advice}"]


def chance_warnings(trainer, trained_on: CN | None) -> list[str]:
    """Returns a sentence if the accuracy is at chance; on other classes than those of the training it may be."""
    if trainer.cfg.RUN.MODEL_DIR and not knows_classes(trainer.cfg, trained_on):
        return []
    if not trainer.results or not hasattr(trainer.evaluator, "chance_warning"):  # nothing was tested, or otherwise
        return []
    return list(filter(None, [trainer.evaluator.chance_warning()]))
