"""Checkpoints, files, seeds, meters: what files written for Dassl import under this name."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import engine
from engine import load_checkpoint, log, set_random_seed
from engine.data.image_io import read_image
from engine.files import write_atomically

__all__ = [
    "AverageMeter",
    "MetricMeter",
    "Registry",
    "check_isfile",
    "collect_env_info",
    "count_num_param",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "save_checkpoint",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "write_json",
]


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
    engine.save_checkpoint(state, save_dir, file_name=model_name or None)
    if is_best:
        engine.save_checkpoint(state, save_dir, is_best=True)


def count_num_param(model: nn.Module | None = None, params: nn.Parameter | list | None = None) -> int:
    """Returns the number of values in a model's parameters, or in those given (as an optimiser takes them)."""
    if params is None:
        return sum(parameter.numel() for parameter in model.parameters())
    groups = [group["params"] if isinstance(group, dict) else group for group in tolist_if_not(params)]
    return sum(parameter.numel() for group in groups for parameter in tolist_if_not(group))


def setup_logger(output: str | Path | None = None) -> None:
    """Sends log lines to the terminal and to log.txt in a folder, or in that of the .txt file that is given."""
    if output:
        path = Path(output)
        log.setup_logging(path.parent if path.suffix == ".txt" else path)


def collect_env_info() -> str:
    """Returns one line on the software and hardware."""
    return log.environment()


class Registry(engine.Registry):
    """Classes by name."""

    def __init__(self, name: str):
        super().__init__(name, contract="")


class AverageMeter(log.AverageMeter):
    """The last value `val` and the mean `avg`."""

    @property
    def val(self) -> float:
        return self.value

    @property
    def avg(self) -> float:
        return self.average


class MetricMeter:
    """Meters by name; takes numbers and tensors of one value."""

    def __init__(self, delimiter: str = " "):
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: dict[str, float | Tensor]) -> None:
        """Adds one value to each named meter."""
        for name, value in input_dict.items():
            self.meters[name].update(value.item() if isinstance(value, Tensor) else value)

    def __str__(self) -> str:
        return self.delimiter.join(f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items())


def mkdir_if_missing(dirname: str | Path) -> None:
    """Makes a folder and those above it."""
    Path(dirname).mkdir(parents=True, exist_ok=True)


def check_isfile(fpath: str | Path) -> bool:
    """Says whether a file is there."""
    return Path(fpath).is_file()


def read_json(fpath: str | Path) -> Any:
    """Returns the content of a JSON file."""
    return json.loads(Path(fpath).read_text(encoding="utf-8"))


def write_json(obj: Any, fpath: str | Path) -> None:
    """Writes a JSON file, and its folder if need be."""
    text = json.dumps(obj, indent=4, separators=(",", ": "))
    write_atomically(Path(fpath), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def listdir_nohidden(path: str | Path, sort: bool = False) -> list[str]:
    """Returns the names in a folder that do not begin with a dot."""
    names = [entry.name for entry in Path(path).iterdir() if not entry.name.startswith(".")]
    return sorted(names) if sort else names


def tolist_if_not(x: Any) -> list:
    """Returns a list as it is, an iterable of another kind as a list, anything else as a list of one."""
    if isinstance(x, list):
        return x
    return list(x) if hasattr(x, "__iter__") and not isinstance(x, (str, nn.Parameter, Tensor)) else [x]
