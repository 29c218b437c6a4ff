"""Schedules of a method's own, as files in the original's form have them, and a method that takes one."""

import math
import random

import numpy as np
import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from dassl.engine.trainer import TrainerX
from dassl.optim import build_optimizer
from dassl.optim.lr_scheduler import ConstantWarmupScheduler, LinearWarmupScheduler
from dassl.utils.tools import mkdir_if_missing


class OwnWarmup(LRScheduler):
    """The engine's warm-up, copied, as many files have it."""

    def __init__(self, optimizer, successor, warmup_epoch, cons_lr, last_epoch=-1):
        self.successor, self.warmup_epoch, self.cons_lr = successor, warmup_epoch, cons_lr
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        if self.last_epoch >= self.warmup_epoch:
            return self.successor.get_last_lr()
        return [self.cons_lr for _ in self.base_lrs]

    def step(self, epoch=None):
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step(epoch)


class OfNumbers:
    """No scheduler of torch's: it counts in numpy's numbers, and keeps functions and tuples."""

    def __init__(self, optimizer):
        self.optimizer, self.shrink = optimizer, lambda rate: rate * 0.9
        self.rates, self.n_steps, self.seen = np.linspace(0.5, 0.1, 9), np.int64(0), ()

    def step(self):
        self.n_steps += 1
        self.seen = (*self.seen, float(self.rates[0]))
        self.rates = np.array([self.shrink(rate) for rate in self.rates[1:]])
        self.optimizer.param_groups[0]["lr"] = float(self.rates[0])

    def state_dict(self):
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state):
        vars(self).update(state)


class Unsaved:
    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.param_groups[0]["lr"] *= 0.5


class Drawn(LRScheduler):
    """Its state is in a generator, of which nobody knows how to save it."""

    def __init__(self, optimizer):
        self.random = random.Random(0)
        super().__init__(optimizer)

    def get_lr(self):
        return [lr * self.random.random() for lr in self.base_lrs]


def sequential(optim):
    parts = [lr_scheduler.ConstantLR(optim, 0.1, 2), lr_scheduler.MultiStepLR(optim, [1, 3], 0.3)]
    return lr_scheduler.SequentialLR(optim, parts, milestones=[2])


def chained(optim):
    return lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(optim, 0.9), lr_scheduler.StepLR(optim, 2, 0.5)])


SCHEDULES = {
    "Sequential": sequential,
    "Chained": chained,
    "Restarts": lambda optim: lr_scheduler.CosineAnnealingWarmRestarts(optim, 2),
    "Lambda": lambda optim: LambdaLR(optim, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / 7))),
    "Copied": lambda optim: OwnWarmup(optim, lr_scheduler.CosineAnnealingLR(optim, 6.0), 1, 0.01),
    "Constant": lambda optim: ConstantWarmupScheduler(optim, lr_scheduler.CosineAnnealingLR(optim, 6.0), 1, 0.01),
    "Linear": lambda optim: LinearWarmupScheduler(
        optim, LambdaLR(optim, lambda epoch: 0.8**epoch), 2, 0.01, verbose=True
    ),
    "OfNumbers": OfNumbers,
    "Unsaved": Unsaved,
    "Drawn": Drawn,
}


class Learner(torch.nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(n_classes, 3))

    def forward(self, image):
        return image.mean(dim=(2, 3)) @ self.weight.t()


class Method(TrainerX):
    """Classifies by the mean colour."""

    def build_model(self):
        self.model = Learner(self.num_classes)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = self.schedule(self.optim)
        self.register_model("learner", self.model, self.optim, self.sched)
        mkdir_if_missing(self.output_dir)

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        loss = torch.nn.functional.cross_entropy(self.model(image), label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss}
