"""What a run leaves of its test beside results.json: files that say what the model answered to each image."""

from __future__ import annotations

import logging
from pathlib import Path

from ..data.manager import items_in_order
from ..distributed import is_first_rank
from ..evaluation.answers import Answers
from ..evaluation.predictions import path_under, write_logits, write_predictions
from .names import LOGITS, PREDICTIONS

logger = logging.getLogger(__name__)


def write_answers(trainer) -> None:
    """Writes the files image by image that the config asks for, in place of those of an earlier test.

    Where it is not sure which image an answer is of, no file is written, and the log says why.

    Args:
        trainer: After its test.
    """
    test, folder = trainer.cfg.TEST, Path(trainer.cfg.OUTPUT_DIR)
    if not is_first_rank():
        return
    for name in (PREDICTIONS, LOGITS):
        (folder / name).unlink(missing_ok=True)
    if not trainer.results or not (test.SAVE_PREDICTIONS or test.SAVE_LOGITS):
        return
    answers = getattr(trainer.evaluator, "answers", None)
    images, why_not = tested_images(trainer, answers)
    if why_not:
        logger.info("Nothing is written image by image: %s", why_not)
        return
    if test.SAVE_PREDICTIONS:
        write_predictions(folder / PREDICTIONS, answers, images, trainer.lab2cname)
    if test.SAVE_LOGITS:
        write_logits(folder / LOGITS, answers, images)


def tested_images(trainer, answers: Answers | None) -> tuple[list[str], str]:
    """Returns the paths of the images that answers are of, under DATASET.ROOT; or why they are not known, else ""."""
    cfg = trainer.cfg
    if answers is None:
        return [], f"the evaluator {cfg.TEST.EVALUATOR} does not keep the answers."
    items = items_in_order(trainer.val_loader if cfg.TEST.SPLIT == "val" else trainer.test_loader)
    if items is None:
        return [], f"the order of {type(trainer).__name__}'s own loader of test images is not known."
    if [item.label for item in items] != answers.labels.tolist():
        return [], f"the labels that {type(trainer).__name__} has tested on are not those of the test items in order."
    return [path_under(cfg.DATASET.ROOT, item.impath) for item in items], ""
