"""Fetches what data sets lack under a root, then checks them; what is there already is left alone.

Run: python -m datasets.prepare caltech101 dtd --root FOLDER
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .check import add_arguments, expand_names, run
from .data_copy import DataCopy
from .splits.few_shot import draw_few_shots
from .splits.fewshot_file import write_fewshot


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares data sets and returns the exit code: 1 where something is wrong afterwards."""
    args = parse_args(argv)
    return run(plan if args.dry_run else partial(prepare, args=args), args, source=args.source)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m datasets.prepare", description="Fetch and check data sets.")
    add_arguments(parser)
    parser.add_argument(
        "--from", dest="source", default="", metavar="DIR_OR_URL", help="where to look first: a folder, or an address"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be fetched")
    parser.add_argument("--export-fewshot", metavar="FILE", help="also write the drawn items as JSON Lines")
    parser.add_argument("--shots", type=int, default=16, help="for --export-fewshot (default: 16); -1: all items")
    parser.add_argument("--seed", type=int, default=1, help="for --export-fewshot (default: 1)")
    args = parser.parse_args(argv)
    if args.export_fewshot and len(expand_names(args.names)) > 1:
        parser.error(f"--export-fewshot {args.export_fewshot} takes one data set. Name one.")
    if args.shots < 1 and args.shots != -1:
        parser.error(f"--shots is {args.shots}; it must be 1 or more, or -1 for all items. Change --shots.")
    if args.seed < 0:  # for training it means a new draw each time
        parser.error(f"--seed is {args.seed}; it must be 0 or more. Change --seed.")
    return args


def plan(copy: DataCopy) -> int:
    print("\n  ".join([f"{copy.name} in {copy.folder}:", *copy.plan()]), flush=True)
    return 0


def prepare(copy: DataCopy, *, args: argparse.Namespace) -> int:
    copy.prepare()
    report = copy.dataset.check(copy.root)
    print(report, flush=True)  # in order with what is logged, in a file too
    if args.export_fewshot and not report.ok:
        raise ValueError(f"{args.export_fewshot} is not written. Correct first what is wrong with {copy.name}.")
    if args.export_fewshot:
        export(copy, args)
    return 0 if report.ok else 1


def export(copy: DataCopy, args: argparse.Namespace) -> None:
    """Writes the items that training draws with these shots and this seed."""
    all_train, all_val, _ = copy.read()
    train, val = draw_few_shots(all_train, all_val, shots=args.shots, seed=args.seed)
    if not train:
        raise ValueError(f"{copy.name} has no training items to write. Name another data set for --export-fewshot.")
    write_fewshot(Path(args.export_fewshot), copy.images, train, val)
    print(f"{args.export_fewshot}: {len(train):,} training and {len(val):,} validation items")


if __name__ == "__main__":
    sys.exit(main())
