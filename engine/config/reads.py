"""Options of methods that KEY VALUE pairs set, and whether the method reads them.

A pair that nobody reads changes nothing, while the command, the folder and the figures say that it did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from yacs.config import CfgNode as CN

from ..registry import TRAINER_REGISTRY
from .defaults import get_cfg_default
from .load import ConfigError, full_default, require


class _Keys(set):
    def __deepcopy__(self, memo) -> _Keys:
        return self  # a method may read a copy of its config


class WatchedNode(CN):
    """A group under TRAINER that remembers which of its keys are read. Items, as dumps and digests take them, are not.

    Args:
        node: The group.
        given: Its keys that KEY VALUE pairs set.
    """

    def __init__(self, node: CN, given: Iterable[str]):
        super().__init__(node)
        self.__dict__.update(given=frozenset(given), read=_Keys())

    def __getitem__(self, key: str) -> Any:  # attributes come here, too
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:  # with an iterator of its own, **node asks for each key
        return super().__iter__()


def watch(cfg: CN, keys: Iterable[str]) -> None:
    """From now on `cfg` remembers which options are read, in the groups under TRAINER that KEY VALUE pairs set."""
    given: dict[str, set[str]] = {}
    for top, *below in (key.split(".") for key in keys):
        if top == "TRAINER" and len(below) > 1:
            given.setdefault(below[0], set()).add(below[1])
    for group, names in given.items():
        cfg.TRAINER[group] = WatchedNode(cfg.TRAINER[group], names)


def require_read(cfg: CN) -> None:
    """Checks, after the method was built, that pairs for another method's group have reached it.

    A group of its own may be read later, in a step.

    Raises:
        ConfigError: It has read nothing of such a group.
    """
    name, own = cfg.TRAINER.NAME, _own_groups(cfg)
    options = ", ".join(f"TRAINER.{group}.{key}" for group in sorted(own) for key in cfg.TRAINER[group]) or "none"
    require(
        [
            f"{', '.join(f'TRAINER.{group}.{key}' for key in sorted(node.given))}: given as KEY VALUE pairs, but "
            f"{name} reads nothing of TRAINER.{group}. Its own options are: {options}. Give those, or leave the pairs "
            "out. scripts/coop/main.sh and eval.sh give CTP, NCTX and CSC to the group that TRAINER_NODE names; a "
            "method without them is trained by scripts/few_shot.sh and those of scripts/cocoop."
            for group, node in _watched(cfg)
            if not node.read and group not in own
        ]
    )


def unread_warnings(cfg: CN) -> list[str]:
    """Returns a sentence, after the run, for each option that a pair has changed and nobody has read."""
    default = full_default().TRAINER
    return [
        f"TRAINER.{group}.{key} is {dict.get(node, key)!r}, but {cfg.TRAINER.NAME} has not read it: it changed "
        "nothing. Leave it out, or let the method read it."
        for group, node in _watched(cfg)
        for key in sorted(node.given - node.read)
        if dict.get(node, key) != default[group][key]
    ]


def _watched(cfg: CN) -> list[tuple[str, WatchedNode]]:
    return [(group, node) for group, node in cfg.TRAINER.items() if isinstance(node, WatchedNode)]


def _own_groups(cfg: CN) -> set[str]:
    """Returns the groups that the method declares, and those that come with plug-ins."""
    declared = get_cfg_default()
    with contextlib.suppress(AttributeError, KeyError, ConfigError):  # it adds to a group that it does not declare
        TRAINER_REGISTRY.get(cfg.TRAINER.NAME).add_config(declared)
    groups = {group for group, node in cfg.TRAINER.items() if isinstance(node, CN)}
    return groups - (set(full_default(with_plugins=False).TRAINER) - set(declared.TRAINER))
