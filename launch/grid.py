"""Values of config keys that are compared on validation items: the axes, the folders of the runs, the choice."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from statistics import fmean

from engine.config.flags import parse_args, setup_cfg
from engine.config.load import ConfigError
from engine.registry import DATASET_REGISTRY

from .workers import Job

Values = tuple[tuple[str, str], ...]  # config key and value, one for each axis
GridKey = tuple[int, Values, int]  # shots, values, seed
Accuracies = Mapping[GridKey, float | str]  # in percent, or a word for a run without one

VALIDATION = ("TEST.SPLIT", "val")
CONFIG_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)*")


def axes_error(axes: Sequence[Sequence[str]], set_by: Mapping[str, str]) -> str:
    """Returns what is wrong with the axes of --grid, each a key and its values; "" for nothing.

    Args:
        axes: The axes.
        set_by: Key -> what else sets it.
    """
    for key, *values in axes:
        said = f"--grid {' '.join([key, *values])}"
        pairs = [value for value in values if CONFIG_KEY.fullmatch(value) and "." in value]
        if pairs:
            return f"{said}: {pairs[0]} is a key. Put KEY VALUE pairs behind another flag, or behind --."
        if not CONFIG_KEY.fullmatch(key) or not values:
            return f"{said}: an axis is a config key and its values, such as --grid OPTIM.LR 0.002 0.02."
        if key in set_by:
            return f"{said}: {set_by[key]} sets {key}. Leave one of them out."
    keys = [key for key, *_ in axes]
    if len(set(keys)) < len(keys):
        return f"--grid has {' '.join(keys)}. Give each key once, with all its values."
    return ""


def combinations(axes: Sequence[Sequence[str]]) -> list[Values]:
    """Returns every combination of the axes' values."""
    return list(itertools.product(*([(key, value) for value in values] for key, *values in axes)))


def grid_folder(split: str, values: Values) -> str:
    """Returns the folder between an experiment's and the seeds', such as val/OPTIM.LR=0.002,OPTIM.MAX_EPOCH=20."""
    return f"{split}/{','.join(f'{key}={value}' for key, value in values).replace('/', '_')}"


def require_validation(job: Job) -> None:
    """Looks for items to choose by.

    Raises:
        ConfigError: There are none, or they are tested on too.
    """
    cfg = setup_cfg(parse_args(list(job.argv)))
    cfg.freeze()
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
    paths, tested = ({item.impath for item in items} for items in (dataset.val, dataset.test))
    if not paths or paths & tested:
        said = "has no validation items" if not paths else "validates on its test items"
        raise ConfigError(
            f"--grid chooses by validation items, but {cfg.DATASET.NAME} {said}. Choose the values on another data "
            "set, or run them without --grid and say that the test items have chosen."
        )


def best_values(validated: Accuracies, shots: int, seeds: Sequence[int]) -> Values | None:
    """Returns the values with the highest mean accuracy, of equal ones the first; None where no value has all seeds."""
    means = {}
    for values in dict.fromkeys(values for _, values, _ in validated):
        found = [validated[shots, values, seed] for seed in seeds]
        if all(isinstance(accuracy, float) for accuracy in found):
            means[values] = fmean(found)
    return max(means, key=means.get, default=None)
