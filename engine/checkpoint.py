"""Checkpoints: written whole or not at all, read without running what they hold.

A file `model.pth.tar-EPOCH` is {"state_dict", "epoch", "optimizer", "scheduler", "val_result", "scaler"} and what the
method adds ("trainer", "classnames"); the text file `checkpoint` beside it names the newest one.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from .distributed import is_first_rank
from .files import missing_path, write_atomically

BEST = "model-best.pth.tar"


def checkpoint_name(epoch: int) -> str:
    """Returns the file name of the checkpoint after `epoch` epochs."""
    return f"model.pth.tar-{epoch}"


def epoch_of(path: Path) -> int | None:
    """Returns the epoch in a checkpoint's file name, None for the best model's."""
    match = re.fullmatch(r"model\.pth\.tar-(\d+)", path.name)
    return int(match[1]) if match else None


def save_checkpoint(
    state: dict[str, Any], folder: str | Path, *, is_best: bool = False, file_name: str | None = None
) -> Path:
    """Writes `state` to `folder`, of several ranks the first, and returns the file's path.

    Args:
        state: What is saved, with "epoch".
        folder: Made if need be.
        is_best: Whether it is saved as the best model, not under the name of its epoch.
        file_name: Another name; only a checkpoint named after its epoch is one to resume from.
    """
    folder = Path(folder)
    path = folder / (file_name or (BEST if is_best else checkpoint_name(state["epoch"])))
    if not is_first_rank():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: torch.save(state, temporary))
    if path.name == checkpoint_name(state["epoch"]):
        write_atomically(folder / "checkpoint", lambda temporary: temporary.write_text(f"{path.name}\n"))
    return path


def newest_checkpoint(folder: str | Path) -> Path | None:
    """Returns the checkpoint that the file `checkpoint` in `folder` names, None if there is no such file."""
    marker = Path(folder) / "checkpoint"
    return marker.parent / marker.read_text().strip() if marker.is_file() else None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Only tensors and plain values are built; any other object in the file (the original stored its schedulers)
    becomes an inert placeholder.

    Raises:
        FileNotFoundError: If there is no such file; the message names the epochs there are.
        ValueError: If the file is cut short or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(missing_path(path, "The checkpoint", _saved_epochs(path.parent)))
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_plain_pickle)
    except Exception as error:
        raise ValueError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}: {error}), expected a whole file as "
            "training saves it. It may be cut short: delete it and train again, or load another epoch."
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"The checkpoint {path} has no `state_dict`, expected a file that training saved.")
    return checkpoint


def _saved_epochs(folder: Path) -> str:
    epochs = sorted(epoch for file in folder.glob("*") if (epoch := epoch_of(file)) is not None)
    if epochs:
        return f"Saved epochs: {', '.join(map(str, epochs))}; choose one with --load-epoch."
    return "Train first, or check --model-dir."


class _Placeholder:
    """Stands for an object of a class that checkpoints have no business with."""

    def _take(self, *args, **kwargs):
        pass

    # All that unpickling does to an object: call, state, entries of a dict, of a list, of a set.
    __init__ = __call__ = __setstate__ = __setitem__ = append = extend = add = update = _take


class _PlainUnpickler(pickle.Unpickler):
    """Builds tensors and containers; never imports or calls anything else."""

    ALLOWED = {
        ("collections", "OrderedDict"), ("collections", "defaultdict"), ("collections", "Counter"),
        ("builtins", "set"), ("builtins", "dict"), ("builtins", "int"), ("builtins", "float"), ("builtins", "complex"),
        ("torch", "Size"), ("torch", "device"), ("torch.serialization", "_get_layout"),
        ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_parameter"), ("torch.nn.parameter", "Parameter"),
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        is_storage = module in ("torch", "torch.storage") and name.endswith("Storage")
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) in self.ALLOWED or is_storage or is_dtype:
            return super().find_class(module, name)
        return _Placeholder


_plain_pickle = SimpleNamespace(
    __name__="plain_pickle",
    Unpickler=_PlainUnpickler,
    load=lambda file, **options: _PlainUnpickler(file, **options).load(),
    UnpicklingError=pickle.UnpicklingError,
)


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


def _shapes(state_dict: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in list(state_dict.items())[:4])
