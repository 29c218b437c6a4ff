"""Learning-rate schedules: the engine's from the config, and warm-ups before a schedule of one's own.

lr(e) = warm-up(e)                         for e < warmup_epoch
      = successor's rate after e - warmup_epoch steps  from there on
"""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from engine import build_lr_scheduler


class _WarmupScheduler(LRScheduler):
    """Counts the epochs up to `warmup_epoch`, and then steps its successor.

    Args:
        optimizer: Whose rates are set.
        successor: The schedule after the warm-up, on the same optimiser.
        warmup_epoch: Epochs of warm-up.
        last_epoch: As torch's.
        verbose: Is not looked at; Dassl's printed the rates.
    """

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, last_epoch=-1, verbose=False):
        self.successor, self.warmup_epoch = successor, warmup_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch >= self.warmup_epoch:
            return self.successor.get_last_lr()
        return [self.warmup_lr(lr) for lr in self.base_lrs]

    def warmup_lr(self, lr: float) -> float:
        """Returns the rate of a group in this epoch of the warm-up; `lr` is the rate that it leads to."""
        raise NotImplementedError

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch < self.warmup_epoch:
            super().step(epoch)
            return
        self.successor.step(epoch)
        self._last_lr = self.successor.get_last_lr()


class ConstantWarmupScheduler(_WarmupScheduler):
    """`cons_lr` during the warm-up."""

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, cons_lr: float, *more, **named):
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, *more, **named)

    def warmup_lr(self, lr: float) -> float:
        return self.cons_lr


class LinearWarmupScheduler(_WarmupScheduler):
    """`min_lr` in the first epoch, then in equal steps up to the successor's first rate."""

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, min_lr: float, *more, **named):
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, *more, **named)

    def warmup_lr(self, lr: float) -> float:
        return self.min_lr if self.last_epoch == 0 else lr * self.last_epoch / self.warmup_epoch
