"""What is trained: the registered models, their optimisers and schedules; a step of them, saving, resuming, loading."""

from __future__ import annotations

import logging
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode as CN

from .checkpoint import (
    BEST,
    checkpoint_name,
    epoch_of,
    load_checkpoint,
    load_pretrained_weights,
    newest_checkpoint,
    save_checkpoint,
)
from .distributed import is_first_rank, n_ranks, on_first_rank, sum_gradients, sum_over_ranks
from .files import write_atomically

logger = logging.getLogger(__name__)


class TrainerBase:
    """Models by name. One that has an optimiser is trained; all are saved in OUTPUT_DIR/NAME/ and loaded from there.

    Class attributes:
        ignored_on_load: State-dict entries that are saved for reference and never read back.

    Attributes:
        epoch, batch_idx: Those of the step, while training.
    """

    ignored_on_load: tuple[str, ...] = ()
    epoch = batch_idx = 0

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
        self.best_result, self.last_saved_s = -1.0, time.monotonic()
        self.batch_share = 1 / n_ranks()  # this rank's part of a training batch
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

    def roll_model(self, epoch: int, *, val_result: float | None = None) -> None:
        """Saves every model; the checkpoint before it is removed unless it was asked for. The first rank does."""
        if not is_first_rank():
            return
        before = [newest_checkpoint(self.output_dir / name) for name in self.models]
        self.save_model(epoch, val_result=val_result)
        after = [newest_checkpoint(self.output_dir / name) for name in self.models]
        for path in set(filter(None, before)) - set(after):
            if not self._is_kept(path):
                path.unlink(missing_ok=True)
        self.last_saved_s = time.monotonic()

    def checkpoint(self, name: str, epoch: int, val_result: float | None = None) -> dict[str, Any]:
        """Returns what is saved of a model after `epoch` epochs."""
        optim, sched = self.optims[name], self.scheds[name]
        return {
            "state_dict": self.models[name].state_dict(),
            "epoch": epoch,
            "optimizer": optim.state_dict() if optim else None,
            "scheduler": {"last_epoch": sched.last_epoch} if sched else None,
            "val_result": val_result,
            "scaler": self.scaler.state_dict(),
            **self.checkpoint_fields(),
        }

    def checkpoint_fields(self) -> dict[str, Any]:
        """Returns further entries of a checkpoint: what it says of itself."""
        return {}

    def _is_kept(self, path: Path) -> bool:
        epoch, frequency = epoch_of(path), self.cfg.TRAIN.CHECKPOINT_FREQ
        return epoch is None or epoch >= self.max_epoch or (frequency > 0 and epoch % frequency == 0)

    def resume_model_if_exist(self, directory: str | Path) -> int:
        """Restores the newest checkpoint in `directory` and returns its epoch, 0 if there is none."""
        newest = on_first_rank(lambda: {name: newest_checkpoint(Path(directory) / name) for name in self.models})
        if not newest or None in newest.values():
            return 0
        for name, path in newest.items():
            checkpoint = on_first_rank(partial(load_checkpoint, path))
            self._load_state(name, checkpoint, path)
            self._resume_best(name, Path(directory), checkpoint.get("val_result"))
            if self.optims[name] is not None:
                self.optims[name].load_state_dict(checkpoint["optimizer"])
                if self.scheds[name] is not None:
                    self.scheds[name].last_epoch = checkpoint["scheduler"]["last_epoch"]
            if self.scaler.is_enabled() and checkpoint.get("scaler"):  # none from a run in float32
                self.scaler.load_state_dict(checkpoint["scaler"])
        logger.info("Resume after epoch %d from %s", checkpoint["epoch"], directory)
        return checkpoint["epoch"]

    def _resume_best(self, name: str, directory: Path, result: Any) -> None:
        """Takes over the best model so far, with its result; without the one the other means nothing."""
        best, own = directory / name / BEST, self.output_dir / name / BEST
        if on_first_rank(best.is_file) and isinstance(result, (int, float)):
            self.best_result = result
            if is_first_rank() and best.resolve() != own.resolve():
                own.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(own, lambda temporary: shutil.copy(best, temporary))

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
        file_name = BEST if epoch is None or epoch < 0 else checkpoint_name(epoch)
        for name in self.models:
            path = Path(directory) / name / file_name
            checkpoint = on_first_rank(partial(load_checkpoint, path))
            self.before_load(name, checkpoint)
            self._load_state(name, checkpoint, path)
            self.epochs_done = checkpoint.get("epoch")
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
            raise ValueError(
                f"The checkpoint {path}{f' of {trainer}' if trainer else ''} holds {_entries(shapes_found)}, "
                f"{self.cfg.TRAINER.NAME} expected {_entries(shapes_expected)}. It was trained with another trainer, "
                "backbone, context or class list: give the --trainer and the config it was trained with."
            )
        self.models[name].load_state_dict(found, strict=False)


def _entries(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items())) or "nothing"
