"""Stopping a run in this process, by a signal or as by a kill, and comparing it with one that was left alone."""

import os
import signal

import torch

from engine.interruption import Interrupted, interruptible
from engine.random_state import random_state


def before_step(trainer, n, act):
    """Has `act` called at the beginning of the n-th step from now on; returns the losses of all steps."""
    step, losses = trainer.forward_backward, []

    def watched(batch):
        if len(losses) == n - 1:
            act()
        losses.append(step(batch)["loss"].item())
        return {"loss": losses[-1]}

    trainer.forward_backward = watched
    return losses


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


class Killed(Exception):
    """Stands for SIGKILL: nothing is saved for it."""


def kill():
    raise Killed


def train(trainer):
    """Trains and tests, and says whether that came to its end."""
    with interruptible():
        try:
            trainer.train()
        except (Interrupted, Killed):
            return False
        finally:
            trainer.writer.close()
    return True


def save_at(trainer, epoch, batch):
    """Saves the run's state as it is after so many epochs and batches."""
    trainer.point = trainer.point_after(epoch, batch)
    trainer.save_point()


def ended(trainer):
    """What a run leaves just after its end: the tensors of every model and optimiser; results; random generators."""
    tensors = {f"{name} {key}": v for name, model in trainer.models.items() for key, v in model.state_dict().items()}
    for name, optim in trainer.optims.items():
        for i, own in optim.state_dict()["state"].items() if optim else ():
            tensors |= {f"{name} {i} {key}": value for key, value in own.items() if torch.is_tensor(value)}
    tensors = {name: value.clone() for name, value in tensors.items()}
    random = random_state()
    lr = trainer.trained.lr() if any(trainer.optims.values()) else None
    rest = {"results": trainer.results, "best": trainer.best_result, "lr": lr}
    return tensors, rest | {"torch": random["torch"].tolist(), "numpy": random["numpy"], "python": random["python"]}


def assert_same(one, other):
    (tensors, rest), (other_tensors, other_rest) = one, other
    assert tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(value, other_tensors[name]), name
    for name, value in rest.items():
        assert value == other_rest[name], name
