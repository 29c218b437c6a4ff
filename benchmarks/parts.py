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

from engine.data.manager import DataManager

from .measure import Report, alternate, count_flops, matmul_rate, timed
from .runs import (
    NaiveRun,
    build_run,
    encode_views,
    first_test,
    import_time,
    keep_batches,
    later_test,
    our_epoch,
    our_logits,
    relative,
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
    """The same run naively and by ours: with fresh views, and with a view for each round, encoded before.

    Args:
        args: Of `add_run_arguments`.
        folder: Of all that they write.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.naive = NaiveRun(build_run(args, folder / "naive"))
        self.fresh = build_run(args, folder / "fresh")
        self.views = build_run(args, folder / "views", "INPUT.VIEWS", args.repeats)
        self.ours = (self.fresh, self.views)
        self.run = run_of(self.fresh.cfg, self.fresh.dm)
        self.places = (self.naive.places, self.fresh.model.encode_prompts.n_rows)
        self.n_test_images = len(self.fresh.test_loader.dataset)
        for trainer in (self.naive.trainer, self.fresh):
            keep_batches(trainer, args.test_batches)
        for trainer in self.ours:
            trainer.before_train()

    @torch.no_grad()
    def encode_prompts(self) -> None:
        """Does what our test does whatever the number of images is."""
        self.fresh.model.text_features()

    def differences(self) -> tuple[float, float, float]:
        """Returns how far ours are from the naive side: both gradients of the last step, and the test's logits."""
        gradients = (trainer.models["prompt_learner"].ctx.grad for trainer in self.ours)
        fresh, views = (relative(gradient, self.naive.learner.ctx.grad) for gradient in gradients)
        return fresh, views, relative(our_logits(self.fresh), self.naive.logits)

    def close(self) -> None:
        for trainer in self.ours:
            trainer.writer.close()


@dataclass
class Parts:
    """What was measured: seconds of each part, an array with a value for each round; tests are of all test images.

    Attributes:
        start_s: Of a process and of what it builds before it trains.
        run: The run whose epochs were measured.
        places: Of the text in one step, naive and ours.
        n_tested: Test images, and batches of them.
    """

    naive_epoch: np.ndarray
    fresh_epoch: np.ndarray
    view: np.ndarray
    known_view_epoch: np.ndarray
    naive_test: np.ndarray
    first_test: np.ndarray
    later_test: np.ndarray
    start_s: float
    run: Run
    places: tuple[int, int]
    n_tested: tuple[int, int]

    def naive_time(self, runs: Sequence[Run]) -> np.ndarray:
        """Returns the seconds of all runs, each in a process of its own."""
        n_epochs = sum(run.n_epochs * self.scale(run) for run in runs)
        return len(runs) * (self.start_s + self.naive_test) + n_epochs * self.naive_epoch

    def our_time(self, runs: Sequence[Run], *, views: int, start_s: float) -> np.ndarray:
        """Returns the seconds of all runs with INPUT.VIEWS, whose starts take `start_s` together."""
        n_views = sum(min(run.n_epochs, views) * run.n_images for run in runs) / self.run.n_images
        n_epochs = sum(run.n_epochs * self.scale(run) for run in runs)
        epoch = self.known_view_epoch if views else self.fresh_epoch
        tests = self.first_test + (len(runs) - 1) * self.later_test
        return start_s + n_views * self.view + n_epochs * epoch + tests

    def scale(self, run: Run) -> float:
        return run.n_batches / self.run.n_batches

    def all_places(self, runs: Sequence[Run]) -> tuple[int, int]:
        """Returns the places of text in all runs, naive and ours."""
        n_steps = sum(run.n_epochs * run.n_batches for run in runs)
        naive, ours = self.places
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
    epochs = [sides.naive.epoch, fresh, partial(encode_views, sides.views), known_view]
    tests = [sides.naive.test, partial(first_test, sides.fresh), partial(later_test, sides.fresh)]
    measures = [partial(timed, part) for part in (*epochs, *tests, sides.encode_prompts)]
    *times, text_s, rates = alternate(args.repeats, *measures, partial(matmul_rate, args.prec))
    times[2] = [seconds / args.repeats for seconds in times[2]]  # of one view
    differences = sides.differences()
    flops = [count_flops(part) for part in (fresh, known_view)]  # one epoch more: nothing is compared after it
    sides.close()
    report_parts(report, sides, times, rates, differences=differences, flops=flops)

    n_tested, loader = sides.n_test_images, sides.fresh.test_loader
    scale = n_tested / len(loader.dataset)
    *epochs_s, naive_test_s, first_s, later_s, text_s = map(np.array, (*times, text_s))
    tests_s = naive_test_s * scale, *(text_s + scale * np.maximum(s - text_s, 0) for s in (first_s, later_s))
    n_tested = n_tested, math.ceil(n_tested / loader.batch_size)
    return Parts(*epochs_s, *tests_s, start_s, sides.run, sides.places, n_tested)


def report_parts(
    report: Report,
    sides: Sides,
    times: Sequence[list[float]],
    rates: list[float],
    *,
    differences: Sequence[float],
    flops: Sequence[float],
) -> None:
    """Reports what was measured."""
    run, loader = sides.run, sides.fresh.test_loader
    naive, fresh, view, known_view, naive_test, first, later = times
    new_view = [sum(parts) for parts in zip(view, known_view)]
    seen, n_tested = run.n_in_batches, len(loader.dataset)
    of_epoch = tuple(n * run.n_batches for n in sides.places)
    of_test = sides.places[0] * len(loader), sides.places[1]
    for case, naive_s, ours_s, places, images, difference, n_flops in (
        ("epoch, fresh views", naive, fresh, of_epoch, (seen, seen), differences[0], flops[0]),
        ("epoch, a new view", naive, new_view, of_epoch, (seen, run.n_images), differences[1], None),
        ("epoch, a known view", naive, known_view, of_epoch, (seen, 0), None, flops[1]),
        ("first test", naive_test, first, of_test, (n_tested, n_tested), differences[2], None),
        ("later test", naive_test, later, of_test, (n_tested, 0), differences[2], None),
    ):
        measured = {"places": places, "images": images, "difference": difference, "flops": n_flops}
        report.compare(case, naive_s, ours_s, rates=rates, **measured)
