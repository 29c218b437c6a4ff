"""Training and testing CoOp for three seeds as scripts/coop/main.sh does: fresh views in every epoch, and INPUT.VIEWS.

Run:   python -m benchmarks.train_run --root DATA [--repeats 3] [--test-batches 1] [--prec fp32] [--json FILE]
RN50 of random weights, 16 context vectors, 1 shot, 50 epochs, Caltech-101. Whole epochs and a part of the test are
measured in turn; what all runs take is extrapolated from them (benchmarks/parts.py). Each run is a process, whose start
counts on both sides; the runs share the cache of image features. Peak memory is that of a process of its own that does
one step.
"""

from __future__ import annotations

from engine.run.startup import share_cores

if __name__ == "__main__":  # as in a run, on both sides; it counts before torch is imported
    share_cores(1)

import argparse
from collections.abc import Sequence
from pathlib import Path

from .measure import Report
from .parts import measure
from .runs import add_run_arguments, build_step, in_folder


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, cfg="rn50_ep50", test_batches=1)
    parser.add_argument("--shots", type=int, default=1, help="training images of each class (default: %(default)s)")
    parser.add_argument("--n-seeds", type=int, default=3, help="number of runs (default: %(default)s)")
    parser.add_argument("--views", type=int, default=8, help="INPUT.VIEWS (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    in_folder(compare, parse_args(argv))


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Measures and reports."""
    args.opts = ["DATASET.NUM_SHOTS", str(args.shots), *args.opts]
    report = Report("train_run", args, f"CoOp, {args.dataset}, {args.shots} shot(s), {args.prec}")
    parts = measure(report, args, folder)
    runs = [parts.run] * args.n_seeds
    start_s = len(runs) * parts.start_s
    print(f"\n{len(runs)} seeds, {parts.run.n_epochs} epochs, extrapolated; a start takes {parts.start_s:.1f} s")
    for case, views in (("fresh views", 0), (f"INPUT.VIEWS {args.views}", args.views)):
        ours_s = parts.our_time(runs, views=views, start_s=start_s)
        counts = {"positions": parts.all_positions(runs), "images": parts.all_images(runs, views=views)}
        for label in parts.naive:
            report.compare(case + label, parts.naive_time(runs, label), ours_s, **counts)
    report.memory_of_sides("a step", build_step, args, folder)
    report.write()


if __name__ == "__main__":
    main()
