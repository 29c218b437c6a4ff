"""Reading configs: YAML files with `_BASE_`, KEY VALUE pairs, and the checks before a run.

A function that reads or checks returns all the errors that it finds; `require` raises them together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode as CN

from ..files import existing_part, missing_path
from ..registry import DATASET_REGISTRY, EVALUATOR_REGISTRY, TRAINER_REGISTRY, near_name
from ..text import printable, shorten
from .defaults import AT_LEAST, LOGGERS, OPTIONS, OTHER_LIBRARIES, PATHS, REFUSED, get_cfg_default

MAX_BYTES = 100_000  # of a config file; reading it takes seconds
MODEL_CONFIGS = ("config.json", "open_clip_config.json")  # in a folder of transformers, of open_clip
PATH_STARTS = ("/", "./", "../", "~")
MAX_LENGTH = 3000  # characters of a value; a path may be long, and Python writes numbers of up to 4,300 digits

# What plug-ins add to the default config: functions that are called with it, in this order.
CONFIG_EXTENSIONS: ContextVar[tuple[Callable[[CN], None], ...]] = ContextVar("CONFIG_EXTENSIONS", default=())


class ConfigError(ValueError):
    """All that is wrong with a config, one line each."""


def require(errors: list[str]) -> None:
    """Raises ConfigError with all `errors`, if there are any."""
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        raise ConfigError("\n".join([f"The config has {count}:", *(f"  - {error}" for error in errors)]))


def read_yaml(path: str | Path, *, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Reads a YAML file on top of the one that its `_BASE_` names, as flat keys: {"OPTIM.LR": 0.002, ...}.

    Args:
        path: The file; its `_BASE_` is relative to it.
        above: The files that it is a base of.

    Raises:
        ConfigError: If the file or a base is missing or not plain YAML, or if a file is its own base.
    """
    path = Path(path)
    resolved = path.resolve()
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"The config file {path} is not a .yaml file. Python config files are not run.")
    if not path.is_file():
        message = missing_path(path, "The config file", "See configs/ for the files there are.")
        there = existing_part(path.absolute())
        missing = path.absolute().relative_to(there).parts[0]  # a misspelt trainer's is its folder
        raise ConfigError(message + near_name(missing, (other.name for other in there.glob("*"))))
    if resolved in above:
        raise ConfigError(f"The config file {path} is its own _BASE_ in the end. Remove one of the _BASE_ lines.")
    tree = _load_plain_yaml(path) or {}
    if not isinstance(tree, dict):
        raise ConfigError(f"The config file {path} holds a {type(tree).__name__}; it must hold KEY: VALUE lines.")
    base = tree.pop("_BASE_", None)
    if base is not None and not (isinstance(base, str) and base.isprintable()):
        raise ConfigError(f"The config file {path}: _BASE_ is {shorten(base)}; it must be the path of one file.")
    values = read_yaml(path.parent / base, above=(*above, resolved)) if base else {}
    return {**values, **flatten(tree)}


def _load_plain_yaml(path: Path) -> Any:
    """Returns what a YAML file holds; it may come from a stranger, so only plain values are read."""
    n_bytes = path.stat().st_size
    if n_bytes > MAX_BYTES:
        raise ConfigError(f"The config file {path} has {n_bytes:,} bytes; at most {MAX_BYTES:,} are read.")
    try:
        return _PlainLoader(path.read_bytes().decode("utf-8")).get_single_data()
    except Exception as error:  # whatever PyYAML raises: the kind depends on what is broken
        reason = str(error) if isinstance(error, yaml.YAMLError) else f"{type(error).__name__}: {error}"
        reason = "\n".join(map(printable, reason.splitlines()))
        raise ConfigError(f"The config file {path} is not valid YAML: {reason}") from error


class _PlainLoader(yaml.SafeLoader):
    """Plain values only: no tag builds an object. Aliases are refused: a few lines can stand for billions of values."""

    def compose_node(self, parent, index):
        event, problem = self.peek_event(), None
        if isinstance(event, yaml.AliasEvent):
            problem = f"there is the alias *{event.anchor}; write its value out"
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_LENGTH:
            problem = f"a value has {len(event.value):,} characters; at most {MAX_LENGTH:,} are allowed"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def dump_yaml(cfg: CN) -> str:
    """Returns a config as the text of a YAML file, which `read_yaml` reads: without aliases for equal values."""
    return yaml.dump(cfg, Dumper=_PlainDumper)


class _PlainDumper(yaml.SafeDumper):
    yaml_multi_representers = {dict: yaml.SafeDumper.represent_dict}  # yacs' nodes

    def ignore_aliases(self, data):
        return True


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested config as {"A.B": value}, in its own order."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def merge(cfg: CN, values: dict[str, Any], source: str) -> list[str]:
    """Sets the keys of `values` in `cfg`; strings are read as Python literals where they are one, as yacs does.

    Returns:
        An error for every unknown key and every value of another type than the default's; it names the `source`.
    """
    known, errors = flatten(cfg), []
    for key, value in values.items():
        if key not in known:
            errors.append(f"{source}: the key {printable(key)} is unknown.{near_name(key, known)}")
            continue
        if isinstance(known[key], str) and isinstance(value, str) and len(value) > MAX_LENGTH:
            errors.append(f"{source}: {key} has {len(value):,} characters; at most {MAX_LENGTH:,} are allowed.")
            continue
        try:
            cfg.merge_from_list([key, _prepare(value, known[key])])
        except (ValueError, OverflowError, RecursionError, MemoryError):  # the last three: endless literals
            kind = f"{type(known[key]).__name__}, such as {known[key]!r}"
            errors.append(f"{source}: {key} is {shorten(value)}; it must be of type {kind}.")
    return errors


def _prepare(value: Any, default: Any) -> Any:
    """Returns a value for yacs, which reads strings as literals, takes no int for a float, and None for anything."""
    if isinstance(default, str) and isinstance(value, str) and not value.startswith(("'", '"')):
        return repr(value)  # a text stays one, even where it could be read as a number
    if value in (None, "None") and default is not None:
        raise ValueError
    is_int = value.lstrip("+-").isdecimal() if isinstance(value, str) else type(value) is int
    return float(value) if is_int and isinstance(default, float) else value


def full_default(*, with_plugins: bool = True) -> CN:
    """Returns the default config with the options of every registered trainer, those of plug-ins last."""
    cfg, layers = get_cfg_default(), TRAINER_REGISTRY.layers()
    for layer in layers if with_plugins else layers[:1]:
        for name in sorted(layer):
            layer[name].add_config(cfg)
    for extend in CONFIG_EXTENSIONS.get() if with_plugins else ():
        extend(cfg)
    return cfg


def complete(cfg: CN, given: Iterable[str]) -> list[str]:
    """Lets the method's `complete_config` set what its backbone decides.

    Args:
        cfg: With everything that files and flags say; its paths are settled.
        given: Keys that the user has set for this very run, which stay: those of KEY VALUE pairs.

    Returns:
        What is wrong with the backbone's name.
    """
    try:
        if cfg.TRAINER.NAME in TRAINER_REGISTRY:  # else check_cfg says so
            TRAINER_REGISTRY.get(cfg.TRAINER.NAME).complete_config(cfg, frozenset(given))
    except (ValueError, OSError) as error:  # it is said together with all other errors
        return [str(error)]
    return []


def check_cfg(cfg: CN) -> list[str]:
    """Returns an error for every value that no run can use: refused keys, unknown names, numbers out of range."""
    from ..data.transforms import check_input  # here: it costs torch, and reading a config needs none

    values = flatten(cfg)
    errors = [
        f"{key} is {shorten(values[key])}; only its default, {default!r}, is allowed. {why}"
        for key, (default, why) in REFUSED.items()
        if values[key] != default
    ]
    errors += option_errors(cfg, OPTIONS)
    errors += [
        f"{key} is {shorten(values[key])}; it must be at least {least}."
        for key, least in AT_LEAST.items()
        if not values[key] >= least  # NaN is not at least anything
    ]
    if not cfg.OPTIM.STEPSIZE or not all(isinstance(step, int) for step in cfg.OPTIM.STEPSIZE):
        errors.append(f"OPTIM.STEPSIZE is {cfg.OPTIM.STEPSIZE}; it must hold numbers of epochs. (-1,) means MAX_EPOCH.")
    if not cfg.MODEL.BACKBONE.NAME:
        errors.append("MODEL.BACKBONE.NAME is empty. Name a CLIP with --config-file or --backbone.")
    if cfg.TRAINER.NAME in TRAINER_REGISTRY:
        errors += TRAINER_REGISTRY.get(cfg.TRAINER.NAME).config_errors(cfg)
    else:
        errors.append(f"{TRAINER_REGISTRY.unknown(cfg.TRAINER.NAME)} Name a trainer outside trainers/ with --plugin.")
    if cfg.DATASET.NAME not in DATASET_REGISTRY:
        errors.append(f"{DATASET_REGISTRY.unknown(cfg.DATASET.NAME)} Name a data set outside datasets/ with --plugin.")
    if cfg.TEST.EVALUATOR not in EVALUATOR_REGISTRY:
        errors.append(EVALUATOR_REGISTRY.unknown(cfg.TEST.EVALUATOR))
    n_bytes = len(dump_yaml(cfg))  # ASCII
    if n_bytes > MAX_BYTES:
        errors.append(f"The config has {n_bytes:,} bytes as config.yaml; at most {MAX_BYTES:,} are read. Shorten it.")
    return errors + _check_loggers(cfg.TRAIN.LOGGERS) + check_input(cfg.INPUT) + _check_run(cfg)


def option_errors(cfg: CN, options: dict[str, Iterable[str]]) -> list[str]:
    """Returns an error for each key of `options` ({"OPTIM.NAME": allowed values}) whose value is not allowed."""
    values = flatten(cfg)
    return [
        f"{key} is {shorten(values[key])}, expected one of: {', '.join(allowed)}.{near_name(str(values[key]), allowed)}"
        for key, allowed in options.items()
        if values[key] not in allowed
    ]


def _check_loggers(names: Iterable[str]) -> list[str]:
    """Returns an error for every tracker that there is not, and for one that is not installed."""
    errors = [
        f"TRAIN.LOGGERS has {shorten(name)}, expected some of: {', '.join(LOGGERS)}.{near_name(str(name), LOGGERS)}"
        for name in names
        if name not in LOGGERS
    ]
    spec = find_spec("wandb") if "wandb" in names else None
    if "wandb" in names and (spec is None or spec.origin is None):  # the second: a folder of that name with its runs
        errors.append('TRAIN.LOGGERS has wandb, which is not installed: pip install -e ".[wandb]". Or leave it out.')
    return errors


def _check_run(cfg: CN) -> list[str]:
    """Returns an error for every flag that this kind of call would not use."""
    run, errors = cfg.RUN, []
    if run.EVAL_ONLY and cfg.RESUME:
        errors.append(f"--resume is {cfg.RESUME}, but --eval-only trains nothing. Use --model-dir and --load-epoch.")
    if run.EVAL_ONLY and cfg.TEST.NO_TEST:
        errors.append("TEST.NO_TEST is True, but --eval-only does nothing but test. Leave one of them out.")
    if run.MODEL_DIR and not run.EVAL_ONLY:
        errors.append(
            f"--model-dir is {run.MODEL_DIR}, but this call trains. Add --eval-only to test that model, or use "
            "--resume to continue its training, or MODEL.INIT_WEIGHTS to start from it."
        )
    if run.LOAD_EPOCH >= 0 and not run.MODEL_DIR:
        errors.append(f"--load-epoch is {run.LOAD_EPOCH}, but there is no --model-dir. Name the run to load from.")
    if Path(cfg.OUTPUT_DIR).is_file():
        errors.append(f"--output-dir is {cfg.OUTPUT_DIR}, which is a file. Name a folder.")
    if cfg.INPUT.VIEWS and (n := cfg.DATALOADER.K_TRANSFORMS) > 1:
        errors.append(f"DATALOADER.K_TRANSFORMS is {n}; with INPUT.VIEWS it must be 1. Leave one of them out.")
    return errors


def settle_paths(cfg: CN) -> None:
    """Writes each path in one form, however it was typed: relative below the current folder, else absolute."""
    values = flatten(cfg)
    for key in PATHS:
        if key == "MODEL.BACKBONE.NAME":
            before, path = split_backbone(values[key])
            if path and (before or Path(path).is_file()):
                cfg.MODEL.BACKBONE.NAME = join_backbone(before, _settled(path))
        elif values[key]:
            cfg.merge_from_list([key, repr(_settled(values[key]))])
    plugins = tuple(_settled(name) if name.endswith(".py") else name for name in cfg.RUN.PLUGINS)
    cfg.merge_from_list(["RUN.PLUGINS", plugins])


def split_backbone(name: str) -> tuple[str, str]:
    """Returns what stands before the path in a backbone's name, and the path; "" where it is a tag or a hub's name.

    open_clip:ViT-B-32/../file.pt -> ("open_clip:ViT-B-32/", "../file.pt"); a name without a library -> ("", name).
    """
    library = next(filter(name.startswith, OTHER_LIBRARIES), "")
    if not library:
        return "", name
    before = f"{library}local-dir:" if name.startswith(f"{library}local-dir:") else library
    rest = name.removeprefix(before)
    is_model = rest and any(os.path.isfile(os.path.join(rest, config)) for config in MODEL_CONFIGS)
    if is_model or rest.startswith(PATH_STARTS):
        return before, rest
    architecture, _, source = rest.partition("/")
    looks_like_path = "/" in source or Path(source).suffix  # else a tag
    is_there = looks_like_path and os.path.exists(source)
    if library == "open_clip:" and (source.startswith(PATH_STARTS) or is_there):
        return f"{library}{architecture}/", source
    return name, ""


def join_backbone(before: str, path: str) -> str:
    """Returns the backbone's name that `split_backbone` splits: "./" tells a relative path from a name of a hub."""
    return before + (os.path.join(".", path) if before and path else path)


def _settled(path: str) -> str:
    path = os.path.abspath(os.path.expanduser(path))
    below = os.path.commonpath([path, os.getcwd()]) == os.getcwd()
    return os.path.relpath(path) if below else path
