"""The same bits on every run: operations of torch that may add in any order are replaced, or refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS_WORKSPACE = ":4096:8"  # of fixed size, which cuBLAS needs to repeat itself; torch takes this one or :16:8


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Until its end, if it is wanted, torch takes of every operation a form that gives the same bits each time.

    It has to begin before anything is computed on a GPU. On a CPU it changes no result.

    Raises:
        ValueError: In place of torch's RuntimeError, if an operation has no such form.
    """
    if not wanted:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS_WORKSPACE
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        refused = re.match(r"(\S+) does not have a deterministic implementation", str(error))
        if refused is None:
            raise
        raise ValueError(
            f"RUN.DETERMINISTIC is True, expected operations that can repeat themselves; torch's {refused[1]} cannot "
            "on this device. Leave --deterministic out, or set USE_CUDA False."
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
