"""The words for an error inside a plug-in: its file, its line, its kind, and what to do where that is known."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..registry import DATASET_REGISTRY
from .plugin_imports import PROJECT, Repository, without_prefix

WORDED = (ValueError, KeyError, OSError, FloatingPointError, MemoryError, ModuleNotFoundError)  # our messages say all


def plugin_error(error: Exception) -> str | None:
    """Returns the message for an error that was raised in a plug-in or in what it called; None for any other."""
    steps = _steps(error)
    frames = [step for step in steps if _is_plugin(step)]
    if not frames:
        return None
    where = f"{frames[-1].tb_frame.f_code.co_filename}, line {frames[-1].tb_lineno}"
    if steps[-1] is not frames[-1] and isinstance(error, WORDED) and _is_ours(steps[-1]):
        return f"{plain_message(error)} (the plug-in's {where})"
    advice = _table_advice(error, frames[-1]) or import_advice(error) or _file_advice(error)
    return f"{where}: {error_and_kind(error)}. {advice}The traceback is in log.txt."


def plain_message(error: Exception) -> Any:
    """Returns what an error says, without the quotes that KeyError puts around it."""
    return error.args[0] if isinstance(error, KeyError) and error.args else error


def error_and_line(error: Exception) -> str:
    """Returns an error's kind and message, with the line of the plug-in where it was raised."""
    steps = _steps(error)
    step = next(filter(_is_plugin, reversed(steps)), steps[-1])
    where = f" ({step.tb_frame.f_code.co_filename}, line {step.tb_lineno})"
    return error_and_kind(error) + ("" if isinstance(error, SyntaxError) else where)  # it says so itself


def error_and_kind(error: Exception) -> str:
    """Returns an error's kind and message on one line."""
    return without_prefix(f"{type(error).__name__}: {' '.join(str(plain_message(error)).split())}".rstrip("."))


def import_advice(error: Exception) -> str:
    """Returns what to do about a name that Dassl or another repository's `clip` has, and ours has not."""
    package = (error.name or "").split(".")[0] if isinstance(error, ImportError) else ""
    if package == "dassl":
        return (
            "The file is not at fault: `dassl` is here a thin facade of this project's engine, and what "
            "CONTRIBUTING.md says is left out of it, as this is. "
        )
    if package == "clip" or (isinstance(error, TypeError) and "build_model()" in str(error)):
        return (
            "`clip` is here this project's. If the file was written for a `clip` of its own repository, put that "
            "folder where it is there, beside the file's package. "
        )
    return ""


def _steps(error: Exception) -> list[TracebackType]:
    """Returns the calls that led to an error, the innermost last, without that of a plug-in's import statement."""
    steps, step = [], error.__traceback__
    while step is not None:
        if step.tb_frame.f_globals.get("__name__") != Repository.__module__:
            steps.append(step)
        step = step.tb_next
    return steps


def _is_plugin(step: TracebackType) -> bool:
    return isinstance(getattr(step.tb_frame.f_builtins.get("__import__"), "__self__", None), Repository)


def _is_ours(step: TracebackType) -> bool:
    package = step.tb_frame.f_globals.get("__name__", "").split(".")[0]
    return Path(step.tb_frame.f_code.co_filename).is_relative_to(PROJECT / package) and not _is_plugin(step)


def _table_advice(error: Exception, step: TracebackType) -> str:
    """Returns what to add where a table by data set lacks one: {"OxfordPets": "a photo of a {}, a type of pet."}."""
    name = error.args[0] if isinstance(error, KeyError) and error.args else None
    if not isinstance(name, str) or name not in DATASET_REGISTRY:
        return ""
    line = traceback.extract_tb(step)[0].line or ""
    names = {**step.tb_frame.f_globals, **step.tb_frame.f_locals}
    tables = [word for word in re.findall(r"(\w+)\s*\[", line) if isinstance(names.get(word), Mapping)]
    table = next((f"the table {word}" for word in tables if name not in names[word]), "the table in this line")
    prompt = getattr(DATASET_REGISTRY.get(name), "prompt_template", "a photo of a {}.")
    return f'The data set {name} has no entry in {table}: add one, such as "{name}": "{prompt}". '


def _file_advice(error: Exception) -> str:
    """Returns where a file was looked for, if its path is relative."""
    name = getattr(error, "filename", None)
    if isinstance(error, FileNotFoundError) and isinstance(name, str) and not os.path.isabs(name):
        return f"The path is taken from the current folder, {os.getcwd()}. "
    return ""
