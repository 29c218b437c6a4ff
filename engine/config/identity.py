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
        trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
        group = f"TRAINER.{getattr(trainer, 'node', '')}."  # of the others' keys a run depends even less
        others = {
            key for name in TRAINER_REGISTRY.registered_names() for key in TRAINER_REGISTRY.get(name).not_in_identity
        }
        left_out |= {key for key in others if not key.startswith(group)} | set(trainer.not_in_identity)
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME) if cfg.DATASET.NAME in DATASET_REGISTRY else None
    if getattr(dataset, "root_is_identity", False):
        left_out.discard("DATASET.ROOT")
    return {key: value for key, value in changed_keys(cfg).items() if key not in left_out}


def config_digest(cfg: CN) -> str:
    """Returns the sha256 of a config's identity, in hexadecimal: equal digests, the same run."""
    return hashlib.sha256(json.dumps(identity(cfg), sort_keys=True).encode()).hexdigest()


def differing_keys(stored: CN, asked: CN) -> dict[str, tuple[Any, Any]]:
    """Returns the keys that make two configs different runs, each with its value in both."""
    old, new = flatten(stored), flatten(asked)
    keys = sorted(identity(stored).keys() | identity(asked).keys())
    return {key: (old[key], new[key]) for key in keys if old[key] != new[key]}
