"""Reads the finished runs of an experiment and prints the mean and the spread of their results.

Run: python parse_test_res.py output/caltech101/CoOp/rn50_ep50_16shots/nctx16_cscFalse_ctpend
     python parse_test_res.py output/evaluation/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/caltech101 --test-log
     python parse_test_res.py output/dtd/CoOp/rn50_16shots/nctx16_cscFalse_ctpend output/dtd/MyMethod/rn50_16shots

DIRECTORY holds one folder for each run (seed1, seed2, ...). The results.json of a finished run is read. Without one, as
in the original's runs, log.txt is: the last `* accuracy: 92.01%` after the line `Finish training` (--test-log:
`=> result`) counts, unless the log goes on after it with another epoch or another start.
Differs from the original: a run without a result is named and left out. The original stopped or counted an earlier one.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from engine.text import printable
from reports.found import expected_in
from reports.identity import checked, other_items
from reports.paths import check_folder
from reports.runs import END_OF_TEST, END_OF_TRAINING, Run, parse_run, record, seed_of
from reports.statistics import summarise, warnings_of

NO_PERCENT = ("nll", "brier", "temperature")  # measures of results.json
Experiments = dict[str, list[Run]]  # finished runs by the name of their experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report and returns the exit code: 0, or 1 if nothing could be summarised."""
    args = parse_args(argv)
    options = {"keyword": args.keyword, "end_signal": END_OF_TEST if args.test_log else END_OF_TRAINING}
    report = report_experiments if args.multi_exp else report_experiment
    found: dict[Path, Experiments] = {}
    try:
        for directory in args.directory:
            check_folder(directory, "DIRECTORY")
        for directory in {path.absolute(): path for path in args.directory}.values():
            try:
                runs = report(directory, ci95=args.ci95, **options)
                found[directory] = runs if args.multi_exp else {args.keyword: runs}
            except ValueError as error:
                if len(args.directory) == 1:
                    raise
                print(f"Warning: left out {printable(str(directory))}: {printable(str(error))}")
        if not found:
            raise ValueError("None of the directories holds a finished run.")
        if len(found) > 1:
            print_side_by_side(found, keyword=args.keyword, ci95=args.ci95)
    except (OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Prints the mean and the spread of finished runs.")
    parser.add_argument(
        "directory", type=Path, nargs="+", help="folder that holds one folder for each run; several: side by side too"
    )
    parser.add_argument("--ci95", action="store_true", help="print 1.96 std / sqrt(n) instead of the std")
    parser.add_argument("--test-log", action="store_true", help="the logs are of tests alone (--eval-only)")
    parser.add_argument("--multi-exp", action="store_true", help="the directory holds several experiments")
    parser.add_argument("--keyword", default="accuracy", help="result to read: accuracy, macro_f1, nll, ece, ...")
    return parser.parse_args(argv)


def report_experiments(directory: Path, *, keyword: str, end_signal: str, ci95: bool = False) -> Experiments:
    """Prints every experiment in the directory, then the mean over their means; returns their finished runs by name.

    Raises:
        ValueError: No experiment has a finished run.
    """
    experiments, found = _subfolders(directory), {}
    for experiment in experiments:
        try:
            found[experiment.name] = report_experiment(experiment, keyword=keyword, end_signal=end_signal, ci95=ci95)
        except ValueError as error:
            print(f"Warning: left out {printable(str(experiment))}: {printable(str(error))}")
    if not found:
        raise ValueError(
            f"{directory} holds no experiment with a finished run (folders: {len(experiments)}). "
            "With --multi-exp name the folder above the experiments; without it, the folder above the runs."
        )
    print("Average performance")
    print(f"* {keyword}: {shown(fmean(map(_mean, found.values())), keyword)}")
    if len(found) < len(experiments):
        print(f"(over {len(found)} of {len(experiments)} experiments)")
    return found


def report_experiment(directory: Path, *, keyword: str, end_signal: str, ci95: bool = False) -> list[Run]:
    """Prints the runs of one experiment and their summary, and returns the finished ones.

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
            print(f"file: {printable(str(run.path))}. {keyword}: {shown(run.value, keyword)}. ")
    if not finished:
        raise ValueError(_nothing_finished(directory, len(runs)))

    mean, spread = summarise([run.value for run in finished], ci95)
    print("===")
    print(f"Summary of directory: {printable(str(directory))}")
    print(f"* {keyword}: {shown(mean, keyword)} +- {shown(spread, keyword)}")
    if len(finished) < len(runs):
        print(f"(over {len(finished)} of {len(runs)} runs)")
    for warning in warnings_of(finished):
        print(f"Warning: {warning}")
    print("===")
    return finished


def print_side_by_side(found: Mapping[Path, Experiments], *, keyword: str, ci95: bool = False) -> None:
    """Prints a line for each experiment and a column for each directory, and what makes a line doubtful.

    The average is over the experiments that all directories have.
    """
    from reports.render.text import aligned  # here, because the mean of one folder needs no table

    labels = dict(zip(found, distinct_names(list(found)), strict=True))
    names = list(dict.fromkeys(name for experiments in found.values() for name in experiments))
    common = [name for name in names if all(name in experiments for experiments in found.values())]
    rows, warnings, digits = [], [], n_digits(keyword)
    for name in names:
        runs = {labels[directory]: experiments.get(name, []) for directory, experiments in found.items()}
        rows.append([printable(name), *(_summary(of, ci95, digits) for of in runs.values())])
        warnings += [f"{printable(name)}: {sentence}" for sentence in unlike(runs)]
    if len(names) > 1:
        averages = (fmean(_mean(of[name]) for name in common) if common else None for of in found.values())
        text = ["" if average is None else f"{average:.{digits}f}" for average in averages]
        rows.append([f"average of {len(common)}", *text])
    print(f"Side by side: {keyword}" + ("" if keyword in NO_PERCENT else " (%)"))
    print("\n".join(aligned([["", *labels.values()], *rows], n_labels=1)))
    for warning in warnings:
        print(f"Warning: {warning}")


def unlike(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """Returns why the means of some runs, by their names, do not compare: other seeds, or other items tested on."""
    found = {name: of for name, of in runs.items() if of}
    seeds = {name: " ".join(run.folder.name for run in of) for name, of in found.items()}
    said = "; ".join(f"{names} in {name}" for name, names in seeds.items())
    sentences = [f"Not the same seeds: {said}."] if len(set(seeds.values())) > 1 else []
    return sentences + list(filter(None, [other_items({name: of[0] for name, of in found.items()}, "They")]))


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Returns the parts of paths between those at their beginning and at their end that all have."""
    parts = [list(path.absolute().parts) for path in paths]
    while len({of[0] for of in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [of[1:] for of in parts]
    while len({of[-1] for of in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [of[:-1] for of in parts]
    return [printable("/".join(of)) for of in parts]


def shown(value: float, keyword: str) -> str:
    """Returns a value of a measure with its unit."""
    return f"{value:.{n_digits(keyword)}f}" + ("" if keyword in NO_PERCENT else "%")


def n_digits(keyword: str) -> int:
    """Returns how many digits of a measure are shown behind the point."""
    return 4 if keyword in NO_PERCENT else 2


def _mean(runs: Sequence[Run]) -> float:
    return fmean(run.value for run in runs)


def _summary(runs: Sequence[Run], ci95: bool, digits: int) -> str:
    return " +- ".join(f"{x:.{digits}f}" for x in summarise([run.value for run in runs], ci95)) if runs else "missing"


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
        remedy = f"Its folders hold runs themselves: name one of them, or {directory} with --multi-exp."
    else:
        remedy = "Start the runs or finish them, or name the folder above seed1, seed2, ..."
    return f"{directory} holds no finished run (run folders: {n_runs}). {remedy}"


if __name__ == "__main__":
    sys.exit(main())
