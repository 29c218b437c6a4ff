"""Fetches what a data set lacks under a root, then checks it; what is there already is left alone.

Run: python -m datasets.prepare caltech101 --root FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .check import add_arguments, print_report, run


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares one data set and returns the exit code: 1 where something is wrong afterwards."""
    parser = argparse.ArgumentParser(prog="python -m datasets.prepare", description="Fetch and check a data set.")
    add_arguments(parser)
    return run(prepare, parser.parse_args(argv))


def prepare(dataset: type, root: Path) -> int:
    dataset.prepare(root)
    return print_report(dataset, root)


if __name__ == "__main__":
    sys.exit(main())
