"""Runs what tables of the papers need, skipping what is done, then prints them beside the papers' numbers.

    tables -> command lines -> the calls that a dry run of each prints -> what is left of them -> workers -> report

What a run says stands in its log.txt alone. A test waits for the run that trains its model; a run that fails is named
at the end, and the others go on.

Run: bash scripts/reproduce.sh shapes
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

import report
import train
from engine.config_file import ConfigError
from engine.jobs import Job, finish_all
from engine.run_folder import is_done, read_results
from reports import tables

SCRIPT_VARIABLES = {"TRAINER", "SOURCE", "SHOTS", "NCTX", "CSC", "CTP", "SUBSAMPLE"}  # each command line sets its own
# A script prints $PYTHON in a dry run; a command line that is no script runs it, and so prints itself. Bash reads the
# words of what was printed: it quotes what its locale cannot print as $'...', which shlex does not know.
DRY_RUN = r"""set -o pipefail; export DRY_RUN=1 PYTHON=python; python() { printf 'python'; printf ' %q' "$@"; echo; }
eval "$1" | while IFS= read -r call; do eval "printf '%s\0' $call"; echo; done"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 all is done, 1 an error, 130 interrupted."""
    try:
        return reproduce(parse_args(argv))
    except KeyboardInterrupt:
        print("\nInterrupted. What is done is kept: the same command does only what is left.", file=sys.stderr)
        return 130


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
    failures = run(jobs, args.jobs, args.output_dir)
    print()
    code = report.main([*args.tables, "--output-dir", args.output_dir])
    print_failures(failures)
    return 1 if failures else code


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Runs what tables of the papers need, skipping what is done.")
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="name of a table, or coop, cocoop or shapes")
    parser.add_argument("--output-dir", default="output", help="folder of all runs")
    parser.add_argument("--jobs", type=int, default=default_jobs(), help="runs side by side (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only list the commands and what is left")
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs is {args.jobs}, expected at least 1. Set JOBS to the number of runs side by side.")
    return args


def default_jobs() -> int:
    """Returns 1 with a GPU; else one for each core, up to 4: several runs use them better than the threads of one."""
    return 1 if torch.cuda.is_available() else min(n_cores(), 4)


def n_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan(commands: Sequence[str], output_dir: str) -> list[Job]:
    """Returns the calls that command lines make, each once.

    Raises:
        ConfigError: With what is wrong in any of them, before anything is run.
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
        places = {error: lines[0] + and_others(lines) for error, lines in errors.items()}
        raise ConfigError("\n".join(f"{place}\n{error}" for error, place in places.items()))
    return list(jobs.values())


def dry_run(command: str, output_dir: str) -> subprocess.CompletedProcess:
    """Has bash print the calls that a command line makes, one on a line, each word with a null character behind it."""
    environment = {name: value for name, value in os.environ.items() if name not in SCRIPT_VARIABLES}
    environment["OUTPUT"] = output_dir
    return subprocess.run(["bash", "-c", DRY_RUN, "bash", command], env=environment, capture_output=True, text=True)


def calls_of(printed: subprocess.CompletedProcess) -> list[list[str]]:
    """Returns the words of each call that a dry run printed.

    Raises:
        ConfigError: If the script refuses its arguments.
    """
    if printed.returncode:
        raise ConfigError(printed.stderr.strip())
    return [line.split("\0")[:-1] for line in printed.stdout.split("\n")[:-1]]


def read_call(command: str, words: Sequence[str]) -> Job:
    """Reads `python PROGRAM.py ARGUMENTS ...`: what it makes, what it needs, and whether it is done."""
    program, argv = Path(words[1]).stem, tuple(words[2:])
    if program == "train":
        cfg = train.setup_cfg(train.parse_args(list(argv)))
        needs = Path(cfg.RUN.MODEL_DIR).absolute() if cfg.RUN.MODEL_DIR else None
        return Job(command, program, argv, Path(cfg.OUTPUT_DIR).absolute(), needs, is_done(cfg))
    # interpret_prompt.py: it reads a checkpoint, its first argument, and writes the file after --output.
    checkpoint, target = Path(argv[0]).absolute(), Path(argv[argv.index("--output") + 1]).absolute()
    done = target.is_file() and checkpoint.is_file() and target.stat().st_mtime_ns >= checkpoint.stat().st_mtime_ns
    return Job(command, program, argv, target, checkpoint.parent.parent, done)


def print_plan(commands: Sequence[str], jobs: Sequence[Job]) -> None:
    """Prints every command line with what is left of it."""
    left = [job for job in jobs if not job.done]
    for command in commands:
        n_left = sum(job.command == command for job in left)
        print(f"{command}    # {f'{n_left} left' if n_left else 'done'}")
    print(f"{len(left)} of {len(jobs)} runs are left.")


def run(jobs: Sequence[Job], n_workers: int, output_dir: str) -> dict[Job, str]:
    """Does what is left, with a line for each job that ends, and returns the errors of those that failed."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, n_cores() // n_workers)))  # the workers read it
    left, failures = [job for job in jobs if not job.done], {}
    print(f"{len(left)} of {len(jobs)} runs are left; {n_workers} side by side.", flush=True)
    with contextlib.closing(finish_all(left, n_workers)) as ended:
        for n_ended, (job, error, time_s) in enumerate(ended, 1):
            if error:
                failures[job] = error
            place = os.path.relpath(job.target, output_dir)
            print(f"{outcome(job, error):>8} {time_s:6.0f} s {len(left) - n_ended:5d} left   {place}", flush=True)
    return failures


def outcome(job: Job, error: str) -> str:
    """Returns the accuracy of a job that has ended, or in a word how it ended."""
    results = None if error or job.program != "train" else read_results(job.target)
    if results is None or results["accuracy"] is None:
        return "failed" if error else "done"
    return f"{results['accuracy']:.2f} %"


def print_failures(failures: dict[Job, str]) -> None:
    """Prints which jobs failed and why, those with the same reason together."""
    reasons: dict[str, list[Job]] = {}
    for job, error in failures.items():
        reasons.setdefault(error, []).append(job)
    for error, jobs in reasons.items():
        print(f"\n{error}", file=sys.stderr)
        for job in jobs:
            log = job.target / "log.txt"
            print(f"Failed: {job.target}{f' (its log: {log})' if log.is_file() else ''}", file=sys.stderr)
    if failures:
        print("Finished runs are kept: the same command does only what is left.", file=sys.stderr)


def and_others(things: Sequence[object]) -> str:
    """Returns " (and N more)" for the things after the first."""
    return f" (and {len(things) - 1} more)" if len(things) > 1 else ""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no run is left behind
    sys.exit(main())
