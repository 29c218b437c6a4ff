"""Says what is missing or wrong in copies of data sets.

Run: python -m datasets.check caltech101 dtd --root FOLDER [--decode]
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from engine import DATASET_REGISTRY
from engine.registry import near_name

from .data_copy import DataCopy
from .verify.report import Report, tabulate_reports

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "datasets"
ALL = "all"
NOT_IN_ALL = "folder"  # a root of its own


def main(argv: Sequence[str] | None = None) -> int:
    """Checks data sets and returns the exit code: 1 where something is wrong; of `all`, where one that is there is."""
    args = parse_args(argv)
    reports: list[Report] = []

    def check(copy: DataCopy) -> int:
        reports.append(copy.dataset.check(copy.root, decode=args.decode))
        return 0  # print_reports counts

    return max(run(check, args), print_reports(reports, may_be_absent=ALL in args.names))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m datasets.check", description="Check copies of data sets.")
    add_arguments(parser)
    parser.add_argument("--decode", action="store_true", help="also read every image as a whole (takes minutes)")
    return parser.parse_args(argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = f"caltech101 as in configs/datasets, or Caltech101; {ALL}: every one but {NOT_IN_ALL}"
    parser.add_argument("names", nargs="+", metavar="NAME", help=names)
    parser.add_argument("--root", default=os.environ.get("DATA", ""), help="folder of the data sets; default: $DATA")


def run(command: Callable[[DataCopy], int], args: argparse.Namespace, *, source: str = "") -> int:
    """Calls command(copy) -> exit code; a user's error becomes one message and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "httpx2"):  # the hub's client tells of every request
        logging.getLogger(name).setLevel(logging.WARNING)
    if ALL in args.names and not args.root:
        print(f"--root is empty; {ALL} needs a folder of data sets. Pass --root FOLDER, or set DATA.", file=sys.stderr)
        return 1
    codes = []
    for name in expand_names(args.names):
        try:
            dataset = find_dataset(name)
            codes.append(command(DataCopy(dataset, dataset.find_root(args.root), source)))
        except (KeyError, ValueError, OSError, NotImplementedError) as error:
            print(error.args[0] if isinstance(error, KeyError) else error, file=sys.stderr)
            codes.append(1)
    return max(codes)


def expand_names(names: Sequence[str]) -> list[str]:
    """Returns the names, each once; `all` stands for those of all configs but that of `folder`."""
    return list(dict.fromkeys(one for name in names for one in (list_names() if name == ALL else [name])))


def list_names() -> list[str]:
    """Returns the names of the configs but that of `folder`, sorted."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != NOT_IN_ALL)


def find_dataset(name: str) -> type:
    """Returns the data set of a config's name (caltech101) or a registered name (Caltech101), or raises KeyError."""
    config = CONFIGS / f"{name}.yaml"
    if config.exists():
        name = yaml.safe_load(config.read_text(encoding="utf-8"))["DATASET"]["NAME"]
    elif name not in DATASET_REGISTRY.registered_names():
        near = near_name(name, [*DATASET_REGISTRY.registered_names(), *list_names()])
        raise KeyError(f"There is no data set {name!r}; choose one of: {', '.join([*list_names(), NOT_IN_ALL])}.{near}")
    return DATASET_REGISTRY.get(name)


def print_reports(reports: Sequence[Report], *, may_be_absent: bool) -> int:
    """Prints one report as it is, of several a table and, below it, those with problems; returns the exit code."""
    wrong = [report for report in reports if not report.ok and (report.is_there or not may_be_absent)]
    if len(reports) < 2:
        print(*reports, end="\n" * len(reports))
        return 1 if wrong else 0
    print(tabulate_reports(reports), *wrong, sep="\n\n")
    if not any(report.is_there for report in reports):
        roots = ", ".join(sorted({str(report.folder.parent) for report in reports}))
        print(
            f"\n{roots} holds none of these data sets. Correct --root (or DATA), or fill it: "
            "`python -m datasets.prepare NAME --root FOLDER`."
        )
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
