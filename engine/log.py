"""What a run says: log.txt and the terminal with the same bare lines, and running means for the log line of a batch."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from .distributed import is_first_rank
from .files import writing
from .run.names import LOG
from .text import encodable

LINE_EVERY_S = 60  # where there is no terminal

logger = logging.getLogger(__name__)


def setup_logging(folder: str | Path) -> None:
    """Sends bare INFO messages to standard output and to the end of log.txt in `folder`.

    Of several ranks the first does so; the others only send their warnings to standard error.

    Raises:
        OSError: If log.txt cannot be opened.
    """
    close_logging()
    if is_first_rank():
        path = Path(folder) / LOG
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers = _TerminalHandler(), _LogFile(path, encoding="utf-8")
    else:
        handlers = (logging.StreamHandler(),)
        handlers[0].setLevel(logging.WARNING)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.set_name("run")
        logging.getLogger().addHandler(handler)
    for name in ("engine", "datasets", "trainers", "clip", "launch", "train"):
        logging.getLogger(name).setLevel(logging.INFO)


class _TerminalHandler(logging.Handler):
    """Prints; tracebacks are for log.txt alone."""

    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info:
            say(self.format(record))


class _LogFile(logging.FileHandler):
    """log.txt. Where the disk is full, one warning tells, and the run goes on: its lines are on the terminal too."""

    is_told = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.is_told:
            self.is_told = True  # before the warning comes here
            logger.warning(
                f"{self.baseFilename} cannot be written ({error.strerror}): lines may be missing there. Free some room."
            )

    def close(self) -> None:
        with contextlib.suppress(OSError):  # lines that there was no room for
            super().close()


def say(line: str) -> None:
    """Prints above a progress bar that may be on the screen.

    Where it cannot be written, on a full disk or into a pipe that nobody reads, one warning tells, and nothing more is
    printed: no line is worth a run.
    """
    try:
        tqdm.write(encodable(line, getattr(sys.stdout, "encoding", None)))
        sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "w") as nowhere:  # else what is left would fail once more, when Python ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        warning = f"Standard output cannot be written ({error.strerror}): what follows is in log.txt alone."
        logger.info(warning)
        with contextlib.suppress(OSError):  # it may be the same file
            print(warning, file=sys.stderr)


def close_logging() -> None:
    """Ends what `setup_logging` began."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler.get_name() == "run"]:
        root.removeHandler(handler)
        handler.close()


def environment() -> str:
    """Returns one line on the software and hardware of the run."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()}, {device}"


def progress(batches: Iterable, label: str, *, n_done: int = 0, n: int | None = None) -> Iterable:
    """Shows a bar on a terminal, and elsewhere logs a line each minute.

    Args:
        batches: What the bar runs over.
        label: What it says.
        n_done: So much was done before.
        n: How much there is in all; None: the length of `batches`.
    """
    if not is_first_rank():
        return batches
    if sys.stderr.isatty():
        return tqdm(batches, desc=label, leave=False, initial=n_done, total=n)
    return _with_lines(batches, label, n_done, len(batches) if n is None else n)


def _with_lines(batches: Iterable, label: str, n_done: int, n: int) -> Iterator:
    said_s = time.monotonic()
    for done, batch in enumerate(batches, start=n_done + 1):
        yield batch
        if time.monotonic() - said_s >= LINE_EVERY_S:
            logger.info(f"{label}: {done:,} of {n:,}")
            said_s = time.monotonic()


class AverageMeter:
    """The last value and the mean of all values since the start."""

    def __init__(self):
        self.value, self.total, self.count = 0.0, 0.0, 0

    def update(self, value: float, n: int = 1) -> None:
        """Adds a value that stands for `n` items."""
        self.value = value
        self.total += value * n
        self.count += n

    @property
    def average(self) -> float:
        """The mean, 0 before the first value."""
        return self.total / max(self.count, 1)


class MetricMeter:
    """Meters by name; printed as `loss 1.2345 (1.3456) acc 50.0000 (48.0000)`: last value and mean.

    Tensors are read when they are asked for, so that nobody waits for a GPU in every step.
    """

    def __init__(self):
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)
        self.unread: list[dict[str, float | torch.Tensor]] = []

    def update(self, values: dict[str, float | torch.Tensor]) -> None:
        """Adds one value to each named meter."""
        self.unread.append({name: v.detach() if isinstance(v, torch.Tensor) else v for name, v in values.items()})

    def read(self) -> list[dict[str, float]]:
        """Returns the values that were added since it was last called, one dict for each `update`."""
        read = [{name: float(value) for name, value in values.items()} for values in self.unread]
        self.unread.clear()
        for values in read:
            for name, value in values.items():
                self.meters[name].update(value)
        return read

    def __str__(self) -> str:
        self.read()
        return " ".join(f"{name} {meter.value:.4f} ({meter.average:.4f})" for name, meter in self.meters.items())
