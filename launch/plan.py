"""Runs jobs for a user: how many side by side, a line for each that ends, what failed, what Ctrl-C does.

torch takes seconds to import, so it is imported where it is needed: `--help` does without.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from yacs.config import CfgNode as CN

from engine.interruption import Interrupted, interruptible
from engine.run.cores import n_physical_cores
from engine.run.names import LOG
from engine.run.startup import share_cores

from .workers import Ended, Job, finish_all

Finish = Callable[[Sequence[Job], int], Ended]  # does jobs, so many side by side; see `finish_all`
KEPT = "What is done is kept: the same command does only what is left."


def until_interrupted(work: Callable[[], int]) -> int:
    """Returns the exit code of `work`: 130 if Ctrl-C ended it, 143 if SIGTERM did."""
    try:
        with interruptible():
            return work()
    except Interrupted as interrupted:
        print(f"\nInterrupted. {KEPT}", file=sys.stderr)
        return interrupted.exit_code


def train_job(command: str, argv: Sequence[str], cfg: CN, weights_sha256: Callable[[str], str | None]) -> Job:
    """Returns a call of train.py.

    Args:
        command: The command line that it comes from.
        argv: The arguments of train.py.
        cfg: Their config; a SEED below 0 is drawn.
        weights_sha256: Returns the digest of a backbone's file.
    """
    from engine.run.folder import resolve_seed
    from engine.run.inputs import still_done

    resolve_seed(cfg)
    target, needs = (Path(name).absolute() if name else None for name in (cfg.OUTPUT_DIR, cfg.RUN.MODEL_DIR))
    return Job(command, "train", tuple(argv), target, needs, still_done(cfg, weights_sha256))


def default_jobs() -> int:
    """Returns one for each GPU; without a GPU one for each core, up to 4: runs use cores better than threads do."""
    import torch

    return torch.cuda.device_count() or min(n_physical_cores(), 4)


def gpus() -> list[str]:
    """Returns the names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    import torch

    numbers = [str(number) for number in range(torch.cuda.device_count())]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[: len(numbers)] if named else numbers


def print_plan(commands: Sequence[str], jobs: Sequence[Job]) -> None:
    """Prints every command line with what is left of it."""
    left = [job for job in jobs if not job.done]
    for command in commands:
        n_left = sum(job.command == command for job in left)
        print(f"{command}    # {f'{n_left} left' if n_left else 'done'}")
    print(f"{len(left)} of {len(jobs)} runs are left.")


def finish_here(jobs: Sequence[Job], n_workers: int) -> Ended:
    """Does all jobs in processes of this machine, which share its cores and take its GPUs in turn; see `finish_all`."""
    share_cores(n_workers)
    return finish_all(jobs, n_workers, gpus=gpus())


def print_left(jobs: Sequence[Job], n_workers: int) -> None:
    """Prints how many jobs are left."""
    n_left = sum(not job.done for job in jobs)
    print(f"{n_left} of {len(jobs)} runs are left; {n_workers} side by side.", flush=True)


def run(
    jobs: Sequence[Job], n_workers: int, show: Callable[[Job, str, float, int], None], finish: Finish = finish_here
) -> dict[Job, str]:
    """Does what is left, and returns the errors of the jobs that failed.

    Args:
        jobs: The jobs, done ones among them.
        n_workers: How many run side by side.
        show: Called when a job has ended: with the job, its error ("": none), its seconds, and how many are left.
        finish: Does the jobs.
    """
    left, failures = [job for job in jobs if not job.done], {}
    with contextlib.closing(finish(left, n_workers)) as ended:
        for n_ended, (job, error, time_s) in enumerate(ended, 1):
            if error:
                failures[job] = error
            show(job, error, time_s, len(left) - n_ended)
    return failures


def print_line(output_dir: str, job: Job, error: str, time_s: float, n_left: int) -> None:
    """Prints how a job ended."""
    value = outcome(job, error)
    text = f"{value:.2f} %" if isinstance(value, float) else value
    target = os.path.relpath(job.target, output_dir)
    print(f"{text:>8} {time_s:6.0f} s {n_left:5d} left   {target}", flush=True)


def outcome(job: Job, error: str = "") -> float | str:
    """Returns the accuracy of a job that has ended, in percent; without one "done" or "failed"."""
    from engine.run.folder import read_results

    results = None if error or job.program != "train" else read_results(job.target)
    if results is None or results["accuracy"] is None:
        return "failed" if error else "done"
    return results["accuracy"]


def print_failures(failures: dict[Job, str]) -> None:
    """Prints which jobs failed and why, jobs with the same reason together."""
    reasons: dict[str, list[Job]] = {}
    for job, error in failures.items():
        reasons.setdefault(error, []).append(job)
    for error, jobs in reasons.items():
        print(f"\n{error}", file=sys.stderr)
        for job in jobs:
            log = job.target / LOG
            print(f"Failed: {job.target}{f' (its log: {log})' if log.is_file() else ''}", file=sys.stderr)
    if failures:
        print(f"First do what the errors say. {KEPT}", file=sys.stderr)
