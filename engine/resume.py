"""Exact resume: a run's state is kept in a file, from which it goes on as if it had never been interrupted.

OUTPUT_DIR/resume.pth.tar is {"models": {name: {"state_dict", "optimizer", "scheduler"}}, "epoch", "batch",
"val_result", "scaler", "random", "time_s", "testing_s"} and what the method adds. It is written between two steps:
every TRAIN.RESUME_EVERY_S seconds, and when the run is asked to end. The one before it stays as resume-before.pth.tar.

Items are drawn by (SEED, epoch), so the number of batches that are done says which are left. A checkpoint of a whole
epoch has the same entries, of one model: the newest of all these files wins.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch.amp import GradScaler
from torch.optim import Optimizer

from .checkpoint import BEST, MARKER, Checkpointer, epoch_of, newest_whole, save_checkpoint, saved_checkpoints
from .distributed import gather_objects, is_first_rank, n_ranks, on_first_rank, rank
from .files import MAY_NOT_WRITE, missing_path, write_atomically, writing
from .optim import restore_schedule
from .random_state import random_state, restore_random_state
from .text import printable, shorten

RESUME, BEFORE = "resume.pth.tar", "resume-before.pth.tar"
BROKEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ResumePoint:
    """Where in a run the models stand.

    Attributes:
        epoch: So many epochs are done.
        batch: And so many batches of the next one; after all of them only its validation is left.
        val_result: The best result on the validation items so far, in percent; -1 before the first.
        random: The state of this rank's random generators.
    """

    epoch: int
    batch: int
    val_result: float
    random: dict[str, Any]

    def __str__(self) -> str:
        return f"after epoch {self.epoch}" + (f", batch {self.batch}" if self.batch else "")


class ResumeFile:
    """The resume file of a run's folder.

    Args:
        folder: The run's folder.
        every_s: Seconds between two writes; 0: it is only written when the run is asked to end.
    """

    def __init__(self, folder: Path, *, every_s: float):
        self.folder, self.every_s = folder, every_s
        self.saved: ResumePoint | None = None  # the point in the file
        self.saved_s = time.monotonic()

    def is_due(self) -> bool:
        """Says whether it is time to write it, by this rank's clock."""
        return self.every_s > 0 and time.monotonic() - self.saved_s >= self.every_s

    def save(self, point: ResumePoint | None, state: Callable[[], dict[str, Any]]) -> None:
        """Writes the state of a run at a point, once; for None, while the models change, nothing.

        Args:
            point: Where the models stand.
            state: Gives the other entries of the file.

        Raises:
            OSError: If the disk is full or may not be written to; the file is as it was.
        """
        if point is None or point is self.saved:
            return
        position = {"epoch": point.epoch, "batch": point.batch, "val_result": point.val_result}
        content = {**state(), **position, "random": gather_objects(point.random)}
        if is_first_rank() and (self.folder / RESUME).is_file():
            with writing(self.folder / BEFORE):
                os.replace(self.folder / RESUME, self.folder / BEFORE)
        save_checkpoint(content, self.folder, file_name=RESUME)
        self.saved, self.saved_s = point, time.monotonic()

    def restore(
        self, directory: Path, checkpointer: Checkpointer, scaler: GradScaler, inputs: dict[str, Any]
    ) -> tuple[ResumePoint, dict[str, Any]] | None:
        """Restores the newest state that is whole in a run's folder: models, optimisers, schedules, scaler, generators.

        Args:
            directory: Where it is looked for. The best model so far is copied from there.
            checkpointer: Of the models that are restored.
            scaler: Is restored if it is enabled.
            inputs: What the run learns from, "data_sha256" of "dataset" and "weights_sha256" of "backbone".

        Returns:
            Where the run goes on, its `val_result` -1 where no best model is there, and the state; None if there is
            no state.

        Raises:
            ValueError: If it is of another method, backbone or class list, was trained on other items or weights, or an
                entry is none that training saves.
        """
        names = list(checkpointer.trained.models)
        found = on_first_rank(partial(newest_state, directory, names))
        if found is None:
            return None
        path, state = found
        _require_same_inputs(state, inputs, path)
        epoch = None if "random" in state else state["epoch"]  # of one that this loop has not saved
        for name in names:
            own = {"state_dict": {}, **state["models"].get(name, {}), "trainer": state.get("trainer")}
            checkpointer.load(name, own, path)
            _restore_optimizer(checkpointer.trained.optims[name], own, path)
            if (sched := checkpointer.trained.scheds[name]) is not None:
                with _restoring(path, "scheduler"):
                    restore_schedule(sched, own["scheduler"], epoch)
        has_best = isinstance(state.get("val_result"), (int, float)) and _take_best(names, directory, self.folder)
        if scaler.is_enabled() and state.get("scaler"):  # none from a run in float32
            with _restoring(path, "scaler"):
                scaler.load_state_dict(state["scaler"])
        if of_ranks := state.get("random"):  # not in one of the original's
            with _restoring(path, "random"):
                restore_random_state(of_ranks[rank()] if len(of_ranks) == n_ranks() else of_ranks[0])
        if path == self.folder / BEFORE and is_first_rank():
            os.replace(path, self.folder / RESUME)  # else what is not whole would take its place
        point = ResumePoint(state["epoch"], state["batch"], state["val_result"] if has_best else -1.0, random_state())
        if directory == self.folder:
            self.saved = point
        return point, state


def newest_state(folder: Path, names: Sequence[str]) -> tuple[Path, dict[str, Any]] | None:
    """Returns the newest state of these models that is whole in a run's folder, and its file; None if there is none."""
    if not names:
        return None
    resumed = newest_whole(folder / name for name in (RESUME, BEFORE))
    if resumed:
        _require_entries(*resumed, "models", "epoch", "batch")
    position = (resumed[1]["epoch"], resumed[1]["batch"]) if resumed else (-1, 0)
    saved = saved_checkpoints(folder / names[0])
    for path in (path for path in saved if (epoch_of(path) or 0, 0) > position):
        found = [newest_whole([folder / name / path.name]) for name in names]
        if None not in found:
            for one in found:
                _require_entries(*one, "epoch")
            models = {name: own for name, (_, own) in zip(names, found)}
            return path, {**found[0][1], "models": models, "batch": 0}
    if resumed is None and (saved or any((folder / name).is_file() for name in (RESUME, BEFORE))):
        logger.warning(f"Nothing in {folder} is whole: the run starts from the beginning")
    return resumed


def nothing_to_resume(folder: str | Path, names: Sequence[str]) -> Exception:
    """Returns what is wrong with RESUME, a folder in which no state of these models was found."""
    marker = Path(folder, *names[:1], MARKER)  # a method may register none
    if not marker.exists():
        return FileNotFoundError(missing_path(marker, "RESUME's file", "Correct --resume, or leave it out."))
    return ValueError(f"RESUME is {folder}, which holds no whole checkpoint. Name another folder with --resume.")


def _take_best(names: Sequence[str], source: Path, target: Path) -> bool:
    """Copies the best models so far from a run's folder to another one; says whether all were there."""
    files = [(source / name / BEST, target / name / BEST) for name in names]
    if not all(on_first_rank(best.is_file) for best, _ in files):
        return False
    for best, own in files if is_first_rank() else ():
        if best.resolve() != own.resolve():
            write_atomically(own, partial(shutil.copy, best))
    return True


def remove_resume_files(folder: str | Path) -> None:
    """Removes what a run that has ended does not go on from; of several ranks the first does."""
    for path in (Path(folder, name) for name in (RESUME, BEFORE)) if is_first_rank() else ():
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in MAY_NOT_WRITE:  # else it stays, in nobody's way
                raise


# What a state has to hold: in a stranger's file anything may stand under these names.


def _require_same_inputs(state: dict[str, Any], own: dict[str, Any], path: Path) -> None:
    """Raises ValueError if a run would go on with other items or other weights than it began with."""
    inputs = {
        "data_sha256": f"The items of {own['dataset']} are others, or in another order,",
        "weights_sha256": f"The weights of {own.get('backbone')}, or the config beside them, are others",
    }
    for key, what in inputs.items():
        if None not in (state.get(key), own.get(key)) and state[key] != own[key]:
            raise ValueError(
                f"{what} than when {path} was saved. They must stay the same until the run has ended: put them back, "
                "or begin anew in another folder."
            )


def _restore_optimizer(optim: Optimizer | None, state: dict[str, Any], path: Path) -> None:
    """Restores an optimiser; raises ValueError if a group lacks an option, or it is no number."""
    if optim is None:
        return
    with _restoring(path, "optimizer"):
        optim.load_state_dict(state.get("optimizer"))
        for group in optim.param_groups:
            for name, default in optim.defaults.items():
                if type(default) is float and not is_number(group[name]):
                    raise TypeError(f"{name} is {shorten(group[name])}")


@contextmanager
def _restoring(path: Path, name: str) -> Iterator[None]:
    """Names the file and the entry, where an entry cannot be restored: optimisers and generators check little.

    Raises:
        ValueError: Whatever the error is.
    """
    try:
        yield
    except BROKEN as error:
        reason = printable(" ".join(str(error).split()))
        raise _no_state(path, f"its `{name}` cannot be restored, {type(error).__name__}: {reason}") from error


def is_whole(value: Any) -> bool:
    """Says whether it is a whole number from 0 on, and no truth value."""
    return type(value) is int and value >= 0


def is_number(value: Any) -> bool:
    """Says whether it is a number, neither infinite nor NaN, and no truth value."""
    return type(value) in (int, float) and math.isfinite(value)


RULES = {  # of entries that fit anywhere, and would be missed only later
    "epoch": (is_whole, "a whole number"),
    "batch": (is_whole, "a whole number"),
    "time_s": (is_number, "a number of seconds"),
    "testing_s": (is_number, "a number of seconds"),
}


def _require_entries(path: Path, state: dict[str, Any], *needed: str) -> None:
    """Raises ValueError if a state lacks one of the entries `needed`, or an entry is none that training saves."""
    for name in needed:
        if name not in state:
            raise _no_state(path, f"it has no `{name}`")
    for name, (keeps_rule, rule) in RULES.items():
        if name in state and not keeps_rule(state[name]):
            raise _no_state(path, f"its `{name}` is {shorten(state[name])} and not {rule}")


def _no_state(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is not the state of a run as training saves it ({reason}). Delete it, or name another folder with "
        "--resume."
    )
