"""What a method in Dassl's form may define itself, wrapped for the engine: saving, loading, measuring; its errors."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from engine import TrainerX
from engine.checkpoint import BEST, file_to_load, load_checkpoint, saved_epoch

from .class_rows import class_rows


def saving(trainer: TrainerX) -> Callable[..., None]:
    """Returns the method's `save_model`, which the loop may call as the engine's: without a folder, after N epochs."""
    save = trainer.save_model

    def save_in_both_forms(epoch: int, directory: str | Path | None = None, *values, **named) -> None:
        if directory is not None:
            return save(epoch, directory, *values, **named)
        model_name = BEST if named.pop("is_best", False) else ""
        save(epoch - 1, trainer.output_dir, model_name=model_name, **named)

    return save_in_both_forms


def loading(trainer: TrainerX) -> Callable[..., None]:
    """Returns the method's `load_model`, for which None is the best model, with the engine's messages."""
    load = trainer.load_model

    def load_and_keep_epoch(directory: str | Path, epoch: int | None = None) -> None:
        epoch = None if epoch is None or epoch < 0 else epoch
        if not (directory and trainer.models):
            return load(directory, epoch)
        path = Path(directory) / next(iter(trainer.models)) / file_to_load(epoch)
        try:
            with class_rows(trainer, Path(directory), path.name):
                load(directory, epoch)
        except FileNotFoundError:
            load_checkpoint(path)  # says which epochs there are
            raise
        except RuntimeError as error:  # `load_state_dict` on other shapes
            raise ValueError(
                f"The checkpoint {path} does not fit {type(trainer).__name__} ({' '.join(str(error).split())}). Give "
                "the --trainer and the config it was trained with."
            ) from error
        if path.is_file():
            trainer.epochs_done = saved_epoch(load_checkpoint(path), path)

    return load_and_keep_epoch


def ending(trainer: TrainerX) -> Callable[[], None]:
    """Returns the method's `after_train`, before which the results of a validation are forgotten."""
    after_train = trainer.after_train

    def forget_and_end() -> None:
        trainer.results = {}
        after_train()

    return forget_and_end


def measuring(trainer: TrainerX) -> Callable[[], dict[str, Any]]:
    """Returns the evaluator's `evaluate`, whose results are kept for results.json, whoever calls it."""
    evaluate = trainer.evaluator.evaluate

    def evaluate_and_keep() -> dict[str, Any]:
        trainer.results = evaluate()
        return trainer.results

    return evaluate_and_keep


def refusal(name: str, error: Exception, cfg: CN) -> str | None:
    """Returns the message for an option that nothing declares or that the method asserts to be another, else None."""
    if isinstance(error, AssertionError):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{str(error) or frame.line} ({frame.filename}, line {frame.lineno})"
        return f"{name} refuses the config: {what}. Change the key that it names."
    node = getattr(error, "obj", None)
    if isinstance(node, CN):
        key = ".".join([*_path(cfg, node), error.name])
        return (
            f"{name} reads the option {key}, which nothing declares. Give --plugin-config FILE.yaml with its "
            "default, or define extend_cfg(cfg) in the trainer's file."
        )
    return None


def _path(tree: CN, node: CN) -> list[str]:
    """Returns the names that lead to a node of a config; none of one that is elsewhere."""
    for name, child in tree.items():
        if child is node:
            return [name]
        if isinstance(child, CN) and (below := _path(child, node)):
            return [name, *below]
    return []
