"""What a run leaves in results.json: what was measured, what identifies the run, what to be warned of."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode as CN

from ..config.identity import identity
from ..data.bad_images import skip_warnings, skipped_fields
from .folder import read_config

MEASURES = (
    *("accuracy", "error_rate", "macro_f1", "total", "correct"),
    *("top5_accuracy", "balanced_accuracy", "nll", "brier", "ece", "temperature"),
)
SEEDS_OWN = ("SEED", "RUN.MODEL_DIR", "MODEL.INIT_WEIGHTS")  # keys in which an experiment's seeds differ


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
            *untested_warnings(trainer),
            *chance_warnings(trainer, trained_on),
            *choice_warnings(trainer, trained_on),
        ],
        **skipped_fields(trainer.dm.skipped),
    }


def settings_of(cfg: CN) -> dict[str, Any]:
    """Returns the changed keys that decide what a run computes, but for those in which an experiment's seeds differ."""
    return {key: value for key, value in identity(cfg).items() if key not in SEEDS_OWN}


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


def choice_warnings(trainer, trained_on: CN | None) -> list[str]:
    """Returns a sentence if the epoch was chosen by the accuracy on images that are tested on, as ImageNet's are."""
    cfg, training = trainer.cfg, trainer.cfg
    if cfg.RUN.EVAL_ONLY:
        if cfg.RUN.LOAD_EPOCH >= 0 or not knows_classes(cfg, trained_on):
            return []
        training = trained_on
    if not trainer.results or not trainer.epochs_done or training.TEST.FINAL_MODEL != "best_val":
        return []  # without epochs, as LinearProbe's, none is chosen
    tested, chosen_by = (
        {item.impath for item in getattr(trainer.dm.dataset, split)} for split in (cfg.TEST.SPLIT, "val")
    )
    n_both = len(tested & chosen_by)
    if not n_both:
        return []
    return [
        f"TEST.FINAL_MODEL is best_val and {n_both:,} of the {len(tested):,} images tested on are validation images: "
        "they chose the epoch, so on new images the accuracy may be lower. Say so beside the number, or train with "
        "TEST.FINAL_MODEL last_step."
    ]


def knows_classes(cfg: CN, trained_on: CN | None) -> bool:
    """Says whether a test is on the data set and the classes of the training."""
    keys = ("NAME", "ROOT", "SUBSAMPLE_CLASSES")
    return trained_on is not None and all(cfg.DATASET[key] == trained_on.DATASET[key] for key in keys)
