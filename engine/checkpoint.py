"""Checkpoints: written whole or not at all, read only if they are whole, and nothing in them is run.

A file `model.pth.tar-EPOCH` is {"state_dict", "epoch", "optimizer", "scheduler", "val_result", "scaler", "random",
"time_s", "testing_s"} and what the method adds ("trainer", "classnames", "data_sha256"); the text file `checkpoint`
beside it names the newest one.

torch.save writes a zip archive, whose checksums torch.load does not look at, with a pickle in it, which can ask for any
function to be called; before torch 1.6 it was a row of pickles. Tensors and plain values are all that is read here.
"""

from __future__ import annotations

import logging
import os
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from .distributed import is_first_rank, on_first_rank
from .files import FAULTS_OF_MACHINE, missing_path, write_atomically
from .optim import TrainedModels, schedule_state
from .text import printable, shorten

BEST = "model-best.pth.tar"
MARKER = "checkpoint"
LONGEST_NAME = 200  # characters
N_PICKLES = 5  # of a file from before torch 1.6; after them come the numbers

logger = logging.getLogger(__name__)


def checkpoint_name(epoch: int) -> str:
    """Returns the file name of the checkpoint after `epoch` epochs."""
    return f"model.pth.tar-{epoch}"


def file_to_load(epoch: int | None) -> str:
    """Returns the file name of the checkpoint to load: of an epoch, or for None or a negative one the best."""
    return BEST if epoch is None or epoch < 0 else checkpoint_name(epoch)


def epoch_of(path: Path) -> int | None:
    """Returns the epoch in a checkpoint's file name, None for the best model's."""
    match = re.fullmatch(r"model\.pth\.tar-(\d+)", path.name)
    return int(match[1]) if match else None


def saved_epoch(checkpoint: dict[str, Any], path: Path) -> int | None:
    """Returns after how many epochs a checkpoint was saved; None if neither it nor its file's name says it."""
    epoch = checkpoint.get("epoch")
    return epoch if type(epoch) is int and epoch >= 0 else epoch_of(path)


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


def save_checkpoint(
    state: dict[str, Any], folder: str | Path, *, is_best: bool = False, file_name: str | None = None
) -> Path:
    """Writes `state` to `folder`, of several ranks the first, and returns the file's path.

    Args:
        state: What is saved, with "epoch".
        is_best: Whether it is saved as the best model, not under the name of its epoch.
        file_name: Another name; only a checkpoint named after its epoch is one to resume from.

    Raises:
        OSError: If the disk is full or may not be written to; earlier checkpoints are as they were.
    """
    path = Path(folder) / (file_name or (BEST if is_best else checkpoint_name(state["epoch"])))
    if not is_first_rank():
        return path
    write_torch_file(state, path)
    if path.name == checkpoint_name(state["epoch"]):
        write_atomically(path.with_name(MARKER), lambda temporary: temporary.write_text(f"{path.name}\n"))
    return path


def saved_checkpoints(folder: str | Path) -> list[Path]:
    """Returns the checkpoints in `folder` to resume from: the one that the file `checkpoint` names, then by epoch."""
    folder = Path(folder)
    marker, epochs = folder / MARKER, _saved_epochs(folder)
    paths = [folder / checkpoint_name(epoch) for epoch in sorted(epochs, reverse=True)]
    if not marker.is_file():
        return paths
    name = marker.read_text(encoding="utf-8", errors="replace").strip()
    named = folder / Path(name).name  # never outside of the folder
    if not os.path.isfile(named):  # Path's raises where a name is too long for a file
        logger.warning(f"{marker} names {shorten(name)}, which is not there: what was saved before it is used.")
        return paths
    return [named, *(path for path in paths if path != named)]


def newest_checkpoint(folder: str | Path) -> Path | None:
    """Returns the newest checkpoint in `folder` that one can resume from, None if there is none."""
    return next(iter(saved_checkpoints(folder)), None)


def newest_whole(paths: Iterable[Path]) -> tuple[Path, dict[str, Any]] | None:
    """Returns the first of `paths` that is whole and what it holds, None if none is.

    Args:
        paths: Checkpoints, the newest first. One that is not there is passed over; one that is not whole, or asks for
            more than tensors and plain values, is passed over with a warning.
    """
    for path in filter(Path.is_file, paths):
        try:
            return path, _read(path)
        except UnreadableError as error:
            logger.warning(f"{error.args[0]} What was saved before it is used.")
    return None


def _saved_epochs(folder: Path) -> list[int]:
    return sorted(epoch for file in folder.glob("*") if (epoch := epoch_of(file)) is not None and file.is_file())


class UnreadableError(ValueError):
    """A file that is not read: what is wrong with it, and what to do, a sentence each."""

    def __str__(self) -> str:
        return " ".join(self.args)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU: tensors and plain values, nothing else.

    Raises:
        FileNotFoundError: If there is no such file; the message names the epochs there are.
        ValueError: If the file is cut short or altered, asks for more, is not a checkpoint, or holds NaN.
    """
    path = Path(path)
    if not path.is_file():
        epochs = ", ".join(map(str, _saved_epochs(path.parent)))
        saved = f"Saved epochs: {epochs}. Load one of these: --load-epoch of train.py, --epoch of the others."
        raise FileNotFoundError(
            missing_path(path, "The checkpoint", saved if epochs else "Train first, or check the folder.")
        )
    checkpoint = _read(path)
    if "state_dict" not in checkpoint:
        raise ValueError(f"The checkpoint {path} has no `state_dict`. Name a file that training saved.")
    for name, value in checkpoint["state_dict"].items():
        if value.is_floating_point() and value.float().isnan().any():
            raise ValueError(
                f"The checkpoint {path} has NaN in `{printable(name)}`: its training diverged. Name another one, or "
                "train with a lower OPTIM.LR."
            )
    return checkpoint


def _read(path: Path) -> dict[str, Any]:
    """Returns what training saved to a file, its tensors on the CPU.

    Raises:
        UnreadableError: If it is cut short or altered, asks for more than tensors and plain values, or is another file.
        OSError: If it may not be read, or the fault may be the machine's: perhaps it is whole.
    """
    path.open("rb").close()  # whether it may be read
    try:
        _check_records(path)
        with torch.serialization.safe_globals(ORIGINALS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken file raises is not documented
        if isinstance(error, OSError) and error.errno in FAULTS_OF_MACHINE:
            raise
        if asked := re.search(r"\bGLOBAL (\S+)", str(error)):
            raise UnreadableError(
                f"The checkpoint {path} asks for {printable(asked[1])}; only tensors and plain values are read.",
                "More could run any code, so it was not read: ask whoever made it for its `state_dict` alone.",
            ) from None
        text = str(error).rpartition("WeightsUnpickler error:")[2].strip()  # before it, torch says to trust the file
        reason = printable(text.split("\n")[0][:200]) or type(error).__name__
        raise UnreadableError(
            f"The checkpoint {path} cannot be read ({reason}): it is not a whole file as training saves it.",
            "It may be cut short or altered: delete it and train again, or load another epoch.",
        ) from error
    # A resume file has a state dict for each model.
    models = checkpoint.get("models", {}) if isinstance(checkpoint, dict) else None
    parts = [checkpoint, *models.values()] if isinstance(models, dict) else [None]
    if not all(isinstance(part, dict) and _is_state_dict(part.get("state_dict", {})) for part in parts):
        raise UnreadableError(
            f"The checkpoint {path} has no `state_dict` of tensors by name.", "Name a file that training saved."
        )
    return checkpoint


def _is_state_dict(value: Any) -> bool:
    """Says whether it is tensors by name, as a module may hold them: dense, and with numbers in them."""
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and not (tensor.is_meta or tensor.is_quantized)
        for name, tensor in value.items()
    )


def _check_records(path: Path) -> None:
    """Raises if a record of the zip archive, which the file is since torch 1.6, is not what its checksum says."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                raise ValueError("it is cut short")
            file.seek(0)
            for _ in range(N_PICKLES):
                if file.peek(1):
                    _check_names(file)
        return
    with zipfile.ZipFile(path) as archive:
        if sum(record.file_size for record in archive.infolist()) > path.stat().st_size:
            raise ValueError("its records are larger than the file")  # torch.save does not compress them
        if altered := archive.testzip():
            raise ValueError(f"its record {altered} is altered")
        for name in archive.namelist():
            if name.endswith("/data.pkl"):
                with archive.open(name) as file:
                    _check_names(file)


def _check_names(file: IO[bytes]) -> None:
    """Raises if a pickle asks for something by a long name, which torch searches in quadratic time for its message."""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL" and len(argument) > LONGEST_NAME:
            raise ValueError(f"it asks for something by a name of {len(argument):,} characters")


class Original:
    """Stands for an object of the original's: what it held, without its code; of a schedule without its optimiser."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: value for name, value in state.items() if name != "optimizer"})


def empty_dict(*_: Any) -> dict:
    """Stands for collections.defaultdict, an optimiser's table of its state."""
    return {}


# What the original's checkpoints hold besides tensors and plain values: the state of its warm-up has the schedule that
# follows as an object, and that has the optimiser. None of their code is called.
SCHEDULES = ("CosineAnnealingLR", "StepLR", "MultiStepLR")
OPTIMISERS = ("torch.optim.adam.Adam", "torch.optim.adamw.AdamW", "torch.optim.rmsprop.RMSprop", "torch.optim.sgd.SGD")
ORIGINALS = [
    *((Original, f"torch.optim.lr_scheduler.{name}") for name in SCHEDULES),
    *((Original, name) for name in (*OPTIMISERS, "dassl.optim.radam.RAdam")),
    (empty_dict, "collections.defaultdict"),
    (dict, "builtins.dict"),  # what that table makes of a missing entry
]


class Checkpointer:
    """Takes checkpoints of models, and loads them.

    Args:
        trained: The models by name, with their optimisers and schedules; they may change until something is saved.
        ignored: Entries of a state dict that are saved for reference and never read back.
    """

    def __init__(self, trained: TrainedModels, *, ignored: Iterable[str] = ()):
        self.trained, self.ignored = trained, frozenset(ignored)

    def entries(self, name: str, when: str) -> dict[str, Any]:
        """Returns the entries of a checkpoint that each model has of its own.

        Raises:
            FloatingPointError: If the model holds NaN. `when` says where in the run.
        """
        optim, sched = self.trained.optims[name], self.trained.scheds[name]
        state_dict = self.trained.models[name].state_dict()
        for key, value in state_dict.items():
            if value.is_floating_point() and value.isnan().any():  # after the last step there is no loss to show it
                raise FloatingPointError(
                    f"{name}'s {key} holds NaN after {when}, so it is not saved. Lower OPTIM.LR, or use PREC fp32; "
                    "what was saved before is as it was."
                )
        return {
            "state_dict": state_dict,
            "optimizer": optim.state_dict() if optim else None,
            "scheduler": schedule_state(sched) if sched else None,
        }

    def learned_entries(self, when: str) -> dict[str, dict[str, Any]]:
        """Returns the same for every model by name, without the ignored entries, as a resume file holds them."""
        entries = {name: self.entries(name, when) for name in self.trained.models}
        return {name: {**own, "state_dict": self._learned(own["state_dict"])} for name, own in entries.items()}

    def start(self, path: str | Path, fit: Callable[..., str]) -> list[str]:
        """Starts every model from a checkpoint, see `load_pretrained_weights`; returns what to be warned of."""
        models = self.trained.models.values()
        return [load_pretrained_weights(model, path, ignored=self.ignored, fit=fit) for model in models]

    def read(self, directory: str | Path, name: str, epoch: int | None) -> tuple[Path, dict[str, Any]]:
        """Returns the file of a model of the run in `directory`, and the checkpoint in it; see `load_checkpoint`.

        Where no model has that name, as in a run of the authors' code, it is the only one that is there.
        """
        folder, file = Path(directory), file_to_load(epoch)
        others = [] if (folder / name).is_dir() or len(self.trained.models) > 1 else list(folder.glob(f"*/{file}"))
        path = others[0] if len(others) == 1 else folder / name / file
        checkpoint = on_first_rank(lambda: load_checkpoint(path))
        logger.info("Load %s (epoch %s)", path, saved_epoch(checkpoint, path))
        return path, checkpoint

    def load(self, name: str, checkpoint: dict[str, Any], path: Path) -> int | None:
        """Copies a checkpoint's state dict into a model, all but what is ignored; returns its `saved_epoch`.

        Raises:
            ValueError: If an entry is missing, is one too many, or has another shape.
        """
        found = self._learned(checkpoint["state_dict"])
        own = self._learned(self.trained.models[name].state_dict())
        if _shapes(found) != _shapes(own):
            of_trainer = f" of {printable(str(checkpoint['trainer']))}" if checkpoint.get("trainer") else ""
            raise ValueError(
                f"The checkpoint {path}{of_trainer} holds {_listed(found)}; {self.trained.trainer} expected "
                f"{_listed(own)}. It was trained with another trainer, backbone, context or class list: give the "
                "--trainer and the config it was trained with."
            )
        self.trained.models[name].load_state_dict(found, strict=False)
        return saved_epoch(checkpoint, path)

    def _learned(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value for key, value in state_dict.items() if key not in self.ignored}


def backbone_warning(checkpoint: dict[str, Any], own: dict[str, Any], path: Path) -> str:
    """Says if a checkpoint was trained with other weights of CLIP: its shapes may fit, and mean nothing there.

    Args:
        checkpoint: Its entries "backbone", "weights_sha256", "heads" and "activation" count, where it has them.
        own: The same entries of the model that it is loaded into.
    """
    learned_with, here = checkpoint.get("weights_sha256"), own.get("weights_sha256")
    is_as_stated = all(checkpoint.get(key) == own.get(key) for key in ("heads", "activation"))
    if None in (learned_with, here) or (learned_with == here and is_as_stated):
        return ""
    others = "whose weights are others" if learned_with != here else "of which other heads or activations are stated"
    return (
        f"The checkpoint {path.name} was trained with {shorten(checkpoint.get('backbone'))} and is tested with "
        f"{own['backbone']}, {others}: what was learned there means little here."
    )


def load_pretrained_weights(
    model: nn.Module, path: str | Path, *, ignored: Iterable[str] = (), fit: Callable[..., str] | None = None
) -> str:
    """Starts `model` from the checkpoint at `path`: entries whose name and shape fit are copied, not `ignored` ones.

    `fit` is `ClassRows.fit_start`, where the classes are known. Returns what to be warned of, or "".

    Raises:
        ValueError: If no entry fits.
    """
    checkpoint, own = load_checkpoint(path), model.state_dict()
    warning = fit(checkpoint, own, Path(path)) if fit else ""
    found, own = checkpoint["state_dict"], {name: value for name, value in own.items() if name not in ignored}
    fitting = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise ValueError(f"No entry of {path} fits the model: it has {_listed(found, 4)}; expected {_listed(own, 4)}.")
    model.load_state_dict(fitting, strict=False)
    left = printable(", ".join(sorted(own.keys() - fitting.keys()))) or "nothing"
    logger.info("Start from %s: %s; as it starts otherwise: %s", path, printable(", ".join(sorted(fitting))), left)
    return warning


def _shapes(state_dict: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state_dict.items()}


def _listed(state_dict: dict[str, Tensor], n_most: int | None = None) -> str:
    shapes = sorted(_shapes(state_dict).items())[:n_most]
    return printable(", ".join(f"{name} {shape}" for name, shape in shapes)) or "nothing"
