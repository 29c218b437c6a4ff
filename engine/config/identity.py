"""What makes two runs the same: the keys that decide what is computed, and their digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from yacs.config import CfgNode as CN

from ..registry import DATASET_REGISTRY, TRAINER_REGISTRY
from ..text import printable
from .defaults import NOT_IN_DIGEST
from .load import flatten, full_default


def changed_keys(cfg: CN) -> dict[str, Any]:
    """Returns the keys whose values are not the defaults, and all keys that plug-ins declare."""
    default = flatten(full_default(with_plugins=False))
    return {key: value for key, value in flatten(cfg).items() if value != default.get(key)}


def changed_lines(cfg: CN) -> list[str]:
    """Returns the changed keys for a reader, a line for each group: "OPTIM: NAME sgd, LR 0.002"."""
    groups: dict[str, list[str]] = {}
    for key, value in changed_keys(cfg).items():
        group, _, name = key.partition(".")
        groups.setdefault(group, []).append(f"{name} {printable(str(value))}".strip())
    return [f"{group}: {', '.join(values)}" for group, values in groups.items()]


def identity(cfg: CN) -> dict[str, Any]:
    """Returns the changed keys that decide what a run computes.

    Keys at their default are left out: when a later version adds a key, old runs stay the same.
    """
    left_out = set(NOT_IN_DIGEST)
    if cfg.TRAINER.NAME in TRAINER_REGISTRY:  # the plug-in of an old run may be gone
        left_out |= keys_of_how(TRAINER_REGISTRY.get(cfg.TRAINER.NAME))
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME) if cfg.DATASET.NAME in DATASET_REGISTRY else None
    if getattr(dataset, "root_is_identity", False):
        left_out.discard("DATASET.ROOT")
    return {key: value for key, value in changed_keys(cfg).items() if key not in left_out}


def keys_of_how(trainer: type) -> set[str]:
    """Returns the keys that change how a method computes, not what; also those of other methods, in their own groups.

    The defaults of these may change too, and the config.yaml of an earlier run holds the earlier ones.
    """
    keys, own = set(trainer.not_in_identity), getattr(trainer, "node", "")
    for other in map(TRAINER_REGISTRY.get, TRAINER_REGISTRY.registered_names()):
        node = getattr(other, "node", "")
        if node and node != own:
            keys |= {key for key in other.not_in_identity if key.startswith(f"TRAINER.{node}.")}
    return keys


def config_digest(cfg: CN) -> str:
    """Returns the sha256 of a config's identity, in hexadecimal: equal digests, the same run."""
    return hashlib.sha256(json.dumps(identity(cfg), sort_keys=True).encode()).hexdigest()


def differing_keys(stored: CN, asked: CN) -> dict[str, tuple[Any, Any]]:
    """Returns the keys that make two configs different runs, each with its value in both."""
    old, new = flatten(stored), flatten(asked)
    keys = sorted(identity(stored).keys() | identity(asked).keys())
    return {key: (old[key], new[key]) for key in keys if old[key] != new[key]}
