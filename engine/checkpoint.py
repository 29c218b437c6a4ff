"""Checkpoints: written whole or not at all, and which of them to go on from where one is not whole.

A file `model.pth.tar-EPOCH` is {"state_dict", "epoch", "optimizer", "scheduler", "val_result", "scaler", "random",
"time_s", "testing_s"} and what the method adds ("trainer", "classnames", "data_sha256"); the text file `checkpoint`
beside it names the newest one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .distributed import is_first_rank
from .files import missing_path, write_atomically
from .text import printable, shorten
from .torch_files import UnreadableError, read_torch_file, write_torch_file

BEST = "model-best.pth.tar"
MARKER = "checkpoint"

logger = logging.getLogger(__name__)


def checkpoint_name(epoch: int) -> str:
    """Returns the file name of the checkpoint after `epoch` epochs."""
    return f"model.pth.tar-{epoch}"


def file_to_load(epoch: int | None) -> str:
    """Returns the file name of the checkpoint to load: of an epoch, or for None or a negative one the best."""
    return BEST if epoch is None or epoch < 0 else checkpoint_name(epoch)


def epoch_of(path: Path) -> int | None:
    """Returns the epoch in a checkpoint's file name, None for the best model's."""
    match = re.fullmatch(r"model\.pth\.tar-(\d+)", path.name)
    return int(match[1]) if match else None


def saved_epoch(checkpoint: dict[str, Any], path: Path) -> int | None:
    """Returns after how many epochs a checkpoint was saved; None if neither it nor its file's name says it."""
    epoch = checkpoint.get("epoch")
    return epoch if type(epoch) is int and epoch >= 0 else epoch_of(path)


def save_checkpoint(
    state: dict[str, Any], folder: str | Path, *, is_best: bool = False, file_name: str | None = None
) -> Path:
    """Writes `state` to `folder`, of several ranks the first, and returns the file's path.

    Args:
        state: What is saved, with "epoch".
        folder: Made if need be.
        is_best: Whether it is saved as the best model, not under the name of its epoch.
        file_name: Another name; only a checkpoint named after its epoch is one to resume from.

    Raises:
        OSError: If the disk is full or may not be written to; earlier checkpoints are as they were.
    """
    path = Path(folder) / (file_name or (BEST if is_best else checkpoint_name(state["epoch"])))
    if not is_first_rank():
        return path
    write_torch_file(state, path)
    if path.name == checkpoint_name(state["epoch"]):
        write_atomically(path.with_name(MARKER), lambda temporary: temporary.write_text(f"{path.name}\n"))
    return path


def saved_checkpoints(folder: str | Path) -> list[Path]:
    """Returns the checkpoints in `folder` to resume from: the one that the file `checkpoint` names, then by epoch."""
    folder = Path(folder)
    marker, epochs = folder / MARKER, _saved_epochs(folder)
    paths = [folder / checkpoint_name(epoch) for epoch in sorted(epochs, reverse=True)]
    if not marker.is_file():
        return paths
    name = marker.read_text(encoding="utf-8", errors="replace").strip()
    named = folder / Path(name).name  # never outside of the folder
    if not os.path.isfile(named):  # Path's raises where a name is too long for a file
        logger.warning(f"{marker} names {shorten(name)}, which is not there: what was saved before it is used.")
        return paths
    return [named, *(path for path in paths if path != named)]


def newest_checkpoint(folder: str | Path) -> Path | None:
    """Returns the newest checkpoint in `folder` that one can resume from, None if there is none."""
    return next(iter(saved_checkpoints(folder)), None)


def newest_whole(paths: Iterable[Path]) -> tuple[Path, dict[str, Any]] | None:
    """Returns the first of `paths` that is whole and what it holds, None if none is.

    Args:
        paths: Checkpoints, the newest first. One that is not there is passed over; of one that is not whole, or asks
            for more than tensors and plain values, a warning tells.
    """
    for path in filter(Path.is_file, paths):
        try:
            return path, _read(path)
        except UnreadableError as error:
            logger.warning(f"{error.args[0]} What was saved before it is used.")
    return None


def model_sha256(folder: str | Path, epoch: int | None = None) -> str | None:
    """Returns the sha256 of the file from which a run's model is loaded, of several one after another; None for none.

    Args:
        folder: The run's folder.
        epoch: After how many epochs; None or negative: the best model.
    """
    files = sorted(Path(folder).glob(f"*/{file_to_load(epoch)}"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU: tensors and plain values, nothing else.

    Raises:
        FileNotFoundError: If there is no such file; the message names the epochs there are.
        ValueError: If the file is cut short or altered, asks for more, is not a checkpoint, or holds NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(missing_path(path, "The checkpoint", _choice(_saved_epochs(path.parent))))
    checkpoint = _read(path)
    if "state_dict" not in checkpoint:
        raise ValueError(f"The checkpoint {path} has no `state_dict`, expected a file that training saved.")
    for name, value in checkpoint["state_dict"].items():
        if value.is_floating_point() and value.float().isnan().any():
            raise ValueError(
                f"The checkpoint {path} has NaN in `{printable(name)}`, expected numbers alone. Its training diverged: "
                "name another one, or train with a lower OPTIM.LR."
            )
    return checkpoint


def _read(path: Path) -> dict[str, Any]:
    checkpoint = read_torch_file(path, "The checkpoint")
    if not all(map(_is_plain_dict, _state_dicts(checkpoint))):
        raise UnreadableError(
            f"The checkpoint {path} has no `state_dict` of tensors by name, expected a file that training saved.",
            "Name another one.",
        )
    return checkpoint


def _state_dicts(checkpoint: Any) -> list[Any]:
    """Returns what stands for the state dict, of a state to resume from for that of each model; None for one."""
    models = checkpoint.get("models", {}) if isinstance(checkpoint, dict) else None
    parts = [checkpoint, *models.values()] if isinstance(models, dict) else [None]
    return [part.get("state_dict", {}) if isinstance(part, dict) else None for part in parts]


def _is_plain_dict(state_dict: Any) -> bool:
    """Says whether it is tensors by name."""
    return isinstance(state_dict, dict) and all(isinstance(k, str) and _is_plain(v) for k, v in state_dict.items())


def _is_plain(value: Any) -> bool:
    """Says whether a value is a tensor that a module may hold: dense, and with numbers in it."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_quantized)


def _saved_epochs(folder: Path) -> list[int]:
    return sorted(epoch for file in folder.glob("*") if (epoch := epoch_of(file)) is not None and file.is_file())


def _choice(epochs: list[int]) -> str:
    if epochs:
        return f"Saved epochs: {', '.join(map(str, epochs))}; choose one with --load-epoch."
    return "Train first, or check --model-dir."


def load_pretrained_weights(model: nn.Module, path: str | Path, *, ignored: Iterable[str] = ()) -> None:
    """Starts `model` from the checkpoint at `path`: entries whose name and shape fit are copied, not `ignored` ones.

    Raises:
        ValueError: If no entry fits.
    """
    checkpoint = load_checkpoint(path)
    own = {name: value for name, value in model.state_dict().items() if name not in ignored}
    fitting = {k: v for k, v in checkpoint["state_dict"].items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise ValueError(
            f"No entry of {path} fits the model: it has {_shapes(checkpoint['state_dict'])}, expected {_shapes(own)}."
        )
    model.load_state_dict(fitting, strict=False)
    left = printable(", ".join(sorted(own.keys() - fitting.keys()))) or "nothing"
    logger.info("Start from %s: %s; as it starts otherwise: %s", path, printable(", ".join(sorted(fitting))), left)


def _shapes(state_dict: dict[str, torch.Tensor]) -> str:
    return printable(", ".join(f"{name} {tuple(value.shape)}" for name, value in list(state_dict.items())[:4]))
