"""What a run costs around its first step, in CPU seconds: as many as a script that imports torch and loads the weights?

Run:   python -m benchmarks.startup [--repeats 5]
The script imports torch and torchvision and reads the small CLIP's weights, no more. The run is a call of train.py:
CoOp on the drawn `shapes`, tiny config, one step, no test; its checkpoint and results are counted, too. `--help` is
train.py's. All are measured in turn, each in a process of its own with one thread: user and system seconds of it and
of those that it starts, which other work on the machine changes little. The data are drawn before.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from clip.clip import resolve

from .measure import alternate, machine

SCRIPT = (
    "import sys, numpy, torch, torchvision; [torch.from_numpy(array) for array in numpy.load(sys.argv[1]).values()]"
)
ONE_STEP = {
    "OPTIM.MAX_EPOCH": 1,
    "DATASET.NUM_SHOTS": 1,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 96,  # one image of each class
    "TEST.NO_TEST": True,
}
MODEL = "ViT-T/8-shapes"


def run_words(folder: Path, *flags: str) -> list[str]:
    """Returns the arguments of train.py for a run of one step, in a new folder."""
    words = ["--output-dir", tempfile.mkdtemp(dir=folder), "--seed", 1, "--trainer", "CoOp", "--backbone", MODEL]
    words += [*flags, "--config-file", "configs/trainers/CoOp/tiny.yaml"]
    words += ["--dataset-config-file", "configs/datasets/shapes.yaml", "FEATURES.DIR", folder / "features"]
    return [str(word) for word in (*words, *(word for pair in ONE_STEP.items() for word in pair))]


def cpu_s(argv: Sequence[str | Path]) -> float:
    """Returns the CPU seconds of a Python process with these arguments, and of those that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *argv], env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Prints a line for each side."""
    sides = {
        "torch, torchvision, weights": lambda: cpu_s(["-c", SCRIPT, resolve(MODEL)]),
        "train.py --help": partial(cpu_s, ["train.py", "--help"]),
        "train.py --no-train": lambda: cpu_s(["train.py", *run_words(folder, "--no-train")]),
        "train.py, one step": lambda: cpu_s(["train.py", *run_words(folder)]),
    }
    sides["train.py --no-train"]()  # draws the data
    seconds = alternate(args.repeats, *sides.values())
    for side, found in zip(sides, seconds, strict=True):
        ratios = [own / script for own, script in zip(found, seconds[0], strict=True)]
        print(
            f"{side:28}{statistics.median(found):6.2f} s of a core, ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} - {max(ratios):.2f})",
            flush=True,
        )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds of all sides (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


if __name__ == "__main__":
    main()
