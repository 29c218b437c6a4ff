"""What a state to go on from has to hold: in a stranger's file anything may stand under these names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .text import printable, shorten

BROKEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def is_whole(value: Any) -> bool:
    """Says whether it is a whole number from 0 on, and no truth value."""
    return type(value) is int and value >= 0


def is_number(value: Any) -> bool:
    """Says whether it is a number, neither infinite nor NaN, and no truth value."""
    return type(value) in (int, float) and math.isfinite(value)


RULES = {  # of entries that fit anywhere, and would be missed only later
    "epoch": (is_whole, "a whole number"),
    "batch": (is_whole, "a whole number"),
    "time_s": (is_number, "a number of seconds"),
    "testing_s": (is_number, "a number of seconds"),
}


def require_state(path: Path, state: dict[str, Any], *needed: str) -> None:
    """Raises ValueError if a state lacks one of the entries `needed`, or an entry is none that training saves."""
    for name in needed:
        if name not in state:
            raise _no_state(path, f"it has no `{name}`")
    for name, (keeps_rule, rule) in RULES.items():
        if name in state and not keeps_rule(state[name]):
            raise _no_state(path, f"its `{name}` is {shorten(state[name])} and not {rule}")


@contextmanager
def restoring(path: Path, name: str) -> Iterator[None]:
    """Names the file and the entry, where an entry cannot be restored: optimisers and generators check little.

    Raises:
        ValueError: Whatever the error is.
    """
    try:
        yield
    except BROKEN as error:
        reason = printable(" ".join(str(error).split()))
        raise _no_state(path, f"its `{name}` cannot be restored, {type(error).__name__}: {reason}") from error


def restore_optimizer(optim: Optimizer, state: dict[str, Any]) -> None:
    """Restores an optimiser; raises, besides what torch does, if a group lacks an option or it is no number."""
    optim.load_state_dict(state)
    for group in optim.param_groups:
        for name, default in optim.defaults.items():
            if type(default) is float and not is_number(group[name]):
                raise TypeError(f"{name} is {shorten(group[name])}")


def restore_schedule(sched: LRScheduler, state: dict[str, Any]) -> None:
    """Restores the epoch of a schedule, which is all that a closed formula needs."""
    if not is_whole(state["last_epoch"]):
        raise TypeError(f"last_epoch is {shorten(state['last_epoch'])}")
    sched.last_epoch = state["last_epoch"]


def _no_state(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is not a state of a run ({reason}), expected what training saves there. Delete it, or name another "
        "folder with --resume."
    )
