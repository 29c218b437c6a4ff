"""The random generators that every program shares: torch's on the CPU and on each GPU, numpy's, Python's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def set_random_seed(seed: int) -> None:
    """Seeds Python's, numpy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Returns the state of all generators as tensors and plain values, which can be saved."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (name, keys.tolist(), *rest),
        "python": random.getstate(),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Sets all generators to what `random_state` gave; of GPUs those that are there."""
    torch.set_rng_state(state["torch"])
    for device, of_device in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(of_device, device)
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


@contextmanager
def same_random_state() -> Iterator[None]:
    """At its end, the generators stand where they stood."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)
