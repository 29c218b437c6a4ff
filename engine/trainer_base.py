"""What is trained: the registered models, their optimisers and schedules; a step of them, saving, loading."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode as CN

from .checkpoint import file_to_load, load_checkpoint, load_pretrained_weights, save_checkpoint, saved_epoch
from .distributed import n_ranks, of_all_ranks, on_first_rank, sum_gradients, sum_over_ranks
from .random_state import random_state
from .text import printable, shorten

logger = logging.getLogger(__name__)


class TrainerBase:
    """Models by name. One that has an optimiser is trained; all are saved in OUTPUT_DIR/NAME/ and loaded from there.

    Class attributes:
        ignored_on_load: State-dict entries that are saved for reference and never read back.

    Attributes:
        epoch, batch_idx: Those of the step, while training.
        earlier_s: Seconds that training and its tests had taken when the run was interrupted.
        testing_s: Seconds that all tests have taken.
        doubts: What makes the results doubtful, a sentence each.
    """

    ignored_on_load: tuple[str, ...] = ()
    epoch = batch_idx = 0
    earlier_s = testing_s = 0.0

    def __init__(self, cfg: CN):
        self.cfg = cfg
        self.device = torch.device("cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu")
        self.output_dir = Path(cfg.OUTPUT_DIR)
        self.start_epoch, self.max_epoch = 0, cfg.OPTIM.MAX_EPOCH
        self.models: dict[str, nn.Module] = {}
        self.optims: dict[str, torch.optim.Optimizer | None] = {}
        self.scheds: dict[str, Any] = {}
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        self.epochs_done = 0  # of the model as it is
        self.best_result, self.time_start_s = -1.0, time.monotonic()
        self.batch_share = 1 / n_ranks()  # this rank's part of a training batch
        self.doubts: list[str] = []
        self.unread_losses: list[tuple[str, torch.Tensor]] = []  # where in the run, and the loss there
        self._summed = False  # whether the gradients are those of all ranks

    def register_model(self, name: str = "model", model: nn.Module | None = None, optim=None, sched=None) -> None:
        """Makes `model` one that is saved and loaded under `name`, and trained if it has an optimiser."""
        self.models[name], self.optims[name], self.scheds[name] = model, optim, sched
        if n_ranks() > 1 and optim is not None:
            optim.register_step_pre_hook(self._require_summed)

    def load_init_weights(self) -> None:
        """Starts every model from MODEL.INIT_WEIGHTS, if it is set."""
        for model in self.models.values() if self.cfg.MODEL.INIT_WEIGHTS else ():
            load_pretrained_weights(model, self.cfg.MODEL.INIT_WEIGHTS, ignored=self.ignored_on_load)

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """Returns `names` as a list, all registered names for None."""
        return [names] if isinstance(names, str) else list(names or self.models)

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Sets what is trained to train() or eval(); everything else stays in eval() always."""
        for name in self.get_model_names(names):
            self.models[name].train(mode == "train" and self.optims[name] is not None)

    def model_backward_and_update(self, loss: torch.Tensor, names: str | list[str] | None = None) -> None:
        """Does one optimisation step on `loss` (a scalar, the mean over this rank's items).

        Raises:
            FloatingPointError: On a CPU, if the loss is infinite or not a number; a GPU's is checked when losses are
                read, and before anything is saved.
        """
        loss = loss * self.batch_share
        place = f"epoch {self.epoch + 1}, batch {self.batch_idx + 1}, at learning rate {self.get_current_lr():.4e}"
        self.unread_losses.append((place, sum_over_ranks(loss.detach())))
        if self.device.type == "cpu":  # elsewhere every step would wait for the GPU
            self.check_losses()
        optims = [self.optims[name] for name in self.get_model_names(names) if self.optims[name] is not None]
        for optim in optims:
            optim.zero_grad()
        self.scaler.scale(loss).backward()
        sum_gradients(parameter for optim in optims for group in optim.param_groups for parameter in group["params"])
        self._summed = True
        for optim in optims:
            self.scaler.step(optim)
        self.scaler.update()
        self._summed = False

    def check_losses(self) -> None:
        """Raises FloatingPointError if a loss since the last call is infinite or not a number, on any rank."""
        unread, self.unread_losses = self.unread_losses, []
        for place, loss in unread:
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"The loss is {loss.item()} in {place}, expected a finite number. Lower OPTIM.LR, or use PREC "
                    "fp32; what was saved before is as it was."
                )

    def _require_summed(self, *_) -> None:
        """Raises before a step that would take the ranks apart."""
        if not self._summed:
            raise ValueError(
                f"{self.cfg.TRAINER.NAME} steps its optimiser by itself on {n_ranks()} ranks, expected a call of "
                "model_backward_and_update, which adds up their gradients. Run it in one process, or change the method."
            )

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Steps the schedules. The loop calls it at the end of every epoch; a method does not."""
        for name in self.get_model_names(names):
            if self.scheds[name] is not None:
                self.scheds[name].step()

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        """Returns the learning rate in force."""
        return self.optims[self.get_model_names(names)[0]].param_groups[0]["lr"]

    def save_model(self, epoch: int, *, val_result: float | None = None, is_best: bool = False) -> None:
        """Saves every model after `epoch` epochs."""
        self.check_losses()
        for name in self.models:
            save_checkpoint(self.checkpoint(name, epoch, val_result), self.output_dir / name, is_best=is_best)

    def checkpoint(self, name: str, epoch: int, val_result: float | None = None) -> dict[str, Any]:
        """Returns what is saved of a model after `epoch` epochs."""
        return {
            **self.trained(name),
            "epoch": epoch,
            "val_result": val_result,
            "scaler": self.scaler.state_dict(),
            "random": of_all_ranks(random_state()),
            **self.times(),
            **self.checkpoint_fields(),
        }

    def trained(self, name: str) -> dict[str, Any]:
        """Returns the entries of a checkpoint that each model has of its own."""
        optim, sched, state_dict = self.optims[name], self.scheds[name], self.models[name].state_dict()
        for key, value in state_dict.items():
            if value.is_floating_point() and value.isnan().any():  # after the last step there is no loss to show it
                raise FloatingPointError(
                    f"{name}'s {key} holds NaN after epoch {self.epoch + 1}, batch {self.batch_idx + 1}, expected "
                    "numbers. Lower OPTIM.LR, or use PREC fp32; what was saved before is as it was."
                )
        return {
            "state_dict": state_dict,
            "optimizer": optim.state_dict() if optim else None,
            "scheduler": {"last_epoch": sched.last_epoch} if sched else None,
        }

    def times(self) -> dict[str, float]:
        """Returns the seconds that the run, and the tests in it, have taken, those of its earlier parts too."""
        return {"time_s": self.earlier_s + time.monotonic() - self.time_start_s, "testing_s": self.testing_s}

    def checkpoint_fields(self) -> dict[str, Any]:
        """Returns further entries of a checkpoint: what it says of itself."""
        return {}

    def backbone_fields(self) -> dict[str, Any]:
        """Returns a checkpoint's entries "backbone" and "weights_sha256", where the method knows them."""
        return {}

    def load_model(self, directory: str | Path, epoch: int | None = None) -> None:
        """Loads every model from a run's folder.

        Args:
            directory: The run's folder; "" loads nothing.
            epoch: After how many epochs; None or negative: the best model on the validation items.

        Raises:
            FileNotFoundError: If that checkpoint was not saved; the message lists the epochs there are.
            ValueError: If it is cut short, or of another method, backbone or number of classes.
        """
        if not self.models:
            return
        if not directory:
            logger.info("No --model-dir is given: the model is evaluated as it starts")
            return
        for name in self.models:
            path = Path(directory) / name / file_to_load(epoch)
            checkpoint = on_first_rank(partial(load_checkpoint, path))
            try:
                self.before_load(name, checkpoint)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            self._load_state(name, checkpoint, path)
            self._doubt_backbone(checkpoint, path)
            self.epochs_done = saved_epoch(checkpoint, path)
            logger.info("Load %s (epoch %s)", path, self.epochs_done)

    def before_load(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Adapts the model `name` to a checkpoint that is going to be loaded into it, or the other way round."""

    def _load_state(self, name: str, checkpoint: dict[str, Any], path: Path) -> None:
        """Copies a checkpoint's state dict into a model; everything but `ignored_on_load` must fit."""
        found = {key: value for key, value in checkpoint["state_dict"].items() if key not in self.ignored_on_load}
        expected = {key: v for key, v in self.models[name].state_dict().items() if key not in self.ignored_on_load}
        shapes_found = {key: tuple(value.shape) for key, value in found.items()}
        shapes_expected = {key: tuple(value.shape) for key, value in expected.items()}
        if shapes_found != shapes_expected:
            trainer = checkpoint.get("trainer")
            of_trainer = f" of {printable(str(trainer))}" if trainer else ""
            raise ValueError(
                f"The checkpoint {path}{of_trainer} holds {_entries(shapes_found)}, "
                f"{self.cfg.TRAINER.NAME} expected {_entries(shapes_expected)}. It was trained with another trainer, "
                "backbone, context or class list: give the --trainer and the config it was trained with."
            )
        self.models[name].load_state_dict(found, strict=False)

    def _doubt_backbone(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Says if a checkpoint was trained with other weights of CLIP: its shapes may fit, and mean nothing there."""
        own, learned_with = self.backbone_fields(), checkpoint.get("weights_sha256")
        if None not in (learned_with, own.get("weights_sha256")) and learned_with != own["weights_sha256"]:
            self.doubts.append(
                f"The checkpoint {path.name} was trained with {shorten(checkpoint.get('backbone'))} and is tested with "
                f"{own['backbone']}, whose weights are others: what was learned there means little here."
            )


def _entries(shapes: dict[str, tuple[int, ...]]) -> str:
    return printable(", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))) or "nothing"
