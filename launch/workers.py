"""Jobs: calls of programs, several side by side, each after the one that it needs.

A worker is a process that does one job after another. So modules are imported once, a CLIP that several runs use is
loaded once, and features that one run has computed are there for the next.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from engine.interruption import INTERRUPTED
from engine.process_cache import sharing
from engine.run.startup import after_imports

CONTEXT = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
NOT_RUN = "Not run, because what it needs failed."


@dataclass(frozen=True)
class Job:
    """One call of a program's `main(argv)`, which returns its exit code and prints `Error: ...` where it fails.

    Args:
        command: The command line that it comes from.
        program: The program's module.
        argv: Its arguments.
        target: Absolute path of what it makes: a run's folder, or a file.
        needs: The target of the job that must be done before it; None: of none.
        done: Whether it was done before.
    """

    command: str
    program: str
    argv: tuple[str, ...]
    target: Path
    needs: Path | None = None
    done: bool = False


Ended = Iterator[tuple[Job, str, float]]  # each job that has ended, its error ("": none), its time in seconds


def finish_all(jobs: Sequence[Job], n_workers: int, kind: type[Worker] | None = None, **options: Any) -> Ended:
    """Does all jobs.

    Args:
        jobs: The jobs.
        n_workers: How many run side by side.
        kind: The workers' class: `Worker`, a process on this machine, or one with the same methods.
        options: Arguments of each worker, besides its number.

    Yields:
        Each job when it has ended, with its error ("": none) and its time in seconds.
    """
    kind = kind or Worker
    waiting, failed = list(jobs), set()
    idle, busy = [], []  # each worker is always in one of them, whenever an interrupt comes
    try:
        while waiting or busy:
            unfinished = {job.target for job in waiting} | {worker.job.target for worker in busy}
            for job in [job for job in waiting if job.needs not in unfinished]:
                if job.needs in failed:
                    waiting.remove(job)
                    failed.add(job.target)
                    yield job, NOT_RUN, 0.0
                elif len(busy) < n_workers:
                    waiting.remove(job)
                    if not idle:
                        idle.append(kind(free_number(busy), **options))
                    busy.append(idle[-1])
                    idle.pop()
                    busy[-1].start(job)
            dismiss(idle)  # another job may wait for the memory or the part of a cluster that they hold
            idle.clear()
            for worker in kind.ended(busy) if busy else ():
                job, error, time_s = worker.outcome()
                if worker.is_alive():
                    idle.append(worker)
                busy.remove(worker)
                if error:
                    failed.add(job.target)
                yield job, error, time_s
    finally:
        dismiss({*idle, *busy})


def free_number(workers: Collection[Worker]) -> int:
    """Returns the smallest number that none of the workers has."""
    return min(set(range(len(workers) + 1)) - {worker.number for worker in workers})


def dismiss(workers: Collection[Worker]) -> None:
    """Ends workers, and waits until all are gone."""
    for worker in workers:
        worker.stop()
    for worker in workers:
        worker.join()


class Worker:
    """A process that does one job at a time.

    Args:
        number: Which of the workers side by side it is, from 0.
        gpus: Names of the GPUs, which workers take in turn, one each; empty: every worker sees what there is.
    """

    def __init__(self, number: int, *, gpus: Sequence[str] = ()):
        self.number = number
        self.pipe, its_end = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=work, args=(its_end, gpus[number % len(gpus)] if gpus else None))
        # Ctrl-C reaches every process of a terminal. This process decides what it means; the worker ignores it.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.process.start()
        signal.signal(signal.SIGINT, handler)
        its_end.close()

    def start(self, job: Job) -> None:
        """Gives it a job."""
        self.job, self.start_s = job, time.monotonic()
        with contextlib.suppress(ConnectionError):  # the worker was killed: `outcome` says so
            self.pipe.send((job.program, job.argv))

    @staticmethod
    def ended(workers: Collection[Worker]) -> list[Worker]:
        """Waits until a worker has ended its job, or itself has ended; returns all workers that have."""
        by_pipe = {worker.pipe: worker for worker in workers}
        return [by_pipe[pipe] for pipe in wait(list(by_pipe))]

    def outcome(self) -> tuple[Job, str, float]:
        """Waits for the job's end; returns it with its error and its time in seconds."""
        try:
            error = self.pipe.recv()
        except (EOFError, ConnectionError):  # ConnectionError: it was killed before it had read its job
            self.process.join()
            code = self.process.exitcode
            error = f"The process was ended from outside (exit code {code}). If memory is short, lower --jobs."
        return self.job, error, time.monotonic() - self.start_s

    def is_alive(self) -> bool:
        """Says whether it can do another job."""
        return self.process.is_alive()

    def stop(self) -> None:
        """Tells it to end."""
        self.process.terminate()

    def join(self) -> None:
        """Waits until it has ended."""
        self.process.join()


def work(pipe: Connection, gpu: str | None) -> None:
    """What a worker does: one call after another, until it is stopped or its parent has ended."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if hasattr(os, "setsid"):
        os.setsid()  # away from the terminal: its parent tells it about Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the loaders' processes end too
    threading.Thread(target=end_with_parent, daemon=True).start()
    multiprocessing.set_start_method(None, force=True)  # loaders fork as elsewhere: to spawn takes seconds
    with sharing(), contextlib.suppress(EOFError, BrokenPipeError):  # its parent has ended
        while True:
            pipe.send(call(*pipe.recv()))


def end_with_parent() -> None:
    """Ends this process when its parent has ended, however that came: its memory is free for the next call."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def call(program: str, argv: Sequence[str]) -> str:
    """Calls a program's main as the command line does, but silently, and returns its error ("": none).

    Raises:
        SystemExit: A signal has ended it, so the worker ends too.
    """
    said = io.StringIO()
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(said):
            gc.disable()  # as before_imports does
            module = importlib.import_module(program)
            after_imports()  # only what the call leaves is searched for cycles
            code = module.main(list(argv))
    except Exception:  # any error ends this job, not the worker
        return traceback.format_exc().strip()
    finally:
        gc.enable()  # where the import has failed
        gc.collect()  # the next call needs the memory
        gc.unfreeze()
    if not code:
        return ""
    if code in INTERRUPTED:
        sys.exit(code)
    start = said.getvalue().find("Error: ")
    return said.getvalue()[start:].strip() if start >= 0 else f"Error: {program} ended with exit code {code}."
