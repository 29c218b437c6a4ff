"""Testing CoOp on a data set: the first time, when images are encoded, and again in the same process.

Run:   python -m benchmarks.evaluation --root DATA [--repeats 3] [--test-batches 4] [--prec fp32] [--json FILE]
RN50 of random weights, 16 context vectors, Caltech-101. The naive side encodes the pixels of all images every time, and
for each batch of 100 of them all 77 positions of every prompt. Ours encodes each image once and the prompts once for
each evaluation. Loading the weights and building the data set are not counted on either side. Both sides test the same
part of the test set. Peak memory is that of a process of its own that tests on one batch.
"""

from __future__ import annotations

from engine.run.startup import share_cores

if __name__ == "__main__":  # as in a run, on both sides; it counts before torch is imported
    share_cores(1)

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .measure import Report, alternate, count_flops, matmul_rate, relative, timed
from .runs import (
    add_run_arguments,
    build_run,
    build_test,
    first_test,
    in_folder,
    keep_batches,
    naive_runs,
    our_logits,
)

N_AGAIN = 5  # evaluations of which the mean is taken


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, cfg="rn50_ep50", test_batches=4)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    in_folder(compare, parse_args(argv))


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Measures and reports."""
    trainer, naive_sides = build_run(args, folder), naive_runs(args, folder)
    n_all = len(trainer.test_loader.dataset)
    for side in (trainer, *(naive.trainer for naive in naive_sides.values())):
        keep_batches(side, args.test_batches)
    n_images, n_batches = len(trainer.test_loader.dataset), len(trainer.test_loader)
    report = Report("evaluation", args, f"Test of CoOp, {args.dataset}, {n_images} images, {args.prec}")
    first, again = partial(first_test, trainer), trainer.test
    flops_first, flops_again = count_flops(first), count_flops(again)
    *naive_times, first_s, again_s, rates = alternate(
        args.repeats,
        *(partial(timed, naive.test) for naive in naive_sides.values()),
        partial(timed, first),
        partial(timed, again, n=N_AGAIN),
        partial(matmul_rate, args.prec),
    )
    for (label, naive), naive_s in zip(naive_sides.items(), naive_times):
        same = {
            "positions": (n_batches * naive.positions, trainer.model.encode_prompts.n_rows),
            "rates": rates,
            "difference": relative(our_logits(trainer), naive.logits),
        }
        first_row = {"images": (n_images, n_images), "flops": flops_first}
        if n_all > n_images:
            naive_all_s, first_all_s = (n_all / n_images * statistics.median(s) for s in (naive_s, first_s))
            first_row["note"] = f"all {n_all:,} images, extrapolated: {naive_all_s:.0f} s -> {first_all_s:.0f} s"
        report.compare(f"first evaluation{label}", naive_s, first_s, **first_row, **same)
        again_row = {"images": (n_images, 0), "flops": flops_again}
        report.compare(f"second evaluation{label}", naive_s, again_s, **again_row, **same)
    report.memory_of_sides("a batch", build_test, args, folder)
    report.write()


if __name__ == "__main__":
    main()
