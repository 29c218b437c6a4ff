"""The device of a run: which one, its memory, operations that repeat their bits."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = -1
CPUINFO = Path("/proc/cpuinfo")  # Linux
BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # Linux's names of these instructions
CUBLAS_WORKSPACE = ":4096:8"  # of fixed size, which cuBLAS needs to repeat itself; torch takes this one or :16:8


def pick_device(*, use_cuda: bool) -> torch.device:
    """Returns the GPU if it is wanted and there, else the CPU."""
    return torch.device("cuda" if use_cuda and torch.cuda.is_available() else "cpu")


def multiplies_bfloat16() -> bool:
    """Says whether the CPU has instructions for products of bfloat16; False where the system does not say."""
    if not CPUINFO.is_file():
        return False
    return not BFLOAT16.isdisjoint(CPUINFO.read_text(encoding="utf-8", errors="replace").split())


def keep_freed_memory() -> bool:
    """Makes glibc keep what is freed for the next step and returns True; False where the C library is another.

    Otherwise blocks of over 32 MB, such as a ResNet's activations, come fresh from the system every time, which fills
    them with zeros first: two fifths of the CPU time of RN50 on 32 images (benchmarks/loader.py).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))


def return_freed_memory() -> None:
    """Gives the system back what `keep_freed_memory` has kept of earlier runs; with another C library, nothing."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory(device: torch.device) -> int | None:
    """Returns the bytes of a GPU that this process may still fill; None of a CPU, which has no such bound."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # for this process's next tensors
    return torch.cuda.mem_get_info(device)[0] + kept


def smaller_batches(cfg) -> dict[str, int]:
    """Returns the keys of batch sizes that a run uses, with half of their values."""
    sizes = {"DATALOADER.TEST.BATCH_SIZE": cfg.DATALOADER.TEST.BATCH_SIZE}
    if not cfg.RUN.EVAL_ONLY:
        sizes["DATALOADER.TRAIN_X.BATCH_SIZE"] = cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    return {key: size // 2 for key, size in sizes.items() if size > 1}


@contextmanager
def memory_advice(smaller_settings: Callable[[], dict[str, int | bool]]) -> Iterator[None]:
    """Until its end, an error of a GPU that has too little memory says what to lower.

    Args:
        smaller_settings: Gives the keys that decide how much memory is needed, each with a value that needs less.

    Raises:
        MemoryError: In place of torch's OutOfMemoryError.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        values = " or ".join(f"{key} {value}" for key, value in smaller_settings().items())
        remedy = f"To need less, add {values}." if values else "Use a larger GPU, or the CPU."
        raise MemoryError(f"The GPU's memory is full ({str(error).partition('. ')[0]}). {remedy}") from error


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
            f"RUN.DETERMINISTIC is True, but torch's {refused[1]} has no deterministic form on this device. Leave "
            "--deterministic out, or set USE_CUDA False."
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
