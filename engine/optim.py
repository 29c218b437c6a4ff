"""Optimisers (torch's own), learning-rate schedules, each a closed formula of the epoch, and a step of what is trained.

lr(e) = warm-up(e)            for e < WARMUP_EPOCH
      = LR s(e - WARMUP_EPOCH)  after it, if WARMUP_RECOUNT
      = LR s(e) / s(WARMUP_EPOCH)  after it, otherwise
s(e)  = (1 + cos(pi e / MAX_EPOCH)) / 2      cosine
      = GAMMA^(e // STEPSIZE)                single_step
      = GAMMA^(milestones <= e)              multi_step
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import zip_longest
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from yacs.config import CfgNode as CN

from .distributed import n_ranks, sum_gradients, sum_over_ranks
from .text import shorten

logger = logging.getLogger(__name__)


def build_optimizer(
    model: nn.Module | Iterable[nn.Parameter], optim_cfg: CN, *, param_groups: list[dict] | None = None
) -> torch.optim.Optimizer:
    """Builds the optimiser that OPTIM describes over the parameters that require gradients.

    Args:
        model: A module, or parameters.
        optim_cfg: The node cfg.OPTIM.
        param_groups: Groups in torch's form, used instead of those made from `model`.
    """
    if param_groups is None:
        param_groups = _staged_groups(model, optim_cfg) if optim_cfg.STAGED_LR else [{"params": _trainable(model)}]
    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    momentum = optim_cfg.MOMENTUM
    adam = {"betas": (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2), "eps": optim_cfg.ADAM_EPS}
    match optim_cfg.NAME:
        case "sgd":
            damping = {"dampening": optim_cfg.SGD_DAMPNING, "nesterov": optim_cfg.SGD_NESTEROV}
            return torch.optim.SGD(param_groups, **common, momentum=momentum, **damping)
        case "adam" | "amsgrad" as name:
            return torch.optim.Adam(param_groups, **common, **adam, amsgrad=name == "amsgrad")
        case "adamw":
            return torch.optim.AdamW(param_groups, **common, **adam)
        case "radam":  # the original's decays weights as AdamW does, too
            return torch.optim.RAdam(param_groups, **common, **adam, decoupled_weight_decay=True)
        case "rmsprop":
            return torch.optim.RMSprop(param_groups, **common, momentum=momentum, alpha=optim_cfg.RMSPROP_ALPHA)
        case name:
            raise ValueError(f"OPTIM.NAME is {name!r}, expected one of: sgd, adam, amsgrad, adamw, radam, rmsprop.")


def _trainable(model: nn.Module | Iterable[nn.Parameter]) -> list[nn.Parameter]:
    parameters = model.parameters() if isinstance(model, nn.Module) else model
    return [parameter for parameter in parameters if parameter.requires_grad]


def _staged_groups(model: nn.Module, optim_cfg: CN) -> list[dict]:
    """Two groups: OPTIM.NEW_LAYERS at the full rate, every other child module at BASE_LR_MULT of it."""
    children = dict(model.named_children())
    unknown = [name for name in optim_cfg.NEW_LAYERS if name not in children]
    if unknown or not optim_cfg.NEW_LAYERS:
        raise ValueError(
            f"OPTIM.NEW_LAYERS is {tuple(optim_cfg.NEW_LAYERS)}, expected some of: {', '.join(children) or 'none'}. "
            "Set it, or set OPTIM.STAGED_LR to False."
        )
    new = {id(p) for name in optim_cfg.NEW_LAYERS for p in children[name].parameters()}
    trainable = _trainable(model)
    return [
        {"params": [p for p in trainable if id(p) not in new], "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT},
        {"params": [p for p in trainable if id(p) in new]},
    ]


def build_lr_scheduler(optimizer: torch.optim.Optimizer, optim_cfg: CN) -> LRScheduler:
    """Builds the schedule that OPTIM describes and sets the rate of epoch 0; call `step()` after every epoch."""
    decay, warmup = _decay(optim_cfg), max(optim_cfg.WARMUP_EPOCH, 0)

    def rate(epoch: int, lr: float) -> float:
        if epoch < warmup:
            return _warmup_lr(epoch, lr, optim_cfg)
        if optim_cfg.WARMUP_RECOUNT:
            return lr * decay(epoch - warmup)
        return lr * decay(epoch) / decay(warmup) if epoch > warmup else lr  # s(WARMUP_EPOCH) may be 0

    return ClosedFormLR(optimizer, rate)


class ClosedFormLR(LRScheduler):
    """Sets every group's rate to `rate(epoch, the group's own lr)`."""

    def __init__(self, optimizer: torch.optim.Optimizer, rate: Callable[[int, float], float]):
        self.rate = rate
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return [self.rate(self.last_epoch, lr) for lr in self.base_lrs]

    def state_dict(self) -> dict:
        """Returns the state without `rate`, a function, which cannot be saved; the config makes it again."""
        return {name: value for name, value in super().state_dict().items() if name != "rate"}


def schedule_state(sched: Any) -> dict[str, Any] | None:
    """Returns what a checkpoint holds of a schedule, in plain values; None if it cannot be saved.

    A closed formula needs its epoch alone. Another schedule, a method's own, is saved whole, with those that it holds.
    """
    if isinstance(sched, ClosedFormLR):
        return {"last_epoch": sched.last_epoch}
    return plain_state(sched)


def plain_state(state: Any) -> Any:
    """Returns a schedule, or its state_dict, in plain values; None if it holds more than these and functions."""
    try:
        return _plain(state)
    except (AttributeError, NotImplementedError, RecursionError, TypeError):
        return None


def restore_schedule(sched: Any, state: dict[str, Any], epoch: int | None = None) -> None:
    """Restores a schedule from `schedule_state`, or from what the original saves of one.

    Args:
        sched: As the method has built it.
        state: Its saved state.
        epoch: After how many epochs the original saved it; None for a state of ours.

    Raises:
        LookupError, TypeError, ValueError: If it is no state of this schedule.
    """
    if not isinstance(sched, ClosedFormLR):
        if schedule_state(sched) is None:
            raise TypeError(f"{type(sched).__name__} cannot be saved")
        if state.keys() != {"last_epoch"}:
            sched.load_state_dict(_as_built(state, sched.state_dict()))
            return
        if type(sched).step is not LRScheduler.step:  # else its rates are a function of last_epoch
            raise ValueError(f"it holds last_epoch alone, which is not all that {type(sched).__name__} needs")
    last_epoch = state["last_epoch"]
    if type(last_epoch) is not int or last_epoch < 0:
        raise TypeError(f"last_epoch is {shorten(last_epoch)}")
    sched.last_epoch = max(last_epoch, epoch or 0)  # that of the original's warm-up stays where the warm-up has ended


# What a method builds again, or what has an entry of its own in a checkpoint: no part of a schedule's state.
REBUILT = (torch.optim.Optimizer, nn.Module, FunctionType, BuiltinFunctionType, MethodType, partial, type)
PLAIN = (bool, int, float, str, Tensor, type(None))


def _plain(value: Any) -> Any:
    """Returns a schedule's state, or a part of it, in values that `_as_built` reads back.

    Raises:
        TypeError: If something in it is neither plain nor a schedule.
    """
    if isinstance(value, REBUILT):
        return None
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(map(_plain, value))
    if hasattr(value, "state_dict"):
        return _plain(value.state_dict())
    if type(value) not in PLAIN:
        raise TypeError(f"{type(value).__name__} is no plain value")
    return value


def _as_built(saved: Any, built: Any) -> Any:
    """Returns a saved value as the method has built it: of its type, and with its functions; its schedules restored."""
    if isinstance(built, REBUILT):
        return built
    if isinstance(built, np.generic):
        return type(built)(saved)
    if isinstance(built, np.ndarray):
        return saved.numpy()
    if isinstance(built, dict):
        restored = copy.copy(built)
        restored.clear()
        for key, value in saved.items():
            restored[key] = _as_built(value, built.get(key))
        return restored
    if isinstance(built, (list, tuple)):
        return type(built)(_as_built(*pair) for pair in zip_longest(saved, built[: len(saved)]))
    if hasattr(built, "load_state_dict"):
        built.load_state_dict(_as_built(saved if isinstance(saved, dict) else vars(saved), built.state_dict()))
        return built
    return saved


def _warmup_lr(epoch: int, lr: float, optim_cfg: CN) -> float:
    if optim_cfg.WARMUP_TYPE == "constant":
        return optim_cfg.WARMUP_CONS_LR
    return optim_cfg.WARMUP_MIN_LR if epoch == 0 else lr * epoch / optim_cfg.WARMUP_EPOCH


def _decay(optim_cfg: CN) -> Callable[[int], float]:
    """The schedule s(epoch) without warm-up, 1 at epoch 0."""
    last, gamma = optim_cfg.MAX_EPOCH, optim_cfg.GAMMA
    match optim_cfg.LR_SCHEDULER:
        case "cosine":
            return lambda epoch: (1 + math.cos(math.pi * epoch / last)) / 2
        case "single_step":
            step = optim_cfg.STEPSIZE[-1]
            return lambda epoch: gamma ** (epoch // (step if step > 0 else last))
        case "multi_step":
            return lambda epoch: gamma ** sum(milestone <= epoch for milestone in optim_cfg.STEPSIZE)
        case name:
            raise ValueError(f"OPTIM.LR_SCHEDULER is {name!r}, expected one of: cosine, single_step, multi_step.")


class TrainedModels:
    """Models by name, with their optimisers and schedules. One that has an optimiser is trained.

    Args:
        trainer: The method's name, for messages.

    Attributes:
        models, optims, scheds: By name; of a model that is not trained the latter two are None.
    """

    def __init__(self, trainer: str):
        self.trainer = trainer
        self.models: dict[str, nn.Module] = {}
        self.optims: dict[str, torch.optim.Optimizer | None] = {}
        self.scheds: dict[str, LRScheduler | None] = {}
        self.unread_losses: list[tuple[str, Tensor]] = []  # when in the run, and the loss there
        self.gradients_are_summed = False  # over all ranks

    def register(self, name: str, model: nn.Module, optim=None, sched=None) -> None:
        """Adds a model, or replaces it."""
        self.models[name], self.optims[name], self.scheds[name] = model, optim, sched
        if sched is not None and schedule_state(sched) is None:
            logger.warning(
                f"{self.trainer}'s schedule {type(sched).__name__} cannot be saved: an interrupted run cannot go on. "
                "Give it state_dict and load_state_dict, with plain values."
            )
        if n_ranks() > 1 and optim is not None:
            optim.register_step_pre_hook(self._require_summed)

    def names(self, names: str | list[str] | None = None) -> list[str]:
        """Returns `names` as a list, all registered names for None."""
        return [names] if isinstance(names, str) else list(names or self.models)

    def optimizers(self, names: str | list[str] | None = None) -> list[torch.optim.Optimizer]:
        """Returns the optimisers of those models that have one."""
        return [self.optims[name] for name in self.names(names) if self.optims[name] is not None]

    def parameters(self, names: str | list[str] | None = None) -> list[nn.Parameter]:
        """Returns the parameters that these optimisers step."""
        groups = [group for optim in self.optimizers(names) for group in optim.param_groups]
        return [parameter for group in groups for parameter in group["params"]]

    def set_mode(self, mode: str, names: str | list[str] | None = None) -> None:
        """Sets what is trained to train() or eval(); everything else stays in eval() always."""
        for name in self.names(names):
            self.models[name].train(mode == "train" and self.optims[name] is not None)

    def lr(self, names: str | list[str] | None = None) -> float:
        """Returns the learning rate in force."""
        return self.optims[self.names(names)[0]].param_groups[0]["lr"]

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Steps the schedules."""
        for name in self.names(names):
            if self.scheds[name] is not None:
                self.scheds[name].step()

    def step(
        self,
        loss: Tensor,
        names: str | list[str] | None,
        scaler: torch.amp.GradScaler,
        *,
        when: str,
        check: bool,
        change: Callable[[], None] | None = None,
    ) -> None:
        """Does one optimisation step.

        Args:
            loss: A scalar: this rank's part of the batch's loss, the sum over the ranks.
            names: The models that are stepped; None: all.
            scaler: Scales the loss where gradients are small in float16.
            when: Where in the run, for messages.
            check: Whether the losses are checked now; on a GPU every step would wait for it.
            change: Changes the gradients, which are summed over the ranks and scaled by the scaler.

        Raises:
            FloatingPointError: If the loss is infinite or not a number, here or in a later `check_losses`.
        """
        optims = self.optimizers(names)
        self.unread_losses.append((when, sum_over_ranks(loss.detach())))
        if check:
            self.check_losses()
        for optim in optims:
            optim.zero_grad()
        scaler.scale(loss).backward()
        sum_gradients(self.parameters(names))
        if change:
            change()
        self.gradients_are_summed = True
        for optim in optims:
            scaler.step(optim)
        scaler.update()
        self.gradients_are_summed = False

    def check_losses(self) -> None:
        """Raises FloatingPointError if a loss since the last call is infinite or not a number, on any rank."""
        unread, self.unread_losses = self.unread_losses, []
        for when, loss in unread:
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"The loss is {loss.item()} in {when}. Lower OPTIM.LR, or use PREC fp32; what was saved before is "
                    "as it was."
                )

    def _require_summed(self, *_) -> None:
        """Raises before a step that would take the ranks apart."""
        if not self.gradients_are_summed:
            raise ValueError(
                f"{self.trainer} steps its optimiser by itself on {n_ranks()} ranks. It has to call "
                "model_backward_and_update, which adds up their gradients. Run it in one process, or change the method."
            )
