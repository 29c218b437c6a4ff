"""A step of training beside busy neighbours: our rule for threads (engine/run/startup.py) against torch's default.

Run:   python -m benchmarks.threads [--repeats 3] [--steps 10] [--neighbours 1 2 4] [--json FILE]
CoOp on the drawn `shapes` with its small CLIP, images and prompts through both towers. How threads wait is read when
torch is imported, so each side has a process of its own; naive is torch's default. A neighbour is a process that only
counts. Without neighbours, then beside each number of them, both sides take their steps in turn. The note has the
seconds of a side beside neighbours by those without, from the medians. OMP_NUM_THREADS, if set, is that of both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import train
from engine import TRAINER_REGISTRY, set_random_seed
from engine.run.startup import sleep_while_waiting

from .measure import Report, add_arguments, alternate, timed

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # of how threads wait


@cache
def build_step(folder: Path) -> Callable[[], dict]:
    """Returns a step on always the same batch, in the process that it is called in."""
    words = ["--output-dir", folder, "--seed", 1, "--trainer", "CoOp"]
    words += ["--config-file", "configs/trainers/CoOp/tiny.yaml"]
    words += ["--dataset-config-file", "configs/datasets/shapes.yaml", "DATALOADER.NUM_WORKERS", 0]
    cfg = train.setup_cfg(train.parse_args([str(word) for word in words]))
    cfg.freeze()
    set_random_seed(cfg.SEED)
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
    trainer.set_model_mode("train")
    return partial(trainer.forward_backward, next(iter(trainer.train_loader_x)))


def step_s(folder: Path, n_steps: int) -> float:
    """Mean seconds of a step."""
    return timed(build_step(folder), n_steps)


def _step_in(pool: ProcessPoolExecutor, *way) -> float:
    return pool.submit(step_s, *way).result()


def open_side(rule: Callable[[], None], folder: Path) -> ProcessPoolExecutor:
    """Starts the process of a side, in which `rule` has set how threads wait."""
    for name in SETTINGS:
        os.environ.pop(name, None)
    rule()
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    pool.submit(step_s, folder, 3).result()
    return pool


@contextlib.contextmanager
def neighbours(n: int) -> Iterator[None]:
    """Lets n processes count until its end."""
    counting = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in counting:
            process.kill()
            process.wait()


def compare(report: Report, args: argparse.Namespace, folder: Path) -> None:
    """Reports the steps without neighbours, and beside each number of them."""
    with contextlib.ExitStack() as stack:
        rules = {"naive": lambda: None, "ours": sleep_while_waiting}
        pools = [stack.enter_context(open_side(rule, folder / name)) for name, rule in rules.items()]
        sides = [partial(_step_in, pool, folder / name, args.steps) for pool, name in zip(pools, rules)]
        alone: list[float] = []
        for n in (0, *args.neighbours):
            with neighbours(n):
                seconds = alternate(args.repeats, *sides)
            alone = alone or [statistics.median(found) for found in seconds]
            naive, ours = (statistics.median(found) / first for found, first in zip(seconds, alone))
            note = f"by the seconds without neighbours: naive {naive:.1f}, ours {ours:.1f}" if n else ""
            report.compare(f"beside {n} neighbours" if n else "alone", *seconds, note=note)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--steps", type=int, default=10, help="of a side in a round (default: %(default)s)")
    parser.add_argument("--neighbours", type=int, nargs="+", default=[1, 2, 4], help="(default: 1 2 4)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    report = Report("threads", args, "A step of CoOp on shapes beside busy neighbours")
    with tempfile.TemporaryDirectory() as folder:
        compare(report, args, Path(folder))
    report.write()


if __name__ == "__main__":
    main()
