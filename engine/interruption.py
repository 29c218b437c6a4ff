"""Ctrl-C and SIGTERM: a run ends what it has begun, saves where it stands, and ends with exit code 130 or 143.

| where             | what a signal does                                                                 |
|-------------------|------------------------------------------------------------------------------------|
| anywhere          | Interrupted is raised at once                                                      |
| in `finishing`    | nothing, until what is half done is whole: the next `raise_if_asked`, or its end   |
| after another one | the process ends at once                                                           |
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, SimpleNamespace

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = tuple(128 + number for number in SIGNALS)  # exit codes
SAME_REQUEST_S = 3.0  # a terminal, a script and Slurm may all pass on one request, on a busy machine not at once


class Interrupted(KeyboardInterrupt):
    """A signal asks this process to end. As a KeyboardInterrupt it is no error that a library might handle."""

    def __init__(self, number: int):
        super().__init__(f"Interrupted by {signal.Signals(number).name}.")
        self.exit_code = 128 + number  # 130 after Ctrl-C, 143 after SIGTERM, as shells have it
        self.remedy = "The same command goes on from here."

    def __str__(self) -> str:
        return f"{self.args[0]} {self.remedy}"


# What was asked of this process: the number of the first signal and when it came; how many `finishing` are open.
_requests = SimpleNamespace(first=0, first_s=0.0, n_finishing=0)


@contextmanager
def interruptible() -> Iterator[None]:
    """Until its end, both signals raise Interrupted; even where a shell has had Ctrl-C ignored, as it does behind &."""
    if threading.current_thread() is not threading.main_thread():  # where Python lets nobody set handlers
        yield
        return
    before = {number: signal.signal(number, _hear) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _requests.first = 0


def _hear(number: int, _: FrameType | None) -> None:
    if _requests.first:
        if time.monotonic() - _requests.first_s > SAME_REQUEST_S:
            os._exit(128 + number)
        return
    _requests.first, _requests.first_s = number, time.monotonic()
    if not _requests.n_finishing:
        raise Interrupted(number)


@contextmanager
def finishing() -> Iterator[None]:
    """Until its end, nothing is raised but by `raise_if_asked`, and then by its end; several of them end as one."""
    _requests.n_finishing += 1
    try:
        yield
    finally:
        _requests.n_finishing -= 1
    if not _requests.n_finishing:
        raise_if_asked()


@contextmanager
def starting_over() -> Iterator[None]:
    """For work that keeps no resume point: an interruption until its end says so."""
    try:
        yield
    except Interrupted as interrupted:
        interrupted.remedy = "The same command starts over."
        raise


def is_asked() -> bool:
    """Says whether this process, one of several ranks perhaps, was asked to end."""
    return bool(_requests.first)


def raise_if_asked() -> None:
    """Raises Interrupted if any rank was asked to end; all ranks call it, so that all stop at the same step."""
    from .distributed import any_rank  # imports torch, which the other functions do not need

    for number, is_asked_for in zip(SIGNALS, any_rank([_requests.first == number for number in SIGNALS])):
        if is_asked_for:
            raise Interrupted(number)


def leave_signals_to_parent(_: int) -> None:
    """For a process of a data loader: it ends when its parent wants it to, and not when both of them get a signal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
