"""What a method in Dassl's form loads by itself: of what is learned for each class, only the data set's classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from engine import TrainerX
from engine.checkpoint import load_checkpoint
from engine.data.class_rows import OtherClassesError, is_same
from engine.files import naming

StateDict = dict[str, Tensor]


@contextmanager
def class_rows(trainer: TrainerX, folder: Path, file_name: str) -> Iterator[None]:
    """Until its end, the models load the rows of the data set's classes from the checkpoints of a run.

    Raises:
        ValueError: If a model then holds what was learned for other classes; what the method leaves out is not missed.
    """
    refused = []
    with ExitStack() as hooks:
        for name, model in trainer.models.items():
            path = folder / name / file_name
            if not path.is_file():
                continue  # the method says so, or loads another one
            checkpoint = load_checkpoint(path)
            found, own = checkpoint["state_dict"], model.state_dict()
            with naming(path):
                try:
                    trainer.warnings.add(trainer.class_rows().fit(checkpoint, own, path))
                except OtherClassesError as error:
                    foreign = {key: found[key] for key in error.names if not is_same(found[key], own[key])}
                    refused.append((path, error, model, foreign))
            if taken := _taken(checkpoint, found):
                hook = model.register_load_state_dict_pre_hook(partial(_put, taken, found))
                hooks.callback(hook.remove)
        try:
            yield
        except RuntimeError:  # other shapes
            for path, error, *_ in refused:
                with naming(path):
                    raise error from None
            raise
    for path, error, model, foreign in refused:
        if _held(model.state_dict(), foreign):
            with naming(path):
                raise error


def warnings_of_start(trainer: TrainerX, path: str) -> list[str]:
    """Returns what to be warned of where `build_model` has started the models from a checkpoint by itself."""
    try:
        start = load_checkpoint(path) if path else {}
    except (OSError, ValueError):  # of a form, or below a path, that the method alone knows
        return []
    warnings = []
    for name, model in trainer.models.items() if start else ():
        checkpoint, own, found = {**start}, model.state_dict(), start["state_dict"]
        try:
            warnings.append(trainer.class_rows().fit(checkpoint, own, Path(path), is_loaded=True))
            foreign = _taken(checkpoint, found)
        except OtherClassesError as error:
            foreign = error.names
        if held := _held(own, {key: found[key] for key in foreign}):
            warnings.append(
                f"MODEL.INIT_WEIGHTS {path} was learned for other classes, and {name} has started each class from one "
                f"of them ({', '.join(sorted(held))}). Start from a checkpoint of the same classes."
            )
    return warnings


def _taken(checkpoint: dict[str, Any], found: StateDict) -> StateDict:
    """Returns the tensors of which rows were taken."""
    return {key: value for key, value in checkpoint["state_dict"].items() if value is not found[key]}


def _put(taken: StateDict, found: StateDict, _: nn.Module, state_dict: StateDict, prefix: str, *__: Any) -> None:
    for key, value in taken.items():
        if prefix + key in state_dict and state_dict[prefix + key].shape == found[key].shape:
            state_dict[prefix + key] = value


def _held(own: StateDict, found: StateDict) -> list[str]:
    """Returns the names of the tensors that a model has as they were found."""
    return [key for key, value in found.items() if is_same(value, own[key])]
