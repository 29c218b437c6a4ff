"""Jobs on a Ray cluster: each worker is an actor, which holds its part of a GPU, or a core, until nothing is left.

All machines must see the repository, the data and the output folder under the same paths. A run whose worker is lost
goes on from its last checkpoint, on another worker.
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
CONNECT_S = 5.0  # in which a cluster has to answer; Ray itself waits for minutes


def connect(gpus_per_run: float) -> int:
    """Joins the cluster that RAY_ADDRESS names, or the one of this machine.

    Args:
        gpus_per_run: Part of a GPU that a run takes, above 0 and up to 1; in a cluster without GPUs it takes a core.

    Returns:
        How many runs the cluster has room for.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: No cluster answers.
    """
    ray = imported_ray()
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))}
    address, handler = os.environ.get("RAY_ADDRESS", ""), signal.getsignal(signal.SIGTERM)
    try:
        check_reachable(address)
        ray.init("auto", runtime_env={"env_vars": environment}, logging_level="ERROR", log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConnectionError(
            f"RAY_ADDRESS is {address or 'not set'}, and no Ray cluster answers there ({error}). "
            "Start one with `ray start --head`, or leave --launcher out."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray sets its own
    return room(ray.cluster_resources(), gpus_per_run)


def check_reachable(address: str) -> None:
    """Raises an OSError if nothing listens at `host:port`; Ray checks other addresses, such as auto, itself."""
    url = urlsplit(f"//{address}")
    if "://" not in address and url.port is not None:
        socket.create_connection((url.hostname, url.port), timeout=CONNECT_S).close()


def room(resources: Mapping[str, float], gpus_per_run: float) -> int:
    """Returns how many runs fit side by side, each with a core and its part of a GPU; at least one."""
    n_cores, n_gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    return max(1, min(n_cores, n_gpus * int(1 / gpus_per_run)) if n_gpus else n_cores)


def imported_ray() -> ModuleType:
    """Returns the package ray.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--launcher is ray, but the package ray is missing. Run `pip install '.[ray]'`, or leave --launcher out."
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
        n_gpus: Part of a GPU that it holds; 0: only a core.
    """

    def __init__(self, number: int, *, n_gpus: float):
        self.number = number
        options = {"num_cpus": 1, "num_gpus": n_gpus, "max_restarts": -1, "max_task_retries": MAX_RETRIES}
        self.actor = imported_ray().remote(Calls).options(**options).remote(os.getcwd())

    def start(self, job: Job) -> None:
        """Gives it a job."""
        self.job, self.start_s = job, time.monotonic()
        self.error = self.actor.call.remote(job.program, job.argv)

    @staticmethod
    def ended(workers: Collection[RayWorker]) -> list[RayWorker]:
        """Waits until a worker has ended its job, or was lost too often; returns all workers that have."""
        known, _ = imported_ray().wait([worker.error for worker in workers])
        return [worker for worker in workers if worker.error in known]

    def outcome(self) -> tuple[Job, str, float]:
        """Waits for the job's end; returns it with its error and its time in seconds."""
        ray = imported_ray()
        try:
            error = ray.get(self.error)
        except ray.exceptions.RayActorError as lost:
            error = f"The worker was lost {1 + MAX_RETRIES} times. If memory is short, lower --jobs. {lost}"
        return self.job, error, time.monotonic() - self.start_s

    def is_alive(self) -> bool:
        """Says whether it can do another job: Ray starts a lost worker again."""
        return True

    def stop(self) -> None:
        """Ends it."""
        imported_ray().kill(self.actor)

    def join(self) -> None:
        """Does nothing: Ray waits for it."""


class Calls:
    """What a worker does, in its own process: one call after another, which share a CLIP and its features."""

    def __init__(self, folder: str):
        os.chdir(folder)
        self.stack = contextlib.ExitStack()  # it lasts as long as the process
        self.stack.enter_context(sharing())

    def call(self, program: str, argv: Sequence[str]) -> str:
        """Calls a program's main, and returns its error ("": none)."""
        return call(program, argv)
