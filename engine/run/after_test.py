"""What a run leaves of its test besides the measures: files image by image, and a temperature for its logits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..data.bad_images import find_bad
from ..data.image_io import BrokenImageError, MissingImageError
from ..data.manager import count_workers, items_in_order
from ..distributed import gather_objects, is_first_rank, n_ranks, share
from ..evaluation.answers import Answers
from ..evaluation.confusion import confusion_counts, write_table
from ..evaluation.confusion_picture import draw_confusion
from ..evaluation.predictions import path_under, write_logits, write_predictions
from ..evaluation.temperature import fit_temperature
from ..text import printable
from .inputs import tested_checkpoint
from .names import CONFUSION_PICTURE, CONFUSION_TABLE, LOGITS, PREDICTIONS

logger = logging.getLogger(__name__)


def write_answers(trainer) -> None:
    """Writes the files on the answers that the config asks for, in place of those of an earlier test.

    Where the answers are not kept, or it is not sure which image each is of, a file is left out and the log says why.

    Args:
        trainer: After its test.
    """
    cfg, folder = trainer.cfg, Path(trainer.cfg.OUTPUT_DIR)
    wanted = {
        PREDICTIONS: cfg.TEST.SAVE_PREDICTIONS,
        LOGITS: cfg.TEST.SAVE_LOGITS,
        CONFUSION_TABLE: cfg.TEST.COMPUTE_CMAT,
        CONFUSION_PICTURE: cfg.TEST.COMPUTE_CMAT,
    }
    if not is_first_rank():
        return
    for name in wanted:
        (folder / name).unlink(missing_ok=True)
    names = [name for name, is_wanted in wanted.items() if is_wanted and trainer.results]
    if names and (answers := getattr(trainer.evaluator, "answers", None)) is None:
        logger.info("Not written: %s. The evaluator %s keeps no answers.", ", ".join(names), cfg.TEST.EVALUATOR)
    elif names:
        write_by_image([name for name in names if name in (PREDICTIONS, LOGITS)], trainer, answers)
        if cfg.TEST.COMPUTE_CMAT:
            write_confusion(folder, answers, trainer.dm.dataset.classnames)


def missing_logits(cfg) -> str:
    """Returns what to do where a run is done, but without the logits that are asked for; "" where they are there."""
    if not cfg.TEST.SAVE_LOGITS or (Path(cfg.OUTPUT_DIR) / LOGITS).exists():
        return ""
    folder, epoch = tested_checkpoint(cfg)
    of_epoch = "" if epoch is None else f" --load-epoch {epoch}"
    same_model = "" if cfg.RUN.EVAL_ONLY else f" with --eval-only --model-dir {printable(folder)}{of_epoch}"
    return f"It has no {LOGITS}, which a test writes. Test again{same_model}, into another --output-dir."


def write_by_image(names: Sequence[str], trainer, answers: Answers) -> None:
    """Writes the files `names`, which have an entry for each image."""
    folder = Path(trainer.cfg.OUTPUT_DIR)
    images, why_not = tested_images(trainer, answers)
    if names and why_not:
        logger.info("Not written: %s, since %s", ", ".join(names), why_not)
        return
    if PREDICTIONS in names:
        write_predictions(folder / PREDICTIONS, answers, images, trainer.lab2cname)
    if LOGITS in names:
        write_logits(folder / LOGITS, answers, images)


def write_confusion(folder: Path, answers: Answers, classnames: Sequence[str]) -> None:
    """Writes the confusion matrix as a table and as a picture."""
    counts = confusion_counts(answers.labels, answers.predictions, len(classnames))
    write_table(folder / CONFUSION_TABLE, counts, classnames)
    draw_confusion(folder / CONFUSION_PICTURE, counts, classnames)


def tested_images(trainer, answers: Answers) -> tuple[list[str], str]:
    """Returns the paths of the images that answers are of, under DATASET.ROOT; or why they are not known, else ""."""
    cfg = trainer.cfg
    items = items_in_order(trainer.val_loader if cfg.TEST.SPLIT == "val" else trainer.test_loader)
    if items is None:
        return [], f"the order of {type(trainer).__name__}'s own loader of test images is not known."
    if [item.label for item in items] != answers.labels.tolist():
        return [], f"the labels that {type(trainer).__name__} has tested on are not those of the test items in order."
    return [path_under(cfg.DATASET.ROOT, item.impath) for item in items], ""


@torch.no_grad()
def temperature_of(trainer) -> float | None:
    """Returns the temperature that fits the data set's selection items best; None without one, and the log says why.

    They are classified for it once more, by the model that was tested and under the test transform.

    Args:
        trainer: After its test.
    """
    if not trainer.results or not trainer.cfg.TEST.TEMPERATURE:
        return None
    temperature, why_not = None, why_no_temperature(trainer)
    if not why_not:
        try:
            temperature = fit_temperature(*classify_selection(trainer))
            why_not = "" if temperature else "none is better for the selection items than all others."
        except (BrokenImageError, MissingImageError) as error:
            why_not = f"a selection image cannot be read. {error}"
            trainer.warnings.add(f"No temperature is fitted: {why_not}")
    if why_not:
        logger.info("No temperature: %s", why_not)
    else:
        logger.info("Temperature: %.4f, fitted on %s items", temperature, f"{len(trainer.dm.dataset.selection):,}")
    return temperature


def why_no_temperature(trainer) -> str:
    """Returns why a temperature of the selection items would say nothing of other images; "" where it does."""
    cfg, dataset = trainer.cfg, trainer.dm.dataset
    if sum("test" in vars(base) for base in type(trainer).__mro__) > 1:  # not that of all trainers alone
        return f"{type(trainer).__name__} has a test of its own, whose logits may be others."
    selection = {item.impath for item in dataset.selection}
    if not selection or not hasattr(trainer.dm, "selection_loader"):
        return "the data set has no selection items."
    tested = (*dataset.test, *getattr(dataset, cfg.TEST.SPLIT))
    if not selection.isdisjoint(item.impath for item in tested):
        return "some selection items are tested on."
    is_trained = not cfg.RUN.EVAL_ONLY or cfg.RUN.MODEL_DIR
    if is_trained and not selection.isdisjoint(item.impath for item in dataset.train_x):
        return "some selection items are trained on."
    return ""


def classify_selection(trainer) -> tuple[np.ndarray, np.ndarray]:
    """Returns the logits (N, C) float32 and labels (N,) of the selection items.

    Raises:
        BrokenImageError, MissingImageError: If one cannot be read; on all ranks alike.
    """
    cfg, paths = trainer.cfg, [item.impath for item in trainer.dm.dataset.selection]
    if n_ranks() > 1 and cfg.INPUT.ON_BAD_IMAGE == "error":  # a rank that stopped alone would leave the others waiting
        bad = find_bad(paths[share(len(paths))], count_workers(cfg.DATALOADER.NUM_WORKERS))
        for error in sum(gather_objects([*bad.values()]), []):
            raise error
    trainer.set_model_mode("eval")
    with trainer.clock.testing():
        batches = [(logits.float().cpu(), labels.cpu()) for logits, labels in trainer.predictions("selection")]
    return tuple(torch.cat(part).numpy() for part in zip(*batches))
