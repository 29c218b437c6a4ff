"""predict.py's command line. It costs no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="predict.py", description="Classifies images with a finished run.")
    parser.add_argument("run", metavar="RUN", help="a run's folder, or one of its checkpoints")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders, patterns; - reads a list of paths")
    parser.add_argument("--topk", type=int, default=5, metavar="K", help="classes to name for each image (default: 5)")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write instead of printing")
    parser.add_argument("--classnames", type=Path, metavar="FILE", help="other classes to tell apart, one a line")
    parser.add_argument("--threshold", type=float, default=0.0, metavar="P", help='below P the answer is "unknown"')
    parser.add_argument("--epoch", type=int, metavar="N", help="the model after N epochs (default: the tested one)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--no-cache", action="store_true", help="neither read nor keep the features of the images")
    args = parser.parse_args(argv)
    if args.topk < 1:
        parser.error(f"--topk is {args.topk}; it must be at least 1.")
    if not 0 <= args.threshold <= 1:
        parser.error(f"--threshold is {args.threshold}; it must be a probability, from 0 to 1.")
    return args
