"""The parts of runs of CoOp, measured in turn on both sides, and what many runs take by them.

    naive          start + n_epochs epoch + test                                            for each run
    fresh views    start + n_epochs epoch                                                   for each run, and tests
    VIEWS v        start + v view + n_epochs epoch with known views                         likewise
    tests          one that encodes the images, and for each other run one that finds their features

An epoch is measured whole and extrapolated by the number of batches, a test by the number of images; of ours without
the prompts, which are encoded once. Views are encoded in one pass: as many as there are rounds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from yacs.config import CfgNode as CN

from engine.data.manager import DataManager, ending_workers

from .measure import Report, alternate, count_flops, matmul_rate, relative, timed
from .runs import (
    build_run,
    encode_views,
    first_test,
    import_time,
    keep_batches,
    later_test,
    naive_runs,
    our_epoch,
    our_logits,
)


class Run(NamedTuple):
    """A run's epochs, the batches of each, the images in these batches, and all training images."""

    n_epochs: int
    n_batches: int
    n_in_batches: int
    n_images: int


def run_of(cfg: CN, data: DataManager) -> Run:
    """Returns the size of the run that a config describes."""
    loader, n_images = data.train_loader_x, len(data.dataset.train_x)
    return Run(cfg.OPTIM.MAX_EPOCH, len(loader), min(len(loader) * loader.batch_size, n_images), n_images)


class Sides:
    """The same run on the naive sides and twice on ours: with fresh views, and with views encoded before.

    Args:
        args: Of `add_run_arguments`.
        folder: Of all that they write.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.naive = naive_runs(args, folder)
        self.fresh = build_run(args, folder / "fresh")
        self.views = build_run(args, folder / "views", "INPUT.VIEWS", args.repeats)
        self.ours = (self.fresh, self.views)
        self.run = run_of(self.fresh.cfg, self.fresh.dm)
        self.positions = (self.naive[""].positions, self.fresh.model.encode_prompts.n_rows)
        self.n_test_images = len(self.fresh.test_loader.dataset)
        for trainer in (*(naive.trainer for naive in self.naive.values()), self.fresh):
            keep_batches(trainer, args.test_batches)
        for trainer in self.ours:
            trainer.before_train()

    @torch.no_grad()
    def encode_prompts(self) -> None:
        """Does what our test does whatever the number of images is."""
        self.fresh.model.text_features()

    def differences(self, label: str) -> tuple[float, float, float]:
        """Returns how far ours are from a naive side: both gradients of the last step, and the test's logits."""
        naive, gradients = self.naive[label], (trainer.models["prompt_learner"].ctx.grad for trainer in self.ours)
        fresh, views = (relative(gradient, naive.learner.ctx.grad) for gradient in gradients)
        return fresh, views, relative(our_logits(self.fresh), naive.logits)

    def owners(self) -> list[object]:
        """Returns what has loaders."""
        trainers = (*self.ours, *(naive.trainer for naive in self.naive.values()))
        return [owner for trainer in trainers for owner in (trainer, trainer.dm)]

    def close(self) -> None:
        for trainer in self.ours:
            trainer.writer.close()


@dataclass
class Parts:
    """What was measured: seconds of each part, an array with a value for each round; tests are of all test images.

    Attributes:
        naive: Of each naive side an epoch and a test.
        start_s: Of a process and of what it builds before it trains.
        run: The run whose epochs were measured.
        positions: Of the text in one step, naive and ours.
        n_tested: Test images, and batches of them.
    """

    naive: dict[str, tuple[np.ndarray, np.ndarray]]
    fresh_epoch: np.ndarray
    view: np.ndarray
    known_view_epoch: np.ndarray
    first_test: np.ndarray
    later_test: np.ndarray
    start_s: float
    run: Run
    positions: tuple[int, int]
    n_tested: tuple[int, int]

    def naive_time(self, runs: Sequence[Run], label: str = "") -> np.ndarray:
        """Returns the seconds of all runs of a naive side, each in a process of its own."""
        epoch, test = self.naive[label]
        n_epochs = sum(run.n_epochs * self.scale(run) for run in runs)
        return len(runs) * (self.start_s + test) + n_epochs * epoch

    def our_time(self, runs: Sequence[Run], *, views: int, start_s: float) -> np.ndarray:
        """Returns the seconds of all runs with INPUT.VIEWS, whose starts take `start_s` together."""
        n_views = sum(min(run.n_epochs, views) * run.n_images for run in runs) / self.run.n_images
        n_epochs = sum(run.n_epochs * self.scale(run) for run in runs)
        epoch = self.known_view_epoch if views else self.fresh_epoch
        tests = self.first_test + (len(runs) - 1) * self.later_test
        return start_s + n_views * self.view + n_epochs * epoch + tests

    def scale(self, run: Run) -> float:
        return run.n_batches / self.run.n_batches

    def all_positions(self, runs: Sequence[Run]) -> tuple[int, int]:
        """Returns the positions of text in all runs, naive and ours."""
        n_steps = sum(run.n_epochs * run.n_batches for run in runs)
        naive, ours = self.positions
        return naive * (n_steps + len(runs) * self.n_tested[1]), ours * (n_steps + len(runs))

    def all_images(self, runs: Sequence[Run], *, views: int) -> tuple[int, int]:
        """Returns the images encoded in all runs, naive and ours."""
        fresh = sum(run.n_epochs * run.n_in_batches for run in runs)
        ours = sum(min(run.n_epochs, views) * run.n_images for run in runs) if views else fresh
        return fresh + len(runs) * self.n_tested[0], ours + self.n_tested[0]


def measure(report: Report, args: argparse.Namespace, folder: Path) -> Parts:
    """Measures all parts, reports them one by one and returns them.

    Args:
        report: Gets a line for each part.
        args: Of `add_run_arguments`.
        folder: Of all that the runs write.
    """
    start_s = import_time() + timed(lambda: build_run(args, folder / "start"))
    sides = Sides(args, folder)
    fresh, known_view = (partial(our_epoch, trainer) for trainer in sides.ours)
    epochs = [fresh, partial(encode_views, sides.views), known_view]
    tests = [partial(first_test, sides.fresh), partial(later_test, sides.fresh), sides.encode_prompts]
    naive = [part for side in sides.naive.values() for part in (side.epoch, side.test)]
    measures = [partial(timed, part) for part in (*naive, *epochs, *tests)]
    with ending_workers(*sides.owners()):  # left to the garbage collector, they would delay what is measured next
        *times, rates = alternate(args.repeats, *measures, partial(matmul_rate, args.prec))
        differences = {label: sides.differences(label) for label in sides.naive}
        flops = [count_flops(part) for part in (fresh, known_view)]  # one epoch more: nothing is compared after it
    naive_s, ours_s = times[: len(naive)], times[len(naive) :]
    naive_s = dict(zip(sides.naive, zip(naive_s[::2], naive_s[1::2])))
    ours_s[1] = [seconds / args.repeats for seconds in ours_s[1]]  # of one view
    sides.close()
    for label in sides.naive:
        sides_s = naive_s[label], ours_s[:-1]
        report_parts(report, sides, label, *sides_s, rates=rates, differences=differences[label], flops=flops)

    n_tested, loader = sides.n_test_images, sides.fresh.test_loader
    scale = n_tested / len(loader.dataset)
    *epochs_s, first_s, later_s, text_s = map(np.array, ours_s)
    tests_s = (text_s + scale * np.maximum(s - text_s, 0) for s in (first_s, later_s))
    naive_s = {label: (np.array(epoch), np.array(test) * scale) for label, (epoch, test) in naive_s.items()}
    n_tested = n_tested, math.ceil(n_tested / loader.batch_size)
    return Parts(naive_s, *epochs_s, *tests_s, start_s, sides.run, sides.positions, n_tested)


def report_parts(
    report: Report,
    sides: Sides,
    label: str,
    naive_s: Sequence[list[float]],
    ours_s: Sequence[list[float]],
    *,
    rates: list[float],
    differences: Sequence[float],
    flops: Sequence[float],
) -> None:
    """Reports what was measured beside one naive side."""
    run, loader = sides.run, sides.fresh.test_loader
    (naive, naive_test), (fresh, view, known_view, first, later) = naive_s, ours_s
    new_view = [sum(parts) for parts in zip(view, known_view)]
    seen, n_tested = run.n_in_batches, len(loader.dataset)
    of_epoch = tuple(n * run.n_batches for n in sides.positions)
    of_test = sides.positions[0] * len(loader), sides.positions[1]
    for case, sides_s, positions, images, difference, n_flops in (
        ("epoch, fresh views", (naive, fresh), of_epoch, (seen, seen), differences[0], flops[0]),
        ("epoch, a new view", (naive, new_view), of_epoch, (seen, run.n_images), differences[1], None),
        ("epoch, a known view", (naive, known_view), of_epoch, (seen, 0), None, flops[1]),
        ("first test", (naive_test, first), of_test, (n_tested, n_tested), differences[2], None),
        ("later test", (naive_test, later), of_test, (n_tested, 0), differences[2], None),
    ):
        measured = {"positions": positions, "images": images, "difference": difference, "flops": n_flops}
        report.compare(case + label, *sides_s, rates=rates, **measured)
