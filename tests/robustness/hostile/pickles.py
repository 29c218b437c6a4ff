"""What asks for code in a pickle, and the name that it asks for."""

import functools
import importlib
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import torch


class Call:
    """A call that takes place where this is unpickled; of a function, or of what another call gives."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced

    def __call__(self):  # pickle wants what it calls to look callable
        raise NotImplementedError


class Trap:
    """A class that does something when its state is set."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __setstate__(self, state):
        Path(state["canary"]).touch()


def hidden_in_a_schedule(canary):
    """In the state of an object which checkpoints of the original hold."""
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([torch.zeros(1)], lr=1.0), 3)
    schedule.eta_min = Call(os.mkdir, canary)
    return schedule


PAYLOADS = {  # what asks for code in a pickle, and the name that is refused
    "os.system": (lambda canary: Call(os.system, f"touch {canary}"), r"posix\.system"),
    "os.mkdir": (lambda canary: Call(os.mkdir, canary), r"posix\.mkdir"),
    "eval": (lambda canary: Call(eval, f"open({canary!r}, 'w')"), "eval"),
    "exec": (lambda canary: Call(exec, f"open({canary!r}, 'w')"), "exec"),
    # torch.save writes Python 2's names
    "subprocess": (lambda canary: Call(subprocess.call, ["touch", canary]), r"\S+\.call"),
    "import": (lambda canary: Call(Call(getattr, Call(importlib.import_module, "os"), "mkdir"), canary), "getattr"),
    "partial": (lambda canary: Call(functools.partial(os.mkdir, canary)), r"functools\.partial"),
    "pickle": (lambda canary: Call(pickle.loads, pickle.dumps(Call(os.mkdir, canary))), r"\S*pickle\.loads"),
    "torch.load": (
        lambda canary: Call(torch.storage._load_from_bytes, pickle.dumps(Call(os.mkdir, canary))),
        r"torch\.storage\._load_from_bytes",
    ),
    "objects in numpy": (lambda canary: np.array([Call(os.mkdir, canary)]), r"numpy\.\S+\._reconstruct"),
    "setstate": (Trap, r"\S+\.Trap"),
    "a schedule": (hidden_in_a_schedule, r"posix\.mkdir"),
}
