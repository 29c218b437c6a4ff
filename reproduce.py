"""Runs what tables of the papers need, skips what is done, then prints the tables beside the papers' numbers.

    tables -> command lines -> the calls that a dry run of each prints -> what is left of them -> workers -> report

The output of a run is in its log.txt alone. A test waits for the run that trains its model. If a run fails, the others
go on, and it is named at the end.

Run: bash scripts/reproduce.sh shapes
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C during the imports leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import report
from engine.config.load import ConfigError
from launch.plan import (
    default_jobs,
    print_failures,
    print_left,
    print_line,
    print_plan,
    run,
    train_job,
    until_interrupted,
)
from launch.workers import Job
from reports.tables import catalogue as tables

# Command lines set their own, so the caller's are not passed on. No table is of a plug-in.
SCRIPT_VARIABLES = {
    "TRAINER", "TRAINER_NODE", "SOURCE", "SHOTS", "NCTX", "CSC", "CTP", "SUBSAMPLE", "PLUGIN", "PLUGIN_CONFIG"
}  # fmt: skip
# In a dry run a script prints its calls of $PYTHON. A command line without a script calls $PYTHON itself, which is a
# function that prints. Bash reads the printed words: it quotes some as $'...', which shlex does not know.
DRY_RUN = r"""set -o pipefail; export DRY_RUN=1 PYTHON=python; python() { printf 'python'; printf ' %q' "$@"; echo; }
eval "$1" | while IFS= read -r call; do eval "printf '%s\0' $call"; echo; done"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 all is done, 1 an error, 130 or 143 after Ctrl-C or SIGTERM."""
    return until_interrupted(lambda: reproduce(parse_args(argv)))


def reproduce(args: argparse.Namespace) -> int:
    """Plans, runs what is left and reports; returns the exit code."""
    try:
        commands = list(dict.fromkeys(line for table in args.tables for line in tables.commands(table)))
        jobs = plan(commands, args.output_dir)
    except (ConfigError, KeyError) as error:
        print(f"Error: {error.args[0]}", file=sys.stderr)
        return 1
    if args.dry_run:
        print_plan(commands, jobs)
        return 0
    print_left(jobs, args.jobs)
    failures = run(jobs, args.jobs, partial(print_line, args.output_dir))
    print()
    code = report.main([*args.tables, "--output-dir", args.output_dir])
    print_failures(failures)
    return 1 if failures else code


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", metavar="TABLE", help=f"a table, or a group: {', '.join(tables.GROUPS)}")
    parser.add_argument("--output-dir", default="output", help="folder of all runs")
    parser.add_argument("--jobs", type=int, help="runs side by side (default: one a GPU, else one a core up to 4)")
    parser.add_argument("--dry-run", action="store_true", help="only list the commands and what is left")
    args = parser.parse_args(argv)
    if args.jobs is None:
        args.jobs = default_jobs()
    if args.jobs < 1:
        parser.error(f"--jobs is {args.jobs}; it is the number of runs side by side, 1 or more.")
    return args


def plan(commands: Sequence[str], output_dir: str) -> list[Job]:
    """Returns the calls that command lines make, each once.

    Raises:
        ConfigError: With all that is wrong; no run has started.
    """
    jobs: dict[Path, Job] = {}
    errors: dict[str, list[str]] = {}  # message -> the command lines that it is about
    with ThreadPoolExecutor() as pool:
        dry_runs = list(pool.map(lambda command: dry_run(command, output_dir), commands))
    for command, printed in zip(commands, dry_runs, strict=True):
        try:
            for words in calls_of(printed):
                job = read_call(command, words)
                jobs.setdefault(job.target, job)
        except ConfigError as error:
            errors.setdefault(str(error), []).append(command)
    if errors:
        raise ConfigError("\n".join(f"{lines[0]}{and_others(lines)}\n{error}" for error, lines in errors.items()))
    return list(jobs.values())


def dry_run(command: str, output_dir: str) -> subprocess.CompletedProcess:
    """Returns the calls that a command line makes, as bash prints them: one a line, words end with a null."""
    environment = {name: value for name, value in os.environ.items() if name not in SCRIPT_VARIABLES}
    environment["OUTPUT"] = output_dir
    return subprocess.run(["bash", "-c", DRY_RUN, "bash", command], env=environment, capture_output=True, text=True)


def calls_of(printed: subprocess.CompletedProcess) -> list[list[str]]:
    """Returns the words of each call that a dry run printed.

    Raises:
        ConfigError: The script refuses its arguments.
    """
    if printed.returncode:
        raise ConfigError(printed.stderr.strip())
    return [line.split("\0")[:-1] for line in printed.stdout.split("\n")[:-1]]


def read_call(command: str, words: Sequence[str]) -> Job:
    """Reads `python PROGRAM.py ARGUMENTS ...`: what it makes, what it needs, and whether it is done."""
    program, argv = Path(words[1]).stem, tuple(words[2:])
    if program == "train":
        import train  # takes seconds, which --help does not need
        from clip.clip import weights_sha256

        return train_job(command, argv, train.setup_cfg(train.parse_args(list(argv))), weights_sha256)
    # interpret_prompt.py reads a checkpoint, its first argument, and writes the file after --output.
    checkpoint, target = Path(argv[0]).absolute(), Path(argv[argv.index("--output") + 1]).absolute()
    done = target.is_file() and checkpoint.is_file() and target.stat().st_mtime_ns >= checkpoint.stat().st_mtime_ns
    return Job(command, program, argv, target, checkpoint.parent.parent, done)


def and_others(things: Sequence[object]) -> str:
    """Returns " (and N more)" for the things after the first."""
    return f" (and {len(things) - 1} more)" if len(things) > 1 else ""


if __name__ == "__main__":
    sys.exit(main())
