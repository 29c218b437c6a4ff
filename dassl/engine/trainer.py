"""Trainers in Dassl's form, on the engine's loop.

What the two forms do in different ways, and where it is adapted:

| what          | in Dassl                                         | here                                            |
|---------------|--------------------------------------------------|-------------------------------------------------|
| options       | `extend_cfg(cfg)` in train.py declares them      | the method's file may have that function        |
| schedules     | the method steps them, at an epoch's last batch  | so the loop does not                            |
| INIT_WEIGHTS  | the method reads them                            | so the engine does not                          |
| scaler        | None where nothing is scaled                     | one that scales nothing                         |
| parts of loop | may be the method's own, `train` altogether      | setting `epoch` draws the epoch's order         |
| train() mode  | for all models                                   | not only for those with an optimiser            |
| batches       | in training also domains                         | `parse_batch_train` adds them, all 0            |
| `save_model`  | takes a folder, and epochs counted from 0        | called so by the loop, too                      |
| `load_model`  | the method's own; None is the best model         | is given None; the epoch it loads is kept       |
| `test`        | may be the method's own                          | what it evaluates is kept for results.json      |
| `after_train` | may be the method's own                          | results of a validation before it do not count  |
"""

from __future__ import annotations

import sys
import time
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode as CN

import engine
from engine.config.plugins import extend
from engine.data.manager import set_epoch
from engine.trackers import TensorBoard

# Also what Dassl's trainer.py imports: other files import it from there.
from ..data import DataManager
from ..evaluation import build_evaluator
from ..optim import build_lr_scheduler, build_optimizer
from ..utils import (
    AverageMeter,
    MetricMeter,
    count_num_param,
    load_checkpoint,
    load_pretrained_weights,
    mkdir_if_missing,
    resume_from_checkpoint,
    save_checkpoint,
    tolist_if_not,
)
from .class_rows import warnings_of_start
from .overrides import ending, loading, measuring, refusal, saving


def __getattr__(name: str) -> Any:
    if name != "SummaryWriter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from torch.utils.tensorboard import SummaryWriter  # here: importing it takes a while

    return SummaryWriter


class TrainerX(engine.TrainerX):
    """A method in Dassl's form: `check_cfg`, `build_model`, `forward_backward`, perhaps `load_model` and `test`."""

    loop_steps_schedules = False
    ignored_on_load = ("token_prefix", "token_suffix")
    _epoch = batch_idx = num_batches = 0  # before training, too
    train_loader_u, num_source_domains = None, 0

    @classmethod
    def add_config(cls, cfg: CN) -> None:
        """Declares what `extend_cfg(cfg)` does, if the method's file has that function."""
        extend_cfg = getattr(sys.modules.get(cls.__module__), "extend_cfg", None)
        if extend_cfg is not None:
            extend(cfg, extend_cfg, source=cls.__module__)

    def __init__(self, cfg: CN):
        self.time_start = time.time()
        try:
            super().__init__(cfg)
        except (AssertionError, AttributeError) as error:
            message = refusal(type(self).__name__, error, cfg)
            if message is None:
                raise
            raise ValueError(message) from error
        self._keep_in_float32()
        self.save_model, self.load_model = saving(self), loading(self)
        self.evaluator.evaluate, self.after_train = measuring(self), ending(self)

    def _keep_in_float32(self) -> None:
        """CLIP comes in float32, whatever PREC says: so what the method has made half for it does, too."""
        model = getattr(self, "model", None)
        model = getattr(model, "module", model)  # of nn.DataParallel
        if getattr(model, "dtype", None) is torch.float32:
            model.float()

    def load_init_weights(self) -> None:
        """Loads nothing: the method's `build_model` has read MODEL.INIT_WEIGHTS."""
        self.warnings.add(*warnings_of_start(self, self.cfg.MODEL.INIT_WEIGHTS))

    def forward_backward(self, batch: dict) -> dict[str, float]:
        name = type(self).__name__
        raise ValueError(f"{name} has no forward_backward: it trains nothing. Add --eval-only.")

    def model_inference(self, input: Tensor) -> Tensor:
        return self.model(input)

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """Returns a batch's images (B, 3, H, W), labels (B,) and domains (B,), all 0, on the device."""
        return *super().parse_batch_train(batch), batch["domain"].to(self.device)

    def result_fields(self) -> dict[str, Any]:
        return {"n_params": sum(p.numel() for p in set(self.trained.parameters()) if p.requires_grad)}

    # What is trained, under Dassl's names

    _models, _optims, _scheds = (property(attrgetter(name)) for name in ("models", "optims", "scheds"))

    @property
    def scaler(self) -> torch.amp.GradScaler:
        return self._scaler

    @scaler.setter
    def scaler(self, scaler: torch.amp.GradScaler | None) -> None:
        self._scaler = scaler or torch.amp.GradScaler(self.device.type, enabled=False)

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Sets the models to train() or eval()."""
        for name in self.get_model_names(names):
            self.models[name].train(mode == "train")

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """Returns `names` as a list, all registered names for None."""
        return self.trained.names(names)

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        """Returns the learning rate in force."""
        return self.trained.lr(names)

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Steps the schedules; a method calls it at an epoch's last batch."""
        self.trained.update_lr(names)

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        """Forgets the gradients."""
        for optim in self.trained.optimizers(names):
            optim.zero_grad()

    def detect_anomaly(self, loss: Tensor) -> None:
        """Raises FloatingPointError if the loss is infinite or not a number."""
        if not torch.isfinite(loss).all():
            raise FloatingPointError(f"The loss is {loss}. Lower OPTIM.LR, or use PREC fp32.")

    def model_backward(self, loss: Tensor) -> None:
        """Computes the gradients of a loss."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        """Steps the optimisers."""
        for optim in self.trained.optimizers(names):
            optim.step()

    def prograd_backward_and_update(
        self, loss_a: Tensor, loss_b: Tensor, lambda_: float = 1, names: str | list[str] | None = None
    ) -> None:
        """Steps on `loss_a`, without `lambda_` of the part of a tensor's gradient that opposes that of `loss_b`.

        The engine of ProGrad's repository has it (Zhu et al., https://arxiv.org/abs/2205.14865):
        g = g_a - lambda <g_a, u> u with u = g_b / |g_b| where <g_a, g_b> < 0, else g = g_a.
        """
        self.detect_anomaly(loss_b)
        parameters = self.trained.parameters(names)
        gradients_b = torch.autograd.grad(loss_b, parameters, retain_graph=True, allow_unused=True)
        self.model_zero_grad(names)
        self.model_backward(loss_a)
        for parameter, gradient_b in zip(parameters, gradients_b):
            if parameter.grad is not None and gradient_b is not None:
                unit = gradient_b / gradient_b.norm()
                along = (parameter.grad * unit).sum()
                if along < 0:
                    parameter.grad -= lambda_ * along * unit
        self.model_update(names)

    # The loop

    @property
    def epoch(self) -> int:
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch, self.epochs_done = epoch, epoch + 1  # as it is when anything asks
        self.dm.set_epoch(epoch)
        if self.train_loader_x is not self.dm.train_loader_x:  # one of the method's own
            set_epoch(self.train_loader_x, epoch)

    def before_train(self) -> None:
        super().before_train()
        self.time_start = time.time()

    def run_epoch(self) -> None:
        self.num_batches = len(self.train_loader_x)
        super().run_epoch()

    def save_model(
        self,
        epoch: int,
        directory: str | Path,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Saves every model in the epoch, counted from 0: under the epoch's name, or another; the best under both."""
        for name in self.models:
            state = self.checkpoint(name, epoch + 1, val_result)
            save_checkpoint(state, Path(directory) / name, is_best=is_best, model_name=model_name)

    def init_writer(self, log_dir: str | Path) -> None:
        """Opens TensorBoard's file, unless the loop has opened what TRAIN.LOGGERS names."""
        if not self.writer:
            self.writer.open([TensorBoard(log_dir)])

    def close_writer(self) -> None:
        """Ends the curves."""
        self.writer.close()

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Adds a point to a curve, while training."""
        self.writer.add_scalar(tag, scalar_value, global_step)


TrainerBase = SimpleTrainer = TrainerX  # one class does what Dassl shares out among three
