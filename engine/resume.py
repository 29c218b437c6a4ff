"""Exact resume: where a run stands is kept in a file, from which it goes on as if it had never been interrupted.

OUTPUT_DIR/resume.pth.tar is {"models": {name: {"state_dict", "optimizer", "scheduler"}}, "epoch", "batch",
"val_result", "scaler", "random", "time_s", "testing_s"} and what the method adds. It is written between two steps:
every TRAIN.RESUME_EVERY_S seconds, and when the run is asked to end. The one before it stays as resume-before.pth.tar.

Items are drawn by (SEED, epoch), so the number of batches that are done says which are left. A checkpoint of a whole
epoch has the same entries, of one model: the newest of all these files wins.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .checkpoint import BEST, epoch_of, newest_whole, save_checkpoint, saved_checkpoints
from .distributed import any_rank, is_first_rank, n_ranks, of_all_ranks, on_first_rank, rank
from .files import MAY_NOT_WRITE, write_atomically, writing
from .random_state import random_state, restore_random_state
from .run_state import require_state, restore_optimizer, restore_schedule, restoring
from .tester import Tester

RESUME, BEFORE = "resume.pth.tar", "resume-before.pth.tar"

logger = logging.getLogger(__name__)


class Resumable(Tester):
    """A run that keeps its place, and finds it again.

    Attributes:
        place: Where in the run the models as they are stand; None while they change.
        first_batch, first_random: What the first epoch begins with, a batch and the state of the random generators.
    """

    place: dict[str, Any] | None = None
    first_batch, first_random = 0, None

    def __init__(self, cfg):
        super().__init__(cfg)
        self.saved_place, self.last_saved_s = self.place, time.monotonic()

    def keep_place(self, epoch: int, batch: int) -> None:
        """Remembers where the models stand: after so many epochs, and so many batches of the next one.

        After all batches of it, nothing but its validation is left.
        """
        self.place = {"epoch": epoch, "batch": batch, "val_result": self.best_result, "random": random_state()}

    def is_due(self) -> bool:
        """Says whether TRAIN.RESUME_EVERY_S seconds have gone by."""
        every_s = self.cfg.TRAIN.RESUME_EVERY_S
        return every_s > 0 and time.monotonic() - self.last_saved_s >= every_s

    def save_place_if_due(self) -> None:
        """Saves the models in their place if it is time on any rank."""
        if any_rank([self.is_due()])[0]:
            self.save_place()

    def save_place(self) -> None:
        """Saves the models in their place, once."""
        if self.place is None or self.place is self.saved_place:
            return
        self.check_losses()
        trained = {name: self.trained(name) for name in self.models}
        for own in trained.values():
            state_dict = own["state_dict"].items()
            own["state_dict"] = {key: value for key, value in state_dict if key not in self.ignored_on_load}
        state = {"models": trained, "scaler": self.scaler.state_dict(), **self.times(), **self.checkpoint_fields()}
        state |= {**self.place, "random": of_all_ranks(self.place["random"])}
        if is_first_rank() and (self.output_dir / RESUME).is_file():
            with writing(self.output_dir / BEFORE):
                os.replace(self.output_dir / RESUME, self.output_dir / BEFORE)
        save_checkpoint(state, self.output_dir, file_name=RESUME)
        self.saved_place, self.last_saved_s = self.place, time.monotonic()

    def resume_model_if_exist(self, directory: str | Path) -> int:
        """Restores the newest state in `directory` and returns how many epochs it is after; sets the place, too.

        Raises:
            ValueError: If it is of another method, backbone or class list, was trained on other items or weights, or an
                entry is none that training saves.
        """
        found = on_first_rank(partial(newest_state, Path(directory), list(self.models)))
        if found is None:
            return 0
        path, state = found
        self._require_same_inputs(state, path)
        for name in self.models:
            own = {"state_dict": {}, **state["models"].get(name, {}), "trainer": state.get("trainer")}
            self._load_state(name, own, path)
            self._resume_best(name, Path(directory), state.get("val_result"))
            if self.optims[name] is not None:
                with restoring(path, "optimizer"):
                    restore_optimizer(self.optims[name], own["optimizer"])
            if self.scheds[name] is not None:
                with restoring(path, "scheduler"):
                    restore_schedule(self.scheds[name], own["scheduler"])
        if self.scaler.is_enabled() and state.get("scaler"):  # none from a run in float32
            with restoring(path, "scaler"):
                self.scaler.load_state_dict(state["scaler"])
        self.earlier_s, self.testing_s = state.get("time_s", 0.0), state.get("testing_s", 0.0)
        if of_ranks := state.get("random"):  # not in one of the original's
            with restoring(path, "random"):
                restore_random_state(of_ranks[rank()] if len(of_ranks) == n_ranks() else of_ranks[0])
        self.first_batch = state["batch"]
        self.keep_place(state["epoch"], self.first_batch)
        self.first_random = self.place["random"]
        if Path(directory) == self.output_dir:
            self.saved_place = self.place
            if path.name == BEFORE and is_first_rank():
                os.replace(path, self.output_dir / RESUME)  # else what is not whole would take its place
        logger.info("Resume %s from %s", name_place(state), directory)
        return state["epoch"]

    def _require_same_inputs(self, state: dict[str, Any], path: Path) -> None:
        """Raises if the run would go on with another input than it began with: neither run would be done."""
        own, cfg = self.checkpoint_fields(), self.cfg
        inputs = {
            "data_sha256": f"The items of {cfg.DATASET.NAME} are others, or in another order,",
            "weights_sha256": f"The weights of {cfg.MODEL.BACKBONE.NAME} are others",
        }
        for key, what in inputs.items():
            if None not in (state.get(key), own.get(key)) and state[key] != own[key]:
                raise ValueError(
                    f"{what} than when {path} was saved, expected the same until the run has ended. Put them back, or "
                    "begin anew in another folder."
                )

    def _resume_best(self, name: str, directory: Path, result: Any) -> None:
        """Takes over the best model so far, with its result; without the one the other means nothing."""
        best, own = directory / name / BEST, self.output_dir / name / BEST
        if on_first_rank(best.is_file) and isinstance(result, (int, float)):
            self.best_result = result
            if is_first_rank() and best.resolve() != own.resolve():
                write_atomically(own, lambda temporary: shutil.copy(best, temporary))


def name_place(place: dict[str, Any]) -> str:
    """Returns the words for a place."""
    return f"after epoch {place['epoch']}" + (f", batch {place['batch']}" if place["batch"] else "")


def newest_state(folder: Path, names: Sequence[str]) -> tuple[Path, dict[str, Any]] | None:
    """Returns the newest state of these models that is whole in a run's folder, and its file; None if there is none."""
    if not names:
        return None
    resumed = newest_whole(folder / name for name in (RESUME, BEFORE))
    if resumed:
        require_state(*resumed, "models", "epoch", "batch")
    place = (resumed[1]["epoch"], resumed[1]["batch"]) if resumed else (-1, 0)
    saved = saved_checkpoints(folder / names[0])
    for path in (path for path in saved if (epoch_of(path) or 0, 0) > place):
        found = [newest_whole([folder / name / path.name]) for name in names]
        if None not in found:
            for one in found:
                require_state(*one, "epoch")
            models = {name: own for name, (_, own) in zip(names, found)}
            return path, {**found[0][1], "models": models, "batch": 0}
    if resumed is None and (saved or any((folder / name).is_file() for name in (RESUME, BEFORE))):
        logger.warning(f"Nothing in {folder} is whole: the run starts from the beginning")
    return resumed


def remove_resume_files(folder: str | Path) -> None:
    """Removes what a run that has ended does not go on from; of several ranks the first does."""
    for path in (Path(folder, name) for name in (RESUME, BEFORE)) if is_first_rank() else ():
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in MAY_NOT_WRITE:  # else it stays, in nobody's way
                raise
