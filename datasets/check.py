"""Says what is missing or wrong in a copy of a data set.

Run: python -m datasets.check caltech101 --root FOLDER [--decode]
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from engine import DATASET_REGISTRY

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "datasets"


def main(argv: Sequence[str] | None = None) -> int:
    """Checks one data set and returns the exit code: 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m datasets.check", description="Check a copy of a data set.")
    add_arguments(parser)
    parser.add_argument("--decode", action="store_true", help="also read every image as a whole (takes minutes)")
    args = parser.parse_args(argv)
    return run(lambda dataset, root: print_report(dataset, root, decode=args.decode), args)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="as in configs/datasets (caltech101) or as registered (Caltech101)")
    parser.add_argument("--root", default=os.environ.get("DATA", ""), help="folder of the data sets; default: $DATA")


def run(command, args: argparse.Namespace) -> int:
    """Calls command(dataset class, root) -> exit code; a user's error becomes one message and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        dataset = find_dataset(args.name)
        return command(dataset, dataset.find_root(args.root))
    except (KeyError, ValueError, OSError, NotImplementedError) as error:
        print(error.args[0] if isinstance(error, KeyError) else error, file=sys.stderr)
        return 1


def find_dataset(name: str) -> type:
    """Returns the data set of a config's name (caltech101) or of a registered name (Caltech101).

    Raises:
        KeyError: If there is none.
    """
    config = CONFIGS / f"{name}.yaml"
    if config.exists():
        name = yaml.safe_load(config.read_text(encoding="utf-8"))["DATASET"]["NAME"]
    return DATASET_REGISTRY.get(name)


def print_report(dataset: type, root: Path, *, decode: bool = False) -> int:
    report = dataset.check(root, decode=decode)
    print(report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
