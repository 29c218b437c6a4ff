"""Jobs on a Ray cluster: each worker is an actor, which holds its part of a GPU, or a core, until nothing is left.

All machines must see the repository, the data and the output folder under the same paths. A run whose worker is lost
goes on, from its last checkpoint, on another one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from engine.process_cache import sharing

from .workers import Ended, Job, call, finish_all

MAX_RETRIES = 2  # of one run, each after the loss of its worker
PATIENCE_S = 5.0  # with the address of a cluster; Ray itself has minutes


def connect(gpus_per_run: float) -> int:
    """Joins the cluster that RAY_ADDRESS names, or the one of this machine.

    Args:
        gpus_per_run: What a run takes of a GPU, over 0 and up to 1; where the cluster has none, it takes a core.

    Returns:
        How many runs the cluster has room for.

    Raises:
        ModuleNotFoundError: If Ray is not installed.
        ConnectionError: If there is no cluster.
    """
    ray = imported_ray()
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        knock(os.environ.get("RAY_ADDRESS", ""))
        ray.init("auto", runtime_env={"env_vars": environment}, logging_level="ERROR", log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConnectionError(
            f"RAY_ADDRESS is {os.environ.get('RAY_ADDRESS', 'not set')}, expected the address of a Ray cluster that "
            f"runs ({error}). Start one with `ray start --head`, or leave --launcher out."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray sets its own
    return room(ray.cluster_resources(), gpus_per_run)


def knock(address: str) -> None:
    """Raises an OSError if nobody listens at `host:port`; other addresses, such as auto, are Ray's to understand."""
    place = urlsplit(f"//{address}")
    if "://" not in address and place.port is not None:
        socket.create_connection((place.hostname, place.port), timeout=PATIENCE_S).close()


def room(resources: Mapping[str, float], gpus_per_run: float) -> int:
    """Returns how many runs, each with a core, find their place beside each other; at least one."""
    n_cores, n_gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    return max(1, min(n_cores, n_gpus * int(1 / gpus_per_run)) if n_gpus else n_cores)


def imported_ray() -> ModuleType:
    """Returns the package ray.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--launcher is ray, expected the package ray to be there. Run `pip install '.[ray]'`, or leave --launcher "
            "out."
        ) from error
    return ray


def finish_on_cluster(jobs: Sequence[Job], n_workers: int, *, gpus_per_run: float) -> Ended:
    """Does all jobs on the cluster that `connect` has joined; see `finish_all`."""
    has_gpus = imported_ray().cluster_resources().get("GPU")
    return finish_all(jobs, n_workers, RayWorker, n_gpus=gpus_per_run if has_gpus else 0)


class RayWorker:
    """A worker somewhere in the cluster, with the methods of launch.workers.Worker.

    Args:
        number: Which of the workers side by side it is, from 0.
        n_gpus: What it holds of a GPU; 0: a core alone.
    """

    def __init__(self, number: int, *, n_gpus: float):
        self.number = number
        place = {"num_cpus": 1, "num_gpus": n_gpus}
        retries = {"max_restarts": -1, "max_task_retries": MAX_RETRIES}
        self.actor = imported_ray().remote(Calls).options(**place, **retries).remote(os.getcwd())

    def start(self, job: Job) -> None:
        """Gives it a job."""
        self.job, self.start_s = job, time.monotonic()
        self.error = self.actor.call.remote(job.program, job.argv)

    @staticmethod
    def ended(workers: Collection[RayWorker]) -> list[RayWorker]:
        """Waits until one of the workers has ended its job, or was lost too often; returns those that have."""
        known, _ = imported_ray().wait([worker.error for worker in workers])
        return [worker for worker in workers if worker.error in known]

    def outcome(self) -> tuple[Job, str, float]:
        """Waits for the job's end; returns it with its error and its time in seconds."""
        ray = imported_ray()
        try:
            error = ray.get(self.error)
        except ray.exceptions.RayActorError as lost:
            error = (
                f"The worker was lost {1 + MAX_RETRIES} times, expected at most {MAX_RETRIES}. Where memory is short, "
                f"lower --jobs. {lost}"
            )
        return self.job, error, time.monotonic() - self.start_s

    def is_alive(self) -> bool:
        """Says whether it can do another job: what is lost starts again."""
        return True

    def stop(self) -> None:
        """Ends it."""
        imported_ray().kill(self.actor)

    def join(self) -> None:
        """Does nothing: the cluster sees to it."""


class Calls:
    """What a worker does, in its own process: one call after another, in a folder, which share what they make."""

    def __init__(self, folder: str):
        os.chdir(folder)
        self.stack = contextlib.ExitStack()  # it lasts as long as the process
        self.stack.enter_context(sharing())

    def call(self, program: str, argv: Sequence[str]) -> str:
        """Calls a program's main, and returns its error ("": none)."""
        return call(program, argv)
