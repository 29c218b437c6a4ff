"""Trainers in Dassl's form, on the engine's loop.

What the two forms do in different ways, and where it is adapted:

| what          | in Dassl                                         | here                                            |
|---------------|--------------------------------------------------|-------------------------------------------------|
| options       | `extend_cfg(cfg)` in train.py declares them      | the method's file may have that function        |
| schedules     | the method steps them, at an epoch's last batch  | so the loop does not                            |
| INIT_WEIGHTS  | the method reads them                            | so the engine does not                          |
| scaler        | None where nothing is scaled                     | one that scales nothing                         |
| `save_model`  | takes a folder, and epochs counted from 0        | takes both forms                                |
| `load_model`  | the method's own; None is the best model         | is given None; the epoch it loads is kept       |
| `test`        | may be the method's own                          | what it evaluates is kept for results.json      |
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from yacs.config import CfgNode as CN

import engine
from engine import TRAINER_REGISTRY
from engine.checkpoint import BEST, checkpoint_name, load_checkpoint
from engine.plugins import extend

__all__ = ["TRAINER_REGISTRY", "SimpleTrainer", "TrainerBase", "TrainerX", "build_trainer"]


def build_trainer(cfg: CN) -> engine.TrainerX:
    """Builds the trainer that TRAINER.NAME names."""
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)


class TrainerX(engine.TrainerX):
    """A method in Dassl's form: `check_cfg`, `build_model`, `forward_backward`, perhaps `load_model` and `test`."""

    loop_steps_schedules = False
    ignored_on_load = ("token_prefix", "token_suffix")
    epoch = batch_idx = num_batches = 0  # before training, too
    train_loader_u = None

    @classmethod
    def add_config(cls, cfg: CN) -> None:
        """Declares what `extend_cfg(cfg)` does, if the method's file has that function."""
        extend_cfg = getattr(sys.modules.get(cls.__module__), "extend_cfg", None)
        if extend_cfg is not None:
            extend(cfg, extend_cfg, place=cls.__module__)

    def __init__(self, cfg: CN):
        self.time_start, self.time_start_s = time.time(), time.monotonic()
        try:
            super().__init__(cfg)
        except (AssertionError, AttributeError) as error:
            message = _refusal(type(self).__name__, error)
            if message is None:
                raise
            raise ValueError(message) from error
        self.load_model = self._keep_epoch(self.load_model)
        self.evaluator.evaluate = self._keep_results(self.evaluator.evaluate)

    def load_init_weights(self) -> None:
        """Does nothing: the method's `build_model` has read MODEL.INIT_WEIGHTS."""

    def model_inference(self, input: Tensor) -> Tensor:
        return self.model(input)

    def result_fields(self) -> dict[str, Any]:
        groups = [group for optim in self.optims.values() if optim is not None for group in optim.param_groups]
        return {"n_params": sum(parameter.numel() for group in groups for parameter in group["params"])}

    # What is trained, under Dassl's names

    @property
    def _models(self) -> dict[str, nn.Module]:
        return self.models

    @property
    def _optims(self) -> dict[str, torch.optim.Optimizer | None]:
        return self.optims

    @property
    def _scheds(self) -> dict[str, Any]:
        return self.scheds

    @property
    def scaler(self) -> torch.amp.GradScaler:
        return self._scaler

    @scaler.setter
    def scaler(self, scaler: torch.amp.GradScaler | None) -> None:
        self._scaler = scaler or torch.amp.GradScaler(self.device.type, enabled=False)

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        """Forgets the gradients."""
        for name in self.get_model_names(names):
            if self.optims[name] is not None:
                self.optims[name].zero_grad()

    def detect_anomaly(self, loss: Tensor) -> None:
        """Raises FloatingPointError if the loss is infinite or not a number."""
        if not torch.isfinite(loss).all():
            raise FloatingPointError(f"The loss is {loss}, expected a finite number. Lower OPTIM.LR, or use PREC fp32.")

    def model_backward(self, loss: Tensor) -> None:
        """Computes the gradients of a loss."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        """Steps the optimisers."""
        for name in self.get_model_names(names):
            if self.optims[name] is not None:
                self.optims[name].step()

    # The loop

    def before_train(self) -> None:
        super().before_train()
        self.time_start = time.time()

    def run_epoch(self) -> None:
        self.num_batches = len(self.train_loader_x)
        super().run_epoch()

    def after_epoch(self) -> None:
        self.epochs_done = self.epoch + 1  # the method may have a `run_epoch` of its own
        super().after_epoch()

    def save_model(
        self,
        epoch: int,
        directory: str | Path | None = None,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Saves every model: for the loop, or into a folder for a method, which counts epochs from 0.

        Raises:
            ValueError: If `model_name` is one that nothing here would load.
        """
        if directory is None:
            return super().save_model(epoch, is_best=is_best, val_result=val_result)
        if model_name not in ("", BEST):
            raise ValueError(f"save_model's model_name is {model_name!r}, expected {BEST}. Leave it out.")
        own, self.output_dir = self.output_dir, Path(directory)
        try:
            super().save_model(epoch + 1, is_best=is_best or model_name == BEST, val_result=val_result)
        finally:
            self.output_dir = own

    def init_writer(self, log_dir: str | Path) -> None:
        """Opens TensorBoard's file."""
        self.writer = self.writer or SummaryWriter(log_dir)

    def close_writer(self) -> None:
        """Closes it."""
        if self.writer is not None:
            self.writer.close()

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Writes a value to TensorBoard while training."""
        if self.writer is not None:
            self.writer.add_scalar(tag, scalar_value, global_step)

    def _keep_results(self, evaluate: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        def evaluate_and_keep() -> dict[str, Any]:
            self.results = evaluate()
            return self.results

        return evaluate_and_keep

    def _keep_epoch(self, load: Callable[..., None]) -> Callable[..., None]:
        """The method's `load_model`, for which None is the best model, with the engine's messages."""

        def load_and_keep(directory: str | Path, epoch: int | None = None) -> None:
            epoch = None if epoch is None or epoch < 0 else epoch
            path = Path(directory) / next(iter(self.models)) / (BEST if epoch is None else checkpoint_name(epoch))
            try:
                load(directory, epoch)
            except FileNotFoundError:
                load_checkpoint(path)  # says which epochs there are
                raise
            except RuntimeError as error:  # `load_state_dict` on other shapes
                raise ValueError(
                    f"The checkpoint {path} does not fit {type(self).__name__} ({' '.join(str(error).split())}). Give "
                    "the --trainer and the config it was trained with."
                ) from error
            if directory and path.is_file():
                self.epochs_done = load_checkpoint(path).get("epoch")

        return load_and_keep


def _refusal(name: str, error: Exception) -> str | None:
    """The message for an option that nothing declares or that the method asserts to be another, None for the rest."""
    if isinstance(error, AssertionError):
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{str(error) or place.line} ({place.filename}, line {place.lineno})"
        return f"{name} refuses the config: {what}. Change the key that it names."
    if isinstance(getattr(error, "obj", None), CN):
        return (
            f"{name} reads the option {error.name}, which nothing declares, expected it among the config's keys. Give "
            "--plugin-config FILE.yaml with its default, or define extend_cfg(cfg) in the trainer's file."
        )
    return None


TrainerBase = SimpleTrainer = TrainerX  # one class does what Dassl shares out among three
