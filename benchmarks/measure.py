"""How the benchmarks measure: seconds, the machine's matrix-product rate, peak memory of a process of its own."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


def timed(step: Callable, n: int = 1) -> float:
    """Mean seconds of n calls, one after another."""
    start = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - start) / n


def matmul_rate(n: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations per second of a large float32 matrix product."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    a @ b
    return 2 * n**3 / statistics.median(timed(lambda: a @ b) for _ in range(repeats))


def peak_memory(build: Callable[..., Callable], *args) -> tuple[float, float]:
    """Peak resident memory in GB and seconds of one step, `build(*args)()`, in a process of its own.

    The interpreter, torch and the weights are included. Needs Linux's /proc.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_memory, (build, args))


def _measure_memory(build: Callable[..., Callable], args: tuple) -> tuple[float, float]:
    seconds = timed(build(*args))
    # Not getrusage: its maximum is handed down from the parent process.
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(peak.split()[1]) * 1024 / 1e9, seconds
