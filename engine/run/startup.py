"""How a process starts: its threads, and what its imports cost. It counts where it is said before torch is imported."""

from __future__ import annotations

import gc
import os
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")


def before_imports() -> None:
    """Sets how threads wait, and holds Python's search for cycles, which takes a tenth of a start and finds nothing."""
    sleep_while_waiting()
    gc.disable()


def after_imports() -> None:
    """Lets Python search for cycles again, but not among what was imported: it stays, and so do its pages in forks."""
    gc.freeze()
    gc.enable()


def sleep_while_waiting() -> None:
    """Lets threads that wait sleep, in this process and in those that it starts; what the user has set stays.

    By default they spin. Beside other work on the cores a spinning thread keeps the one that it waits for from
    running, and a step takes several times as long (benchmarks/threads.py). The results are the same bits.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def share_cores(n_processes: int) -> None:
    """Gives each of the processes that this one starts its part of the cores as threads, unless the user has set it."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, n_physical_cores() // n_processes)))
    sleep_while_waiting()


def n_physical_cores() -> int:
    """Returns the number of cores that this process may use; threads of one core, as Linux names them, count once."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    files = {cpu: TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list" for cpu in cpus}
    return len({path.read_text() if path.is_file() else cpu for cpu, path in files.items()})
