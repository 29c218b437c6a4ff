"""Draws the few-shot curves: accuracy over shots for each data set and on average, for every method that was run.

Run: python draw_curves.py --out curves.pdf
     python draw_curves.py --dataset caltech101 dtd --backbone vit_b16 --out curves.png

A note names what is left out, and what has fewer seeds than the rest. Several data sets get a panel for their average,
over those on which all its methods have all numbers of shots.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.text import printable
from reports.experiments import FEW_SHOTS
from reports.figures.few_shot import Curves, find_curves
from reports.paths import check_folder, check_parent

SUFFIXES = (".png", ".pdf", ".svg")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the figure and returns the exit code: 0, or 1 after an error, which is printed."""
    args = parse_args(argv)
    try:
        check_out(args.out)
        output = check_folder(args.output_dir, "--output-dir")
        curves = find_curves(output, backbone=args.backbone, datasets=args.dataset, shots=args.shots)
        for note in curves.notes:
            print(f"Note: {printable(note)}.", file=sys.stderr)
        check_found(curves, args)
        from reports.figures.curves import draw_figure, save_figure  # imports matplotlib, which --help does not need

        save_figure(draw_figure(curves), args.out)
    except (OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    n_datasets, n_methods = len(curves.datasets), len(curves.methods)
    print(f"{args.out}: {printable(curves.backbone)}, data sets: {n_datasets}, methods: {n_methods}")
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output-dir", type=Path, default=Path("output"), metavar="DIRECTORY", help="folder of all runs"
    )
    parser.add_argument("--dataset", nargs="+", default=[], metavar="NAME", help="data sets (default: all there are)")
    parser.add_argument("--backbone", default="", help="first part of the configs' names (default: the most frequent)")
    parser.add_argument("--shots", nargs="+", type=int, default=FEW_SHOTS, metavar="N", help="default: 1 2 4 8 16")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="figure to write: .png, .pdf or .svg")
    return parser.parse_args(argv)


def check_out(path: Path) -> None:
    """Says whether a figure can be written to the path.

    Raises:
        ValueError: Its suffix names no format.
        FileNotFoundError: Its folder does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--out is {path}; its name must end in one of {', '.join(SUFFIXES)}.")
    check_parent(path, "--out")


def check_found(curves: Curves, args: argparse.Namespace) -> None:
    """Says whether everything that was asked for has at least one finished run.

    Raises:
        ValueError: Nothing is found, or nothing for one of the data sets.
    """
    missing = [name for name in args.dataset if name not in curves.points]
    if missing or not curves.points:
        asked = f" of {', '.join(missing)}" if missing else ""
        asked += f" with {args.backbone}" if args.backbone else ""
        raise ValueError(
            f"{args.output_dir} holds no finished few-shot run{asked}. Such runs are in folders like "
            f"{args.output_dir}/caltech101/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/seed1. "
            "Run `bash scripts/reproduce.sh few_shot`, or check --output-dir, --dataset, --backbone and --shots."
        )


if __name__ == "__main__":
    sys.exit(main())
