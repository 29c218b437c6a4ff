"""Reads the finished runs of an experiment and prints the mean and the spread of their results.

Run: python parse_test_res.py output/caltech101/CoOp/rn50_ep50_16shots/nctx16_cscFalse_ctpend
     python parse_test_res.py output/evaluation/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/caltech101 --test-log

DIRECTORY holds one folder for each run (seed1, seed2, ...). The results.json of a finished run is read. Without one, as
in the original's runs, log.txt is: the last `* accuracy: 92.01%` after the line `Finish training` (--test-log:
`=> result`) counts, unless the log goes on after it with another epoch or another start.
Differs from the original: a run without a result is named and left out. The original stopped or counted an earlier one.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from engine.text import printable
from reports.found import expected_in
from reports.identity import checked
from reports.paths import check_folder
from reports.runs import END_OF_TEST, END_OF_TRAINING, Run, parse_run, record, seed_of
from reports.statistics import summarise, warnings_of


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report and returns the exit code: 0, or 1 if nothing could be summarised."""
    args = parse_args(argv)
    try:
        report = report_experiments if args.multi_exp else report_experiment
        report(
            check_folder(args.directory, "DIRECTORY"),
            keyword=args.keyword,
            end_signal=END_OF_TEST if args.test_log else END_OF_TRAINING,
            ci95=args.ci95,
        )
    except (OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Prints the mean and the spread of finished runs.")
    parser.add_argument("directory", type=Path, help="folder that holds one folder for each run, such as seed1")
    parser.add_argument("--ci95", action="store_true", help="print 1.96 std / sqrt(n) instead of the std")
    parser.add_argument("--test-log", action="store_true", help="the logs are of tests alone (--eval-only)")
    parser.add_argument("--multi-exp", action="store_true", help="the directory holds several experiments")
    parser.add_argument("--keyword", default="accuracy", help="result to read: accuracy, error, macro_f1, ...")
    return parser.parse_args(argv)


def report_experiments(directory: Path, *, keyword: str, end_signal: str, ci95: bool = False) -> float:
    """Prints every experiment in the directory, then the mean over their means (in percent), which it returns.

    Raises:
        ValueError: No experiment has a finished run.
    """
    experiments, means = _subfolders(directory), []
    for experiment in experiments:
        try:
            means.append(report_experiment(experiment, keyword=keyword, end_signal=end_signal, ci95=ci95))
        except ValueError as error:
            print(f"Warning: left out {printable(str(experiment))}: {printable(str(error))}")
    if not means:
        raise ValueError(
            f"{directory} holds no experiment with a finished run (folders: {len(experiments)}). "
            "With --multi-exp name the folder above the experiments; without it, the folder above the runs."
        )
    average = fmean(means)
    print("Average performance")
    print(f"* {keyword}: {average:.2f}%")
    if len(means) < len(experiments):
        print(f"(over {len(means)} of {len(experiments)} experiments)")
    return average


def report_experiment(directory: Path, *, keyword: str, end_signal: str, ci95: bool = False) -> float:
    """Prints the runs of one experiment and their summary, and returns their mean in percent.

    Raises:
        ValueError: No run is finished.
    """
    print(f"Parsing files in {printable(str(directory))}")
    runs = parse_experiment(directory, keyword=keyword, end_signal=end_signal)
    finished = [run for run in runs if run.value is not None]
    for run in runs:
        if run.value is None:
            print(f"Warning: left out {printable(str(run.folder))}: {run.problem}.")
        else:
            print(f"file: {printable(str(run.path))}. {keyword}: {run.value:.2f}%. ")
    if not finished:
        raise ValueError(_nothing_finished(directory, len(runs)))

    mean, spread = summarise([run.value for run in finished], ci95)
    print("===")
    print(f"Summary of directory: {printable(str(directory))}")
    print(f"* {keyword}: {mean:.2f}% +- {spread:.2f}%")
    if len(finished) < len(runs):
        print(f"(over {len(finished)} of {len(runs)} runs)")
    for warning in warnings_of(finished):
        print(f"Warning: {warning}")
    print("===")
    return mean


def parse_experiment(directory: Path, *, keyword: str = "accuracy", end_signal: str = END_OF_TRAINING) -> list[Run]:
    """Reads every run in the directory, seed2 before seed10; or the directory itself if it is a run."""
    folders = [directory] if record(directory) else _subfolders(directory)
    expected = expected_in(folders[0].parent) if folders else {}
    runs = (parse_run(folder, keyword=keyword, end_signal=end_signal) for folder in folders)
    return [checked(run, expected) if expected and seed_of(run.folder) is not None else run for run in runs]


def _subfolders(directory: Path) -> list[Path]:
    folders = [path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(folders, key=lambda path: [int(part) if part.isdecimal() else part for part in _parts(path.name)])


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)  # text and digits alternate, so two names can be compared part by part


def _nothing_finished(directory: Path, n_runs: int) -> str:
    if any(record(run) for folder in _subfolders(directory) for run in _subfolders(folder)):
        remedy = "Its folders hold runs themselves: add --multi-exp, or name one of them."
    else:
        remedy = "Start the runs or finish them, or name the folder above seed1, seed2, ..."
    return f"{directory} holds no finished run (run folders: {n_runs}). {remedy}"


if __name__ == "__main__":
    sys.exit(main())
