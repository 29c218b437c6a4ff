"""Plug-ins: trainers, data sets and evaluators that --plugin names, and options that --plugin-config declares.

Both are there for one run only. Their keys always belong to the run's identity, at their defaults too: defaults change
while a plug-in is being written.
"""

from __future__ import annotations

import ast
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import getfile
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from ..files import missing_path
from ..registry import DATASET_REGISTRY, EVALUATOR_REGISTRY, TRAINER_REGISTRY
from .load import CONFIG_EXTENSIONS, ConfigError, flatten, full_default, merge, read_yaml, require
from .plugin_errors import error_and_line, import_advice
from .plugin_imports import repositories

logger = logging.getLogger(__name__)

REGISTRIES = (TRAINER_REGISTRY, DATASET_REGISTRY, EVALUATOR_REGISTRY)


@contextmanager
def plugins(names: Sequence[str] = (), config_files: Sequence[str | Path] = ()) -> Iterator[None]:
    """Registers the classes of plug-ins and adds their options to the default config, until the `with` block ends.

    Args:
        names: Modules, also from the current folder, or .py files. A class of theirs replaces ours of the same name.
        config_files: YAML files; each key is added, with its value as the default.

    Raises:
        ConfigError: If a plug-in is missing, fails to import, registers no class, or uses a name that another plug-in
            has registered; or if a key exists with another type.
    """
    extensions = tuple(partial(declare, values=_read_options(path), source=str(path)) for path in config_files)
    search_path, before, outer = sys.path.copy(), set(sys.modules), CONFIG_EXTENSIONS.set(extensions)
    packages = {name.split(".")[0] for name in names}
    try:
        with ExitStack() as stack:
            for registry in REGISTRIES:
                stack.enter_context(registry.overlay())
            make_importable = stack.enter_context(repositories())
            for name in names:
                path = _path_of(name)
                _load(name, path, make_importable(path) if path else name)
            _warn_of_replaced_classes()
            full_default()  # raises if an option is wrong
            yield
    finally:
        CONFIG_EXTENSIONS.reset(outer)
        sys.path[:] = search_path
        for module in set(sys.modules) - before:  # a later run in this process imports, and so registers, them again
            if module.split(".")[0] in packages:
                del sys.modules[module]


def declare(cfg: CN, values: dict[str, Any], source: str) -> None:
    """Adds keys with their defaults; a key that exists gets a new default. Errors name the `source`.

    A new default is of the same type. An option of a method may get one of another type where either of them says
    "none" ("", False, 0, None): other repositories declare CTX_INIT as False.

    Raises:
        ConfigError: If a key exists with another type, or is the name of a group of keys.
    """
    known, errors = flatten(cfg), []
    for key, value in values.items():
        *groups, name = key.split(".")
        node = cfg
        for group in groups:
            node = node.setdefault(group, CN()) if isinstance(node, CN) else node
        if key in known:
            wrong_type = merge(cfg, {key: value}, source)
            if wrong_type and key.startswith("TRAINER.") and not (known[key] and value):
                node[name] = value
            else:
                errors += wrong_type
        elif not isinstance(node, CN) or name in node:
            errors.append(f"{source}: {key} overlaps a key or a group of keys of the config. Choose another name.")
        else:
            node[name] = value
    require(errors)


def extend(cfg: CN, extend_cfg: Callable[[CN], None], source: str) -> None:
    """Adds the keys that a plug-in's function `extend_cfg(cfg)` declares; other keys stay, even in a group it resets.

    Raises:
        ConfigError: If the function fails, or if `declare` raises it.
    """
    extended, known = cfg.clone(), flatten(cfg)
    try:
        extend_cfg(extended)
    except Exception as error:
        raise ConfigError(f"{source}: extend_cfg(cfg) raises {error_and_line(error)}. Correct it.") from error
    values = flatten(extended)
    declare(cfg, {key: value for key, value in values.items() if key not in known or value != known[key]}, source)


def _read_options(path: str | Path) -> dict[str, Any]:
    values = read_yaml(path)
    require([f"{path}: {key} is empty. Give it a default value." for key, value in values.items() if value is None])
    return {key: _literal(value) for key, value in values.items()}


def _literal(value: Any) -> Any:
    """Reads a text as a Python literal if it is one, as `merge` does: "(224, 224)", "1e-5"."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value


def _path_of(name: str) -> Path | None:
    """Returns the .py file that a plug-in is; None for a module that is not found from the current folder."""
    path = Path(name).expanduser()
    if path.suffix != ".py" and os.sep not in name:
        module = Path(*name.split("."))
        return next((file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file()), None)
    if not path.exists():
        raise ConfigError(missing_path(path, "The plug-in", "Correct --plugin."))
    if path.suffix != ".py" or path.is_dir():
        raise ConfigError(f"--plugin is {name}; it must be a .py file or a module (my_package.my_trainer).")
    return path


def _load(name: str, path: Path | None, module_name: str) -> None:
    """Imports a plug-in, which must register a class."""
    before = set(sys.modules)
    sys.path.append(os.getcwd())
    try:
        if path is not None:
            sys.path.append(str(path.absolute().parent))  # for importlib.import_module in it
        importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(_not_imported(name, error)) from error
    own = {module_name} | (set(sys.modules) - before)
    layers = [layer for registry in REGISTRIES for layer in registry.layers()]
    if not any(cls.__module__ in own for layer in layers for cls in layer.values()):
        raise ConfigError(
            f"--plugin is {name}, which registers nothing. Add @TRAINER_REGISTRY.register() to its trainer, or the "
            "decorator of the other registries to its data set or evaluator."
        )


def _not_imported(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
        return (
            f"--plugin is {name}, which Python does not find from {os.getcwd()}. Name a module "
            "(my_package.my_trainer) or the path of a .py file."
        )
    advice = import_advice(error) or "Correct it."
    return f"--plugin is {name}, which cannot be imported: it raises {error_and_line(error)}. {advice}".rstrip()


def _warn_of_replaced_classes() -> None:
    for registry in REGISTRIES:
        *below, own = registry.layers()
        for name, cls in own.items():
            for replaced in (layer[name] for layer in below if name in layer):
                logger.warning(f"The {registry.name} {name} is from {getfile(cls)}, not from {replaced.__module__}")
