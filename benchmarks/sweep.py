"""A grid of shots and seeds: sweep.py with INPUT.VIEWS in one process against a naive run for each point of the grid.

Run:   python -m benchmarks.sweep --root DATA [--repeats 3] [--test-batches 1] [--prec fp32] [--json FILE]
RN50 of random weights, 16 context vectors, 1 2 4 8 16 shots of three seeds with the paper's epochs (50, 100 or 200 by
shots), Caltech-101. Whole epochs of the smallest number of shots and a part of the test are measured in turn; what the
grid takes is extrapolated from them (benchmarks/parts.py), the epochs by their number of batches. A naive run is a
process, whose start counts; of ours the first loads the CLIP, and for the others the start is what it takes to build a
run beside it. Ours are counted one after another, as with `sweep.py --jobs 1`.
"""

from __future__ import annotations

from engine.run.startup import share_cores

if __name__ == "__main__":  # as in a run, on both sides; it counts before torch is imported
    share_cores(1)

import argparse
from collections.abc import Sequence
from pathlib import Path

import sweep
import train
from engine.data.manager import DataManager
from engine.process_cache import sharing

from .measure import Report, timed
from .parts import Run, measure, run_of
from .runs import add_run_arguments, build_run, build_step, in_folder


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, cfg="rn50", test_batches=1)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="(default: 1 2 4 8 16)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(default: 1 2 3)")
    parser.add_argument("--views", type=int, default=8, help="INPUT.VIEWS (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    in_folder(compare, parse_args(argv))


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Measures and reports."""
    runs = grid(args, folder)
    args.opts = ["DATASET.NUM_SHOTS", str(min(args.shots)), *args.opts]
    report = Report("sweep", args, f"CoOp, {args.dataset}, {min(args.shots)} shot(s) measured, {args.prec}")
    parts, later_start_s = measure(report, args, folder), later_start(args, folder)
    print(f"\nextrapolated; a start takes {parts.start_s:.1f} s, in a sweep after the first {later_start_s:.1f} s")
    case, start_s = f"{len(runs)} runs, INPUT.VIEWS {args.views}", parts.start_s + (len(runs) - 1) * later_start_s
    ours_s = parts.our_time(runs, views=args.views, start_s=start_s)
    counts = {"positions": parts.all_positions(runs), "images": parts.all_images(runs, views=args.views)}
    for label in parts.naive:
        report.compare(case + label, parts.naive_time(runs, label), ours_s, **counts)
    report.memory_of_sides("a step", build_step, args, folder)
    report.write()


def grid(args: argparse.Namespace, folder: Path) -> list[Run]:
    """Returns the runs that sweep.py does."""
    words = ["--dataset", args.dataset, "--cfg", args.cfg, "--paper-epochs", "--views", args.views]
    words += ["--shots", *args.shots, "--seeds", *args.seeds, "--root", args.root, "--output-dir", folder / "grid"]
    words += ["MODEL.BACKBONE.NAME", args.backbone, *args.opts]
    jobs = sweep.plan(sweep.parse_args([str(word) for word in words])).values()
    cfgs = [train.setup_cfg(train.parse_args(list(job.argv))) for job in jobs]
    return [run_of(cfg, DataManager(cfg)) for cfg in cfgs]


def later_start(args: argparse.Namespace, folder: Path) -> float:
    """Returns the seconds in which a process that has built a run builds another."""
    with sharing():
        build_run(args, folder / "grid_first")
        return timed(lambda: build_run(args, folder / "grid_later"))


if __name__ == "__main__":
    main()
