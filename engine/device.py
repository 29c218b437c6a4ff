"""A run's memory: freed blocks serve the next step; where a GPU's is full, what to lower."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = -1


def keep_freed_memory() -> bool:
    """Makes glibc keep what is freed for the next step and returns True; False where the C library is another.

    Else blocks of over 32 MB, such as a ResNet's activations, come fresh from the system every time, which fills them
    with zeros first: two fifths of the CPU time of RN50 on 32 images (benchmarks/loader.py).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))


@contextmanager
def memory_advice(lower_values: Callable[[], dict[str, int]]) -> Iterator[None]:
    """Until its end, says what to lower if a GPU has too little memory.

    Args:
        lower_values: Gives the keys that decide how much is computed at once, each with half of what was.

    Raises:
        MemoryError: In place of torch's OutOfMemoryError.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        values = " or ".join(f"{key} {value}" for key, value in lower_values().items())
        remedy = f"Compute half as much at once: add {values}." if values else "Run it on a larger one, or on the CPU."
        raise MemoryError(
            f"The GPU's memory is full ({str(error).partition('. ')[0]}), expected that the run fits into it. {remedy}"
        ) from error
