"""A step of training beside busy neighbours: our rule for threads (engine/run/startup.py) against torch's default.

Run:   python -m benchmarks.threads [--repeats 20] [--steps 4] [--neighbours N ...] [--json FILE]
CoOp on the drawn `shapes` with its small CLIP, images and prompts through both towers. How threads wait is read when
torch is imported, so each side has a process of its own; naive is torch's default. A neighbour is a process that only
counts; by default there is one for each core. In each round both sides take a few steps alone, and then beside the
neighbours: a slow minute of the machine meets all four. A step's time in a round is the mean of its steps; what is
printed are medians over the rounds. The last lines are the figures to compare: a step beside neighbours by one alone
of the same side and round, the median and both quartiles. OMP_NUM_THREADS, if set, is that of both sides.
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
from engine.run.cores import n_cores
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
    counting = [
        subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
        for _ in range(n)
    ]
    try:
        for process in counting:
            process.stdout.readline()  # it has started
        yield
    finally:
        for process in counting:
            process.kill()
            process.communicate()


def beside(n: int, sides: Sequence[Callable[[], float]]) -> list[float]:
    """Returns the seconds of a step of each side, one after another, beside n neighbours."""
    with neighbours(n):
        return [side() for side in sides]


def compare(report: Report, args: argparse.Namespace, folder: Path) -> None:
    """Reports the steps alone and beside each number of neighbours, and then what the neighbours cost each side."""
    with contextlib.ExitStack() as stack:
        rules = {"naive": lambda: None, "ours": sleep_while_waiting}
        pools = [stack.enter_context(open_side(rule, folder / name)) for name, rule in rules.items()]
        sides = [partial(_step_in, pool, folder / name, args.steps) for pool, name in zip(pools, rules)]
        found = alternate(args.repeats, *(partial(beside, n, sides) for n in (0, *args.neighbours)))
    seconds = [dict(zip(rules, zip(*rounds))) for rounds in found]  # for each number: side -> round by round
    for n, of_sides in zip((0, *args.neighbours), seconds):
        report.compare(f"beside {n} neighbours" if n else "alone", *of_sides.values())
    for n, of_sides in zip(args.neighbours, seconds[1:]):
        for side in rules:
            report_slowdown(report, side, n, [own / alone for own, alone in zip(of_sides[side], seconds[0][side])])


def report_slowdown(report: Report, side: str, n: int, ratios: list[float]) -> None:
    """Reports the rounds' ratios of a step beside n neighbours to one alone."""
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    case = f"{side}: beside {n} by alone"
    row = {"case": case, "neighbours": n, "ratios": ratios, "median": median, "quartiles": [low, high]}
    report.add(row, f"{case:32}{median:6.2f}, quartiles {low:.2f} and {high:.2f}")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.set_defaults(repeats=20)
    parser.add_argument("--steps", type=int, default=4, help="of a side in a round (default: %(default)s)")
    parser.add_argument("--neighbours", type=int, nargs="+", default=[n_cores()], help="(default: one for each core)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    report = Report("threads", args, "A step of CoOp on shapes beside busy neighbours")
    with tempfile.TemporaryDirectory() as folder:
        compare(report, args, Path(folder))
    report.write()


if __name__ == "__main__":
    main()
