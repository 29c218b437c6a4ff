"""What a run says: bare lines in log.txt and on the terminal, a line every few steps."""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .distributed import is_first_rank
from .files import writing
from .run.cores import n_cores
from .run.names import LOG
from .text import encodable
from .trackers import Trackers

LINE_EVERY_S = 60  # where there is no terminal
STANDS_EPOCHS, STANDS_WITHIN = 5, 0.01  # a loss stands if its mean in so many epochs differs by no more from ln C
LOG_ONLY = {"log_only": True}  # logger.info(..., extra=LOG_ONLY): not on the terminal

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
    """Prints; tracebacks and what is marked with LOG_ONLY are for log.txt alone."""

    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info and not hasattr(record, "log_only"):
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

    Where standard output takes no more, on a full disk or in a pipe that nobody reads, one warning tells it, and
    nothing more is printed: no line is worth a run.
    """
    try:
        tqdm.write(encodable(line, getattr(sys.stdout, "encoding", None)))
        sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "w") as nowhere:  # what is still in the buffer would fail again when Python ends
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
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{n_cores()} CPU cores"
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


def which_model(split: str | None, n_epochs: int | None) -> str:
    """Returns which model is tested after training: of the epoch that is best on `split`, None for the last one."""
    if n_epochs == 0:
        return "model as it was fitted"  # a method without epochs
    return f"model with the best {split} performance" if split else "last-step model"


class Warnings(list[str]):
    """Sentences on what makes a run's results doubtful: each is logged when it is added, once."""

    def add(self, *sentences: str) -> None:
        """Adds sentences; an empty one says that there is nothing to warn of."""
        for sentence in sentences:
            if sentence and sentence not in self:
                logger.warning("Warning: %s", sentence)
                self.append(sentence)


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

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.average:.3f})"


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


class StepLog:
    """Times and losses of an epoch's steps: a line every `print_freq` batches, a point of each curve for every step.

    Args:
        writer: The run's curves.
        check_losses: Is called before losses are read; raises if one is no number.
        print_freq: Batches between two lines.
        epoch, max_epoch: This epoch, from 0, and how many there are.
        n_batches: Batches of an epoch.
    """

    def __init__(
        self, writer: Trackers, check_losses: Callable[[], None], print_freq: int, *, epoch, max_epoch, n_batches
    ):
        self.writer, self.check_losses, self.print_freq = writer, check_losses, print_freq
        self.epoch, self.max_epoch, self.n_batches = epoch, max_epoch, n_batches
        self.losses, self.batch_time_s, self.data_time_s = MetricMeter(), AverageMeter(), AverageMeter()
        self.n_done, self.start_s = 0, time.monotonic()

    def timed(self, batches: Iterable, n_done: int) -> Iterator:
        """Yields batches under a progress bar, `n_done` were done before; measures how long each one takes to come."""
        self.n_done, self.start_s = n_done, time.monotonic()
        for batch in progress(batches, f"epoch {self.epoch + 1}", n_done=n_done, n=self.n_batches):
            self.data_time_s.update(time.monotonic() - self.start_s)
            yield batch
            self.start_s = time.monotonic()

    def add(self, losses: dict[str, float | torch.Tensor], lr: float) -> None:
        """Adds a step: its losses by name, and its learning rate. Every `print_freq` steps logs a line."""
        self.n_done += 1
        self.losses.update(losses)
        self.batch_time_s.update(time.monotonic() - self.start_s)
        self.writer.add_scalar("train/lr", lr, self._step(self.n_done))
        if self.n_done % self.print_freq == 0 or self.n_batches < self.print_freq:
            self.read()
            n_left = self.max_epoch * self.n_batches - self._step(self.n_done) - 1
            eta = datetime.timedelta(seconds=int(self.batch_time_s.average * n_left))
            logger.info(
                f"epoch [{self.epoch + 1}/{self.max_epoch}] batch [{self.n_done}/{self.n_batches}] "
                f"time {self.batch_time_s} data {self.data_time_s} {self.losses} lr {lr:.4e} eta {eta}"
            )

    def read(self) -> None:
        """Reads the losses since the last call, for which a GPU is waited for, and adds them to the curves."""
        self.check_losses()
        read = self.losses.read()
        for n_done, values in enumerate(read, start=self.n_done + 1 - len(read)):
            self.writer.add_scalars("train", values, self._step(n_done))
        self.writer.flush()

    def _step(self, n_done: int) -> int:
        return self.epoch * self.n_batches + n_done - 1


class LossWatch:
    """Tells once that the loss stands at ln C, which answers that do not depend on the image give."""

    def __init__(self, n_classes: int, max_epoch: int):
        self.n_classes, self.guessing = n_classes, math.log(n_classes)
        self.n_epochs, self.n_standing = max(3, min(STANDS_EPOCHS, max_epoch)), 0

    def after_epoch(self, losses: MetricMeter) -> str:
        """Returns a warning if the epoch with these losses is the last of so many in which the loss stood, else ""."""
        loss = losses.meters["loss"].average if "loss" in losses.meters else math.inf
        stands = self.n_classes > 1 and abs(loss - self.guessing) <= STANDS_WITHIN * self.guessing
        self.n_standing = self.n_standing + 1 if stands else 0
        if self.n_standing != self.n_epochs:
            return ""
        return (
            f"The loss has stood at {loss:.4f} for {self.n_epochs} epochs: ln {self.n_classes:,} = {self.guessing:.4f} "
            "is the loss of answers that do not depend on the image. Check whether the backbone knows the class names, "
            "OPTIM.LR and the images."
        )


class Clock:
    """The seconds that a run, and the tests in it, have taken; those before it was interrupted count too.

    Printed as the run's hours, minutes and seconds: 0:01:30.
    """

    def __init__(self):
        self.earlier_s, self.testing_s, self.start_s = 0.0, 0.0, time.monotonic()

    def start(self) -> None:
        """Begins to count."""
        self.start_s = time.monotonic()

    @contextlib.contextmanager
    def testing(self) -> Iterator[None]:
        """Until its end, the seconds are a test's."""
        start_s = time.monotonic()
        yield
        self.testing_s += time.monotonic() - start_s

    def times(self) -> dict[str, float]:
        """Returns the entries of a checkpoint: "time_s" of all, "testing_s" of the tests."""
        return {"time_s": self.earlier_s + time.monotonic() - self.start_s, "testing_s": self.testing_s}

    def __str__(self) -> str:
        return str(datetime.timedelta(seconds=round(self.times()["time_s"])))

    def restore(self, state: dict[str, Any]) -> None:
        """Counts on from these entries of a checkpoint, where it has them."""
        self.earlier_s, self.testing_s = state.get("time_s", 0.0), state.get("testing_s", 0.0)
