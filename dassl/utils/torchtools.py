"""Checkpoints and parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

import engine
from engine import load_checkpoint
from engine.checkpoint import MARKER, newest_checkpoint
from engine.files import missing_path
from engine.optim import plain_state, restore_schedule

from .tools import tolist_if_not


def load_pretrained_weights(model: nn.Module, weight_path: str | Path) -> None:
    """Starts `model` from a checkpoint: entries whose name and shape fit are copied.

    Differs from the original: a prompt learner's `token_prefix` and `token_suffix` are not copied; there, other class
    names came with them wherever their number was the same.
    """
    engine.load_pretrained_weights(model, weight_path, ignored=("token_prefix", "token_suffix"))


def save_checkpoint(
    state: dict[str, Any],
    save_dir: str | Path,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Writes `state` under the name of its epoch, or another, and as the best model too if it is."""
    if remove_module_from_keys:  # what nn.DataParallel puts before them
        weights = {key.removeprefix("module."): value for key, value in state["state_dict"].items()}
        state = {**state, "state_dict": weights}
    state = {**state, "scheduler": plain_state(state.get("scheduler"))}  # Dassl's hold others, with their optimisers
    engine.save_checkpoint(state, save_dir, file_name=model_name or None)
    if is_best:
        engine.save_checkpoint(state, save_dir, is_best=True)


def resume_from_checkpoint(
    fdir: str | Path, model: nn.Module, optimizer: Optimizer | None = None, scheduler: Any = None
) -> int:
    """Restores a model, its optimiser and its schedule from the newest checkpoint in a folder.

    Returns:
        After how many epochs it was saved.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = newest_checkpoint(fdir)
    if path is None:
        raise FileNotFoundError(missing_path(Path(fdir, MARKER), "The checkpoint", "Name a folder that holds one."))
    checkpoint = load_checkpoint(path)
    model.load_state_dict(checkpoint["state_dict"])
    if optimizer is not None and checkpoint.get("optimizer"):
        optimizer.load_state_dict(checkpoint["optimizer"])
    if scheduler is not None and checkpoint.get("scheduler"):
        restore_schedule(scheduler, checkpoint["scheduler"], checkpoint["epoch"])
    return checkpoint["epoch"]


def count_num_param(model: nn.Module | None = None, params: nn.Parameter | list | None = None) -> int:
    """Returns the number of values in a model's parameters, or in those given (as an optimiser takes them)."""
    if params is None:
        return sum(parameter.numel() for parameter in model.parameters())
    groups = [group["params"] if isinstance(group, dict) else group for group in tolist_if_not(params)]
    return sum(parameter.numel() for group in groups for parameter in tolist_if_not(group))
