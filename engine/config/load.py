"""Reading configs: YAML files with `_BASE_`, KEY VALUE pairs, the checks before a run, what makes two runs the same.

Every function that reads or checks returns the errors it found; `require` raises them together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from ..data.transforms import check_input
from ..files import missing_path
from ..registry import DATASET_REGISTRY, EVALUATOR_REGISTRY, TRAINER_REGISTRY, near_name
from ..text import printable, shorten
from .defaults import AT_LEAST, NOT_IN_DIGEST, OPTIONS, PATHS, REFUSED, get_cfg_default
from .plain_yaml import MAX_BYTES, dump_plain_yaml, load_plain_yaml, why_unreadable

# What plug-ins add to the default config: functions that are called with it, in this order.
CONFIG_EXTENSIONS: ContextVar[tuple[Callable[[CN], None], ...]] = ContextVar("CONFIG_EXTENSIONS", default=())


class ConfigError(ValueError):
    """All that is wrong with a config, one line each."""


def require(errors: list[str]) -> None:
    """Raises ConfigError with all `errors`, if there are any."""
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        raise ConfigError("\n".join([f"The config has {count}:", *(f"  - {error}" for error in errors)]))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file over the one that its `_BASE_` names (a path relative to the file).

    Returns:
        The merged file as flat keys: {"OPTIM.LR": 0.002, ...}.

    Raises:
        ConfigError: If the file or a base is missing, is not plain YAML, or the bases form a circle.
    """
    return _read_yaml(Path(path), ())


def _read_yaml(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    resolved = path.resolve()
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"The config file is {path}, expected a .yaml file. Python config files are not run.")
    if not path.is_file():
        message = missing_path(path, "The config file", "See configs/ for the files there are.")
        raise ConfigError(message + near_name(path.name, (other.name for other in path.parent.glob("*.yaml"))))
    if resolved in above:
        raise ConfigError(f"The config file {path} is its own _BASE_ in the end. Remove one of the _BASE_ lines.")
    try:
        tree = load_plain_yaml(path) or {}
    except ValueError as error:
        raise ConfigError(f"The config file {path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"The config file {path} holds a {type(tree).__name__}, expected KEY: VALUE lines.")
    base = tree.pop("_BASE_", None)
    if base is not None and not (isinstance(base, str) and base.isprintable()):
        raise ConfigError(f"The config file {path}: _BASE_ is {shorten(base)}, expected the path of one file.")
    values = _read_yaml(path.parent / base, (*above, resolved)) if base else {}
    return {**values, **flatten(tree)}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested config as {"A.B": value}, in its own order."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def merge(cfg: CN, values: dict[str, Any], place: str) -> list[str]:
    """Sets the keys of `values` in `cfg`; strings are read as Python literals where they are one, as yacs does.

    Args:
        cfg: The config, changed in place.
        values: Flat keys and their values.
        place: Where the values come from; names them in the errors.

    Returns:
        An error for every unknown key and every value of another type than the default's.
    """
    known, errors = flatten(cfg), []
    for key, value in values.items():
        if key not in known:
            errors.append(f"{place}: the key {printable(key)} is unknown.{near_name(key, known)}")
            continue
        try:
            cfg.merge_from_list([key, _prepare(value, known[key])])
        except (ValueError, OverflowError, RecursionError, MemoryError):  # the last three: of literals without end
            expected = f"a value of type {type(known[key]).__name__} such as {known[key]!r}"
            errors.append(f"{place}: {key} is {shorten(value)}, expected {expected}.")
    return errors


def _prepare(value: Any, default: Any) -> Any:
    """Returns a value for yacs, which reads strings as literals, takes no int for a float, and None for anything.

    Raises:
        ValueError: If it is None, or looks like a whole number and is none.
    """
    if isinstance(default, str) and isinstance(value, str) and not value.startswith(("'", '"')):
        return repr(value)  # a text stays one, even where it could be read as a number
    if value in (None, "None"):
        raise ValueError
    return float(value) if isinstance(default, float) and _is_int(value) else value


def _is_int(value: Any) -> bool:
    if isinstance(value, str):
        return value.lstrip("+-").isdecimal()
    return isinstance(value, int) and not isinstance(value, bool)


def check_cfg(cfg: CN) -> list[str]:
    """Returns an error for every value that no run can use: refused keys, unknown names, numbers out of range."""
    changed, values = changed_keys(cfg), flatten(cfg)
    errors = [
        f"{key} is {values[key]!r}, expected its default. {why}" for key, why in REFUSED.items() if key in changed
    ]
    for key, options in OPTIONS.items():
        if values[key] not in options:
            hint = near_name(str(values[key]), options)
            errors.append(f"{key} is {values[key]!r}, expected one of: {', '.join(options)}.{hint}")
    errors += [
        f"{key} is {values[key]}, expected at least {least}."
        for key, least in AT_LEAST.items()
        if not values[key] >= least  # so that it is no NaN either
    ]
    if not cfg.OPTIM.STEPSIZE or not all(isinstance(step, int) for step in cfg.OPTIM.STEPSIZE):
        errors.append(f"OPTIM.STEPSIZE is {cfg.OPTIM.STEPSIZE}, expected numbers of epochs. (-1,) means MAX_EPOCH.")
    if not cfg.MODEL.BACKBONE.NAME:
        errors.append("MODEL.BACKBONE.NAME is empty, expected a CLIP's name or path. Give --config-file or --backbone.")
    if cfg.TRAINER.NAME not in TRAINER_REGISTRY:
        errors.append(f"{TRAINER_REGISTRY.unknown(cfg.TRAINER.NAME)} One outside trainers/ is named by --plugin.")
    if cfg.DATASET.NAME not in DATASET_REGISTRY:
        errors.append(f"{DATASET_REGISTRY.unknown(cfg.DATASET.NAME)} One outside datasets/ is named by --plugin.")
    if cfg.TEST.EVALUATOR not in EVALUATOR_REGISTRY:
        errors.append(EVALUATOR_REGISTRY.unknown(cfg.TEST.EVALUATOR))
    errors += check_input(cfg.INPUT) + _check_run(cfg) + _check_text(cfg, changed)
    if cfg.TRAINER.NAME in TRAINER_REGISTRY:
        errors += TRAINER_REGISTRY.get(cfg.TRAINER.NAME).config_errors(cfg)
    return errors


def _check_run(cfg: CN) -> list[str]:
    """Returns an error for every flag that this kind of call would leave unused."""
    run, errors = cfg.RUN, []
    if run.EVAL_ONLY and cfg.RESUME:
        errors.append(f"--resume is {cfg.RESUME}, expected none with --eval-only. Give --model-dir and --load-epoch.")
    if run.EVAL_ONLY and cfg.TEST.NO_TEST:
        errors.append("TEST.NO_TEST is True, expected False with --eval-only, which does nothing but test.")
    if run.MODEL_DIR and not run.EVAL_ONLY:
        errors.append(
            f"--model-dir is {run.MODEL_DIR}, expected none in training. Add --eval-only to test that model, or give "
            "--resume to go on with its training, or MODEL.INIT_WEIGHTS to start from it."
        )
    if run.LOAD_EPOCH >= 0 and not run.MODEL_DIR:
        errors.append(f"--load-epoch is {run.LOAD_EPOCH}, expected --model-dir with it. Name the run to load from.")
    if Path(cfg.OUTPUT_DIR).is_file():
        errors.append(f"--output-dir is {cfg.OUTPUT_DIR}, which is a file, expected a folder. Name another one.")
    if cfg.INPUT.VIEWS and (n := cfg.DATALOADER.K_TRANSFORMS) > 1:
        errors.append(f"DATALOADER.K_TRANSFORMS is {n}, expected 1 with INPUT.VIEWS. Leave one of them out.")
    return errors


def _check_text(cfg: CN, changed: dict[str, Any]) -> list[str]:
    """Returns an error for every value that could be written to config.yaml, but not be read again."""
    n_bytes = len(dump_plain_yaml(cfg))  # ASCII
    found = [(f"{key} is {shorten(value)}", why_unreadable({key: value})) for key, value in changed.items()]
    if n_bytes > MAX_BYTES:
        found.append(("The config is large", f"it has {n_bytes:,} bytes, expected at most {MAX_BYTES:,}"))
    remedy = "Shorten it, or have the plug-in read it from a file."
    return [f"{what}, which config.yaml cannot hold: {why}. {remedy}" for what, why in found if why]


def full_default(*, with_plugins: bool = True) -> CN:
    """Returns the default config with the options of every registered trainer, those of plug-ins last."""
    cfg, layers = get_cfg_default(), TRAINER_REGISTRY.layers()
    for layer in layers if with_plugins else layers[:1]:
        for name in sorted(layer):
            layer[name].add_config(cfg)
    for extend in CONFIG_EXTENSIONS.get() if with_plugins else ():
        extend(cfg)
    return cfg


def changed_keys(cfg: CN) -> dict[str, Any]:
    """Returns the keys of `cfg` whose values are not the defaults, and all keys that plug-ins declare."""
    default = flatten(full_default(with_plugins=False))
    return {key: value for key, value in flatten(cfg).items() if value != default.get(key)}


def settle_paths(cfg: CN) -> None:
    """Writes each path in one way, however it was typed: relative below the current folder, absolute elsewhere."""
    values = flatten(cfg)
    for key in PATHS:
        if values[key] and (key != "MODEL.BACKBONE.NAME" or Path(values[key]).is_file()):
            cfg.merge_from_list([key, repr(_settled(values[key]))])
    plugins = tuple(_settled(name) if name.endswith(".py") else name for name in cfg.RUN.PLUGINS)
    cfg.merge_from_list(["RUN.PLUGINS", plugins])


def _settled(path: str) -> str:
    path = os.path.abspath(os.path.expanduser(path))
    below = os.path.commonpath([path, os.getcwd()]) == os.getcwd()
    return os.path.relpath(path) if below else path


def identity(cfg: CN) -> dict[str, Any]:
    """Returns the changed keys that decide what a run computes.

    Values at their default are left out, so a key that a later version adds leaves old runs the same.
    """
    left_out = set(NOT_IN_DIGEST)
    if cfg.TRAINER.NAME in TRAINER_REGISTRY:  # a run that is read may be of a plug-in that is not there
        left_out |= set(TRAINER_REGISTRY.get(cfg.TRAINER.NAME).not_in_identity)
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME) if cfg.DATASET.NAME in DATASET_REGISTRY else None
    if getattr(dataset, "root_is_identity", False):
        left_out.discard("DATASET.ROOT")
    return {key: value for key, value in changed_keys(cfg).items() if key not in left_out}


def config_digest(cfg: CN) -> str:
    """Returns the sha256, in hexadecimal, of what a run computes."""
    return hashlib.sha256(json.dumps(identity(cfg), sort_keys=True).encode()).hexdigest()
