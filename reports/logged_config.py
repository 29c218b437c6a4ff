"""The config that a run prints into its log, ours or the original's, and what it says of which run it is."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

KEY = re.compile(r"( *)([A-Z][A-Z0-9_]*):(?: +(\S.*))?")
CONFIG_FILE = re.compile(r"config_file: (\S.*)\.ya?ml")  # of the original's arguments
IDENTITY_KEYS = {  # key of results.json -> config key
    "trainer": "TRAINER.NAME",
    "dataset": "DATASET.NAME",
    "shots": "DATASET.NUM_SHOTS",
    "subsample": "DATASET.SUBSAMPLE_CLASSES",
    "backbone": "MODEL.BACKBONE.NAME",
    "split": "TEST.SPLIT",
    "seed": "SEED",
    "cfg": "RUN.CFG",
}
WORDS = {"true": True, "false": False, "null": None}  # as YAML has them


def logged_settings(lines: Iterable[str]) -> dict[str, str]:
    """Returns the keys of a config as it is printed, indented, with their values in JSON; the last that is there."""
    found, groups = {}, []
    for line in lines:
        match = KEY.fullmatch(line.rstrip())
        if match is None:
            continue
        indent, name, value = match.groups()
        groups[len(indent) // 2 :] = [name]
        if value is not None:
            found[".".join(groups)] = in_json(literal(value))
    return found


def logged_identity(lines: Iterable[str], settings: Mapping[str, str]) -> dict[str, str | float]:
    """Returns which run a log says it is of, by keys of results.json; a seed below 0 was drawn."""
    said = {key: json.loads(settings[name]) for key, name in IDENTITY_KEYS.items() if name in settings}
    files = [match[1] for match in map(CONFIG_FILE.fullmatch, map(str.strip, lines)) if match]
    said |= {"cfg": PurePath(files[-1]).name} if files else {}
    if not isinstance(said.get("seed"), int) or said["seed"] < 0:
        said.pop("seed", None)
    return {key: value for key, value in said.items() if isinstance(value, (str, int, float))}


def literal(text: Any) -> Any:
    """Reads a text as a Python literal, or as a word of YAML's, if it is one."""
    try:
        return ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # the last two: of brackets without end
        return WORDS.get(text, text)


def in_json(value: Any) -> str:
    """Returns a value as results.json has it: equal values, equal texts."""
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    except TypeError:  # a set, or keys that cannot be sorted, which no config of ours has
        return json.dumps(str(value), ensure_ascii=False)
