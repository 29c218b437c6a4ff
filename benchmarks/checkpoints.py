"""What exact resume costs: a run that writes its resume file every TRAIN.RESUME_EVERY_S seconds, and one that does not.

Run:   python -m benchmarks.checkpoints [--repeats 5] [--shots 4] [--seconds 60] [--steps 2000] [--json FILE]
CoOp on the drawn `shapes` with its small CLIP, from cached features: where steps are so short, looking whether it is
time weighs most. Epochs without a write and epochs with one after every step are measured in turn; the difference is
what a write costs, with all that comes with it, and a run pays one in every --seconds. Then the memory that the process
holds, after a tenth of --steps steps and after all of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import train
from engine import TRAINER_REGISTRY, TrainerX, get_cfg_default, set_random_seed
from engine.device import keep_freed_memory

from .measure import Report, add_arguments, alternate, timed
from .runs import our_epoch

MANY_EPOCHS = 10_000  # more than are measured


def build_run(args: argparse.Namespace, folder: Path, every_s: float) -> TrainerX:
    """Returns the trainer of a run that writes its resume file every so many seconds, ready to train."""
    words = ["--output-dir", folder, "--seed", 1, "--trainer", "CoOp"]
    words += ["--config-file", "configs/trainers/CoOp/tiny.yaml"]
    words += ["--dataset-config-file", "configs/datasets/shapes.yaml", "DATASET.NUM_SHOTS", args.shots]
    words += ["INPUT.VIEWS", 1, "FEATURES.DIR", folder / "features", "OPTIM.MAX_EPOCH", MANY_EPOCHS, *args.opts]
    words += ["TRAIN.RESUME_EVERY_S", every_s, "TRAIN.PRINT_FREQ", MANY_EPOCHS]
    cfg = train.setup_cfg(train.parse_args([str(word) for word in words]))
    cfg.freeze()
    set_random_seed(cfg.SEED)
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
    trainer.before_train()
    our_epoch(trainer)  # it encodes the images
    return trainer


def resident_gb() -> float:
    """Returns the memory that this process holds (needs Linux's /proc)."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024 / 1e9


def compare(report: Report, args: argparse.Namespace, folder: Path) -> None:
    """Reports epochs with and without writes, and what a run pays."""
    runs = [build_run(args, folder / name, every_s) for name, every_s in (("none", 0.0), ("every step", 1e-9))]
    n_steps = runs[0].num_batches
    without_s, with_s = alternate(args.repeats, *(partial(timed, partial(our_epoch, run)) for run in runs))
    write_s = statistics.median((written - plain) / n_steps for plain, written in zip(without_s, with_s))
    note = (
        f"{n_steps} steps; a write takes {1000 * write_s:.1f} ms, one in {args.seconds:g} s is "
        f"{write_s / args.seconds:.3%} of a run's time"
    )
    report.compare("an epoch, writing at every step", without_s, with_s, note=note)


def watch_memory(report: Report, args: argparse.Namespace, folder: Path) -> None:
    """Reports the memory that a run holds early and late."""
    run = build_run(args, folder / "memory", 0.1)
    for n_steps in (args.steps // 10, args.steps):
        while run.epochs_done * run.num_batches < n_steps:
            our_epoch(run)
        row = {"case": f"after {run.epochs_done * run.num_batches:,} steps", "resident_gb": resident_gb()}
        report.content["rows"].append(row)
        print(f"{row['case']:32}{row['resident_gb']:6.3f} GB", flush=True)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    default_s = get_cfg_default().TRAIN.RESUME_EVERY_S
    parser.add_argument("--shots", type=int, default=4, help="training images of each class (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=default_s, help="between writes (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="for the memory (default: %(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    keep_freed_memory()
    report = Report("checkpoints", args, f"CoOp on shapes, {args.shots} shot(s), resume files")
    with tempfile.TemporaryDirectory() as folder:
        compare(report, args, Path(folder))
        print("\nmemory that the process holds")
        watch_memory(report, args, Path(folder))
    report.write()


if __name__ == "__main__":
    main()
