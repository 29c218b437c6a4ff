"""How the benchmarks measure and report: seconds, operations, matrix-product rate, peak memory, ratios with spread."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from engine.run.cores import n_cores
from trainers.backbone import PRECISIONS

ATTENTION_ON_A_CPU = {  # torch has formulas for a GPU's alone
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda *shapes, **_: sdpa_backward_flop_count(*shapes[:4])
    ),
}
MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}
HEADER = (
    f"{'case':36}{'naive (s)':>11}{'ours (s)':>11}{'ratio':>8}{'min - max':>16}{'positions of text':>30}"
    f"{'of matmul':>11}{'difference':>12}"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what all benchmarks take."""
    parser.add_argument("--repeats", type=int, default=3, help="rounds of both sides (default: %(default)s)")
    add_report(parser)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Declares where the results go."""
    parser.add_argument("--json", help="file to which the results are appended, one line for each call")


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Declares whether freed memory is kept."""
    parser.add_argument("--keep-memory", action="store_true", help="keep freed memory on both sides, as train.py does")


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Declares the precision of CLIP's weights."""
    choices = ("fp32", "fp16", "bf16") if torch.cuda.is_available() else ("fp32", "bf16")
    parser.add_argument("--prec", choices=choices, default="fp32", help="CLIP's weights (default: %(default)s)")


def device() -> torch.device:
    """Returns the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def alternate(repeats: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Takes the measures in turn, for so many rounds; returns for each what it gave, round by round."""
    rounds = [[measure() for measure in measures] for _ in range(repeats)]
    return [list(values) for values in zip(*rounds)]


def timed(step: Callable, n: int = 1) -> float:
    """Mean seconds of n calls, one after another; on a GPU by CUDA events."""
    if torch.cuda.is_initialized():
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(n):
            step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000 / n
    start_s = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - start_s) / n


def matmul_rate(prec: str = "fp32") -> float:
    """Floating-point operations per second of a large matrix product."""
    n = MATMUL_SIZE[device().type]
    a, b = (torch.randn(n, n, device=device(), dtype=PRECISIONS[prec]) for _ in range(2))
    a @ b
    return 2 * n**3 / statistics.median(timed(lambda: a @ b) for _ in range(5))


def count_flops(step: Callable) -> int:
    """Floating-point operations of the matrix products, convolutions and attention in one call of a step."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION_ON_A_CPU) as counter:
        step()
    return counter.get_total_flops()


def peak_memory(build: Callable[..., Callable], *args) -> tuple[float, float]:
    """Peak memory in GB and seconds of one step, `build(*args)()`, in a process of its own.

    On a CPU it is the largest resident size, the interpreter, torch and the weights included (needs Linux's /proc); on
    a GPU what torch has allocated there.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure_memory, build, args).result()


def _measure_memory(build: Callable[..., Callable], args: tuple) -> tuple[float, float]:
    seconds = timed(build(*args))
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9, seconds
    # Not getrusage: its maximum is handed down from the parent process.
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(peak.split()[1]) * 1024 / 1e9, seconds


def relative(result: Tensor, reference: Tensor) -> float:
    """Returns the norm of the difference of two results, relative to the reference."""
    return ((result - reference).norm() / reference.norm()).item()


class Report:
    """What a benchmark measured: printed line by line, and at the end appended to the file of --json.

    Args:
        benchmark: Its name.
        args: Its arguments.
        title: What is measured, in one line.
        header: Of the printed lines.
    """

    def __init__(self, benchmark: str, args: argparse.Namespace, title: str, header: str = HEADER):
        self.path = Path(args.json) if args.json else None
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)  # not after minutes of measuring
        self.content = {
            "benchmark": benchmark,
            "date": datetime.now().isoformat(timespec="seconds"),
            **machine(),
            "settings": vars(args),
            "rows": [],
        }
        facts = (f"{name} {value}" for name, value in machine().items() if value)
        print(f"{title}\n{', '.join(facts)}\n\n{header}", flush=True)

    def add(self, row: dict, line: str) -> None:
        """Reports a row of the benchmark's own, printed as `line`."""
        self.content["rows"].append(row)
        print(line, flush=True)

    def compare(
        self,
        case: str,
        naive_s: Sequence[float],
        ours_s: Sequence[float],
        *,
        positions: tuple[int, int] | None = None,
        images: tuple[int, int] | None = None,
        flops: float | None = None,
        rates: Sequence[float] = (),
        difference: float | None = None,
        note: str = "",
    ) -> None:
        """Reports both sides of a case.

        Args:
            case: What is computed.
            naive_s: Seconds of the naive side in each round; none where it cannot be run.
            ours_s: Seconds of ours in the same rounds.
            positions: Positions of text through the tower, naive and ours.
            images: Images through the tower, naive and ours.
            flops: Operations of ours, in one round.
            rates: The machine's matrix-product rate in each round.
            difference: Between the results of both sides, relative.
            note: What else is to say, such as what was extrapolated.
        """
        ratios = [naive / ours for naive, ours in zip(naive_s, ours_s)]
        share = statistics.median(flops / s / rate for s, rate in zip(ours_s, rates)) if flops and rates else None
        row = {"case": case, "naive_s": [*naive_s], "ours_s": [*ours_s], "ratios": ratios, "positions": positions}
        row |= {"images": images, "of_matmul_rate": share, "difference": difference, "note": note}
        self.content["rows"].append(row)
        naive = f"{statistics.median(naive_s):.2f}" if ratios else "-"
        ratio = f"{statistics.median(ratios):.1f}" if ratios else "-"
        spread = f"{min(ratios):.1f} - {max(ratios):.1f}" if ratios else "-"
        remarks = [f"images encoded: {_pair(images)}"] * bool(images) + [note] * bool(note)
        print(
            f"{case:36}{naive:>11}{statistics.median(ours_s):11.3f}{ratio:>8}{spread:>16}{_pair(positions):>30}"
            f"{'-' if share is None else f'{share:.0%}':>11}{'-' if difference is None else f'{difference:.1e}':>12}"
            + (f"\n    {'; '.join(remarks)}" if remarks else ""),
            flush=True,
        )

    def compare_sides(self, case: str, sides: Any, *, repeats: int, prec: str) -> None:
        """Measures and reports `sides.naive_step` against the mean of five calls of `sides.our_step`, in turn."""
        difference = relative(sides.our_step(), sides.naive_step())
        flops = count_flops(sides.our_step)
        naive, ours = partial(timed, sides.naive_step), partial(timed, sides.our_step, n=5)
        naive_s, ours_s, rates = alternate(repeats, naive, ours, partial(matmul_rate, prec))
        measured = {"positions": sides.positions, "flops": flops, "rates": rates, "difference": difference}
        self.compare(case, naive_s, ours_s, **measured)

    def memory(self, case: str, peak_gb: float, first_s: float) -> None:
        """Reports what `peak_memory` gave."""
        self.content["rows"].append({"case": case, "peak_gb": peak_gb, "first_step_s": first_s})
        print(f"{case:36}{peak_gb:6.2f} GB at most, first step {first_s:.1f} s", flush=True)

    def memory_of_sides(self, what: str, build: Callable[..., Callable], *args) -> None:
        """Reports the peak memory of each side's `build(side, *args)()`."""
        print(f"\npeak memory of {what}")
        for side in ("naive", "ours"):
            self.memory(side, *peak_memory(build, side, *args))

    def write(self) -> None:
        """Appends all to the file of --json."""
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(self.content, default=str) + "\n")


def _pair(counts: tuple[int, int] | None) -> str:
    return f"{counts[0]:,} -> {counts[1]:,}" if counts else "-"


def machine() -> dict[str, str | int]:
    """Returns what the figures depend on: processor, cores, GPU, torch, threads."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return {
        "processor": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": n_cores(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
