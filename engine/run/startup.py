"""How a process starts: its threads, and what its imports cost. It counts where it is said before torch is imported."""

from __future__ import annotations

import gc
import os

from .cores import n_physical_cores


def before_imports() -> None:
    """Sets the threads, and holds Python's search for cycles, which takes a tenth of a start and finds nothing."""
    share_cores(1)
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
    """Gives this process, or each of several that it starts, its part of the cores as threads; what is set stays."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, n_physical_cores() // n_processes)))
    sleep_while_waiting()
