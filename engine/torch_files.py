"""Files of torch.save: written whole or not at all, read only if they are whole, and nothing in them is run.

It is a zip archive, whose checksums torch.load does not look at, with a pickle in it, which can ask for any function to
be called; before torch 1.6 it was a row of pickles. Here tensors and plain values are all that is made of it.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from .files import FAULTS_OF_MACHINE, write_atomically
from .text import printable

LONGEST_NAME = 200  # characters
N_PICKLES = 5  # of a file from before torch 1.6; after them come the numbers


def write_torch_file(content: Any, path: Path) -> None:
    """Writes what torch.save makes of tensors and plain values, whole or not at all.

    Raises:
        OSError: If the disk is full or may not be written to; the old file is as it was.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # a file that torch opens itself does not tell why it cannot be written
            try:
                torch.save(content, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # of which torch only says that the file is too short
                    raise error.__context__ from None
                raise

    write_atomically(path, write)


class UnreadableError(ValueError):
    """A file that is not read: what is wrong with it, and what to do, a sentence each."""

    def __str__(self) -> str:
        return " ".join(self.args)


def read_torch_file(path: Path, what: str) -> Any:
    """Returns what torch.save wrote to a file, its tensors on the CPU.

    Args:
        path: The file.
        what: What it is, for the messages: "The checkpoint".

    Raises:
        UnreadableError: If it is cut short or altered, or asks for more than tensors and plain values.
        OSError: If it may not be read, or the fault may be the machine's: perhaps it is whole.
    """
    path.open("rb").close()  # whether it may be read
    try:
        check_records(path)
        with torch.serialization.safe_globals(ORIGINALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken file raises is not documented
        if isinstance(error, OSError) and error.errno in FAULTS_OF_MACHINE:
            raise
        if asked := re.search(r"\bGLOBAL (\S+)", str(error)):
            raise UnreadableError(
                f"{what} {path} asks for {printable(asked[1])}, expected tensors and plain values alone.",
                "More could run any code, so it was not read: ask whoever made it for its `state_dict` alone.",
            ) from None
        raise UnreadableError(
            f"{what} {path} cannot be read ({_reason(error)}), expected a whole file as training saves it.",
            "It may be cut short or altered: delete it and train again, or load another epoch.",
        ) from error


def check_records(path: Path) -> None:
    """Raises if a record of the zip archive, which the file is since torch 1.6, is not what its checksum says."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                raise ValueError("it is cut short")
            file.seek(0)
            for _ in range(N_PICKLES):
                if file.peek(1):
                    check_names(file)
        return
    with zipfile.ZipFile(path) as archive:
        if sum(record.file_size for record in archive.infolist()) > path.stat().st_size:
            raise ValueError("its records are larger than the file")  # torch.save does not compress them
        if altered := archive.testzip():
            raise ValueError(f"its record {altered} is altered")
        for name in archive.namelist():
            if name.endswith("/data.pkl"):
                with archive.open(name) as file:
                    check_names(file)


def check_names(file: IO[bytes]) -> None:
    """Raises if a pickle asks for something by a long name, which torch searches in quadratic time for its message."""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL" and len(argument) > LONGEST_NAME:
            raise ValueError(f"it asks for something by a name of {len(argument):,} characters")


def _reason(error: Exception) -> str:
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()  # before it, torch's advice to trust the file
    return printable(text.split("\n")[0][:200]) or type(error).__name__


class Dropped:
    """Stands for an object of the original's that is not needed: what it held is not kept."""

    def __setstate__(self, state: Any) -> None:
        pass


def empty_dict(*_: Any) -> dict:
    """Stands for collections.defaultdict, an optimiser's table of its state."""
    return {}


# What the original's checkpoints hold besides tensors and plain values: the state of its warm-up has the schedule that
# follows as an object, and that has the optimiser. None of their code is called.
SCHEDULES = ("CosineAnnealingLR", "StepLR", "MultiStepLR")
OPTIMISERS = ("torch.optim.adam.Adam", "torch.optim.adamw.AdamW", "torch.optim.rmsprop.RMSprop", "torch.optim.sgd.SGD")
ORIGINALS = [
    *((Dropped, f"torch.optim.lr_scheduler.{name}") for name in SCHEDULES),
    *((Dropped, name) for name in (*OPTIMISERS, "dassl.optim.radam.RAdam")),
    (empty_dict, "collections.defaultdict"),
    (dict, "builtins.dict"),  # what that table makes of a missing entry
]
