"""Where the curves of a run go: TensorBoard's file, scalars.csv, Weights & Biases. TRAIN.LOGGERS names them.

A tracker takes points: `add({tag: value}, step)`. `Trackers` are all of a run's; a method knows only them.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from .config.identity import changed_keys
from .distributed import is_first_rank
from .files import write_atomically
from .run.names import SCALARS

PROJECT = "prompt-learning"  # at Weights & Biases, where WANDB_PROJECT names none

logger = logging.getLogger(__name__)


class Trackers:
    """A run's trackers: each gets every point. One that fails is left out with a warning, and the run goes on."""

    def __init__(self):
        self._open: list[Tracker] = []

    def open(self, trackers: Iterable[Tracker], *, first_step: int = 0) -> None:
        """Begins to track, or goes on: points from `first_step` on, which an interrupted run has left, are to go."""
        self.close()
        self._open = list(trackers)
        self._each("open", first_step)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Adds a point to the curve `tag`."""
        if self:  # else the value may be anything, and a GPU is not waited for
            self._each("add", {tag: float(scalar_value)}, int(global_step or 0))

    def add_scalars(self, group: str, values: dict[str, float], global_step: int) -> None:
        """Adds a point to each of the curves `group/name`; what an evaluator says in words is none."""
        if self:
            numbers = {name: value for name, value in values.items() if hasattr(value, "__float__")}
            self._each("add", {f"{group}/{name}": float(value) for name, value in numbers.items()}, int(global_step))

    def flush(self) -> None:
        """Writes what is still in memory."""
        self._each("flush")

    def close(self, *, failed: bool = False) -> None:
        """Ends all trackers; `failed`: the run ended before its time."""
        self._each("close", failed)
        self._open = []

    def __bool__(self) -> bool:
        return bool(self._open)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        self.close(failed=kind is not None)

    def _each(self, method: str, *args: Any) -> None:
        for tracker in self._open.copy():
            try:
                getattr(tracker, method)(*args)
            except tracker.errors as error:
                self._open.remove(tracker)
                reason = os.strerror(error.errno) if getattr(error, "errno", None) else str(error).partition("\n")[0]
                logger.warning(f"{tracker.place} cannot be written ({reason}): {tracker.whose} curves end here")
                with contextlib.suppress(*tracker.errors):  # what is in its buffer fails once more
                    tracker.close(True)


def trackers_of(cfg: CN) -> list[Tracker]:
    """Returns the trackers that TRAIN.LOGGERS names; of several ranks the first has them."""
    folder = Path(cfg.OUTPUT_DIR)
    makers = {
        "tensorboard": lambda: TensorBoard(folder / "tensorboard"),
        "csv": lambda: ScalarsFile(folder / SCALARS),
        "wandb": lambda: WeightsAndBiases(folder, cfg),
    }
    return [makers[name]() for name in dict.fromkeys(cfg.TRAIN.LOGGERS)] if is_first_rank() else []


class Tracker:
    """One place that curves go to, `place` in messages. What it raises of `errors` is the place's fault, not ours."""

    whose, errors = "its", (OSError,)
    place: str | Path

    def open(self, first_step: int) -> None:
        """Makes it ready; points from `first_step` on, which are there, are no longer to be seen, if that can be."""
        raise NotImplementedError

    def add(self, values: dict[str, float], step: int) -> None:
        """Adds a point to each curve."""
        raise NotImplementedError

    def flush(self) -> None:
        """Writes what is still in memory."""

    def close(self, failed: bool) -> None:
        """Ends it."""


class TensorBoard(Tracker):
    """TensorBoard's file in a folder, which is made if need be."""

    whose = "TensorBoard's"

    def __init__(self, folder: str | Path):
        self.place, self.records = folder, None

    def open(self, first_step: int) -> None:
        # Imported here: it takes a second, and a test needs none of it.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.Event, self.Summary = Event, Summary
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        Path(self.place).mkdir(parents=True, exist_ok=True)
        self.records = RecordWriter(Path(self.place, name).open("wb"))
        self._write(file_version="brain.Event:2")
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, values: dict[str, float], step: int) -> None:
        points = [self.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=self.Summary(value=points))

    def flush(self) -> None:
        self.records.flush()

    def close(self, failed: bool) -> None:
        if self.records is not None:
            self.records.close()

    def _write(self, **fields: Any) -> None:
        self.records.write(self.Event(wall_time=time.time(), **fields).SerializeToString())


class ScalarsFile(Tracker):
    """A CSV file with a row `step,tag,value` for each point, so that a curve of a method's own needs no column.

    Each row is written at once: a kill loses none that is whole.
    """

    errors = (OSError, csv.Error)

    def __init__(self, path: Path):
        self.place, self.file = path, None

    def open(self, first_step: int) -> None:
        kept = io.StringIO(newline="")
        csv.writer(kept).writerows([("step", "tag", "value"), *self._rows_before(first_step)])
        write_atomically(self.place, lambda path: path.write_bytes(kept.getvalue().encode()), durable=False)
        self.file = self.place.open("a", encoding="utf-8", newline="", buffering=1)
        self.rows = csv.writer(self.file)

    def _rows_before(self, first_step: int) -> list[list[str]]:
        """Returns the whole rows of an interrupted run that it does not do again."""
        text = self.place.read_text(encoding="utf-8", errors="replace") if self.place.exists() and first_step else ""
        whole = text[: text.rfind("\n") + 1]
        rows = [row for row in csv.reader(io.StringIO(whole)) if len(row) == 3]
        return [row for row in rows if row[0].isdecimal() and int(row[0]) < first_step]

    def add(self, values: dict[str, float], step: int) -> None:
        self.rows.writerows((step, tag, value) for tag, value in values.items())

    def close(self, failed: bool) -> None:
        if self.file is not None:
            self.file.close()


class WeightsAndBiases(Tracker):
    """A run at Weights & Biases, or in the run's folder where WANDB_MODE is offline.

    The library reads its own variables, such as WANDB_ENTITY. An interrupted run goes on under its id, which `resume`
    keeps in the folder. What was sent stays: points after the resume point come twice.
    """

    errors = (Exception,)  # of a network, a server, a login
    place = "Weights & Biases"

    def __init__(self, folder: Path, cfg: CN):
        self.folder, self.cfg, self.run = folder, cfg, None

    def open(self, first_step: int) -> None:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", f"{self.cfg.DATASET.NAME} {self.cfg.TRAINER.NAME} {self.folder.name}"),
            dir=self.folder,
            config=changed_keys(self.cfg),
            resume="auto",
            reinit="create_new",  # another run of the user's process is left alone
        )
        self.run.define_metric("*", step_metric="step")  # its own step may only grow; losses are read late

    def add(self, values: dict[str, float], step: int) -> None:
        self.run.log({**values, "step": step})

    def close(self, failed: bool) -> None:
        if self.run is not None:
            self.run.finish(exit_code=int(failed))  # after 0 the library forgets the id
