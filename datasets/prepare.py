"""Fetches what data sets lack under a root, then checks them; what is there already is left alone.

Run: python -m datasets.prepare caltech101 dtd --root FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .check import add_arguments, print_report, run
from .fewshot_file import write_fewshot
from .split import draw_few_shots


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares data sets and returns the exit code: 1 where something is wrong afterwards."""
    args = parse_args(argv)
    return run(partial(plan if args.dry_run else prepare, args=args), args)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m datasets.prepare", description="Fetch and check data sets.")
    add_arguments(parser)
    parser.add_argument(
        "--from", dest="given", default="", metavar="DIR_OR_URL", help="where to look first: a folder, or an address"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be fetched")
    parser.add_argument("--export-fewshot", metavar="FILE", help="also write the drawn items as JSON Lines")
    parser.add_argument("--shots", type=int, default=16, help="for --export-fewshot (default: 16)")
    parser.add_argument("--seed", type=int, default=1, help="for --export-fewshot (default: 1)")
    return parser.parse_args(argv)


def plan(dataset: type, root: Path, *, args: argparse.Namespace) -> int:
    lines = dataset.plan(root, given=args.given)
    print("\n  ".join([f"{dataset.__name__} in {root / dataset.dataset_dir}:", *lines]))
    return 0


def prepare(dataset: type, root: Path, *, args: argparse.Namespace) -> int:
    dataset.prepare(root, **({"given": args.given} if args.given else {}))  # a data set's own may take the root alone
    code = print_report(dataset, root)
    if code == 0 and args.export_fewshot:
        train, val, _ = dataset.read_items(root)
        images = root / dataset.dataset_dir / dataset.image_dir
        write_fewshot(Path(args.export_fewshot), images, *draw_few_shots(train, val, shots=args.shots, seed=args.seed))
    return code


if __name__ == "__main__":
    sys.exit(main())
