"""Hostile files: each asks, when it is read, for code to be run, or for what lies outside of its folder.

All would make a file, the canary, if they had their way; most do where they are trusted, which `trust` shows.

Run: python -m tests.robustness.hostile_files      has the project read each of them, and prints what it says
"""

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import re
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import clip
from clip.clip import _MODELS
from clip.weights import read_state_dict
from datasets.fetch.archives import unpack
from datasets.splits.fewshot_file import read_fewshot
from datasets.splits.split_file import read_split
from engine import load_checkpoint
from engine.checkpoint import newest_whole, saved_checkpoints
from engine.config.load import read_yaml
from engine.features import cache, digests
from engine.features.shards import read_shard
from engine.run.folder import read_config
from interpret_prompt import interpret
from tests.robustness.hostile.draws import DRAWS
from tests.robustness.hostile.pickles import PAYLOADS, Call
from tests.support.small_copies import pack

Write = Callable[[Path, Path], Path]  # folder, canary -> the file
UNREACHABLE = "http://127.0.0.1:9"  # no server is there


@dataclass(frozen=True)
class Hostile:
    """A kind of hostile file.

    Args:
        write: Writes it into a folder, so that it would make the canary; returns its path.
        read: How the project reads it.
        says: What the project says of it, a regular expression; None: nothing, it is not read at all.
        trust: How somebody who trusts it reads it; None: it cannot make the canary by itself.
    """

    write: Write
    read: Callable[[Path], Any]
    says: str | None
    trust: Callable[[Path], Any] | None = None


def in_checkpoint(payload, **options) -> Write:
    """Writes a checkpoint that holds a payload beside its tensors."""

    def write(folder, canary):
        content = {"state_dict": {"ctx": torch.zeros(2, 3)}, "epoch": 1, "scheduler": payload(str(canary))}
        torch.save(content, folder / "model.pth.tar-1", **options)
        return folder / "model.pth.tar-1"

    return write


def pickles(*before) -> Write:
    """Writes a row of bare pickles, the last of them a call."""

    def write(folder, canary):
        path = folder / "model.pth.tar-1"
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (*before, Call(os.mkdir, str(canary)))))
        return path

    return write


def tar_of_pickles(folder, canary):
    """As torch wrote in its first year."""
    path, content = folder / "model.pth.tar-1", pickle.dumps(Call(os.mkdir, str(canary)), 2)
    path.write_bytes(pack("model.tar", dict.fromkeys(("storages", "tensors", "pickle"), content)))
    return path


class Program(torch.nn.Module):
    """What a TorchScript archive may do when it is opened."""

    def __init__(self, canary: str):
        super().__init__()
        self.canary = canary

    @torch.jit.export
    def __getstate__(self):
        return self.canary, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.canary, self.training = state
        torch.save(torch.zeros(1), self.canary)

    def forward(self, x):
        return x


def torchscript(name: str) -> Write:
    def write(folder, canary):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            torch.jit.script(Program(str(canary))).save(str(folder / name))
        return folder / name

    return write


def run_that_names_a_program(folder, canary):
    """A run's folder, as one sends it to a colleague: its config.yaml names the CLIP that lies beside it."""
    program = torchscript("clip.pt")(folder, canary)
    (folder / "config.yaml").write_text(f"MODEL: {{BACKBONE: {{NAME: '{program}'}}}}\n")
    torch.save({"state_dict": {"ctx": torch.zeros(2, 64)}, "epoch": 1}, folder / "model.pth.tar-1")
    return program


def load_from_cache(path):
    """Loads the CLIP of a name whose file is in the cache."""
    url, _MODELS["RN50"] = _MODELS["RN50"], f"{UNREACHABLE}/{'0' * 64}/RN50.pt"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clip.load("RN50", "cpu", download_root=path.parent)
    finally:
        _MODELS["RN50"] = url


def bomb(folder, canary):
    """A checkpoint of some kilobytes, of which 64 MB come out."""
    path = folder / "model.pth.tar-1"
    torch.save({"state_dict": {"ctx": torch.zeros(2**24)}, "epoch": 1}, folder / "plain")
    with zipfile.ZipFile(folder / "plain") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    return path


def object_arrays(name: str) -> Write:
    def write(folder, canary):
        np.savez(folder / name, keys=np.array([Call(os.mkdir, str(canary))]), features=np.zeros((1, 2)))
        return folder / name

    return write


def draw(content: Callable[[str], bytes]) -> Write:
    def write(folder, canary):
        (folder / "draw").write_bytes(content(str(canary)))
        return folder / "draw"

    return write


def read_draw(path):
    read_fewshot(path, path.parent / "images", [], [])


def shard(folder, canary):
    """Cached features, under the name that fits their content."""
    return named_by_content(object_arrays("features.npz")(folder, canary))


def file_digests(folder, canary):
    """Remembered digests of files, under the name that fits their content."""
    np.save(folder / "digests.npy", np.array([Call(os.mkdir, str(canary))]))
    return named_by_content(folder / "digests.npy")


def named_by_content(path):
    return path.rename(path.with_name(f"{hashlib.sha256(path.read_bytes()).hexdigest()}{path.suffix}"))


def text(name: str, content: str) -> Write:
    """Writes a text file in which CANARY stands for the canary."""

    def write(folder, canary):
        (folder / name).write_text(content.replace("CANARY", str(canary)))
        return folder / name

    return write


def marker(folder, canary):
    """A text file `checkpoint` that names a file elsewhere."""
    (folder / "elsewhere").mkdir()
    in_checkpoint(NONE)(folder / "elsewhere", canary)
    (folder / "run").mkdir()
    (folder / "run" / "checkpoint").write_text("../elsewhere/model.pth.tar-1\n")
    return folder / "run"


def device(folder, canary):
    """A checkpoint that never ends."""
    (folder / "model.pth.tar-1").symlink_to("/dev/zero")
    return folder / "model.pth.tar-1"


def archive_that_leads_out(name: str) -> Write:
    def write(folder, canary):
        (folder / name).write_bytes(pack(name, {f"images/../../{canary.name}": b""}))
        return folder / name

    return write


def unpack_images(path):
    unpack(path, path.parent / "set", {"images": "images"})


def refusing(function: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Reads what is passed over with a warning, or without a word, and is not used; raises where it is."""

    def read(path):
        assert not function(path), f"{path} was used"

    return read


trusting = functools.partial(torch.load, weights_only=False)


def trusting_arrays(path):
    arrays = np.load(path, allow_pickle=True)
    return arrays["keys"] if path.suffix == ".npz" else arrays


def trusting_yaml(path):
    return yaml.unsafe_load(path.read_text())


ASKS = "asks for {}; only tensors and plain"
YAML = "MODEL: !!python/object/apply:os.mkdir ['CANARY']\n"
SPLIT = '{"train": [["../CANARY", 0, "face"]], "val": [], "test": []}'
FEWSHOT = '{"split": "train", "impath": "../CANARY", "label": 0, "classname": "face"}\n'
MAGIC = (0x1950A86A20F9469CFC6C, 1001)  # how a file of torch.save before 1.6 begins
NONE, MKDIR, EVAL = (lambda canary: None), PAYLOADS["os.mkdir"][0], PAYLOADS["eval"][0]
CHECKPOINTS = {  # what load_checkpoint reads: how it is written, what is said, how it is trusted
    **{name: (in_checkpoint(payload), ASKS.format(asked), trusting) for name, (payload, asked) in PAYLOADS.items()},
    **{
        f"before torch 1.6, {name}": (
            in_checkpoint(PAYLOADS[name][0], _use_new_zipfile_serialization=False),
            ASKS.format(PAYLOADS[name][1]),
            trusting,
        )
        for name in ("os.system", "eval", "setstate", "a schedule")
    },
    "pickle protocol 4": (in_checkpoint(MKDIR, pickle_protocol=4), "cannot be read", trusting),
    "a bare pickle": (pickles(), r"asks for posix\.mkdir", lambda path: pickle.load(path.open("rb"))),
    "a pickle in the head": (pickles(*MAGIC), r"asks for posix\.mkdir", trusting),
    "a tar of pickles": (tar_of_pickles, "cannot be read", trusting),
    "a program": (torchscript("model.pth.tar-1"), "cannot be read", trusting),
    "a bomb": (bomb, "its records are larger than the file", None),
    "a device": (device, "does not exist", None),
}
FILES = {
    **{
        f"a checkpoint, {name}": Hostile(write, load_checkpoint, says, trust)
        for name, (write, says, trust) in CHECKPOINTS.items()
    },
    "a state to resume from": Hostile(in_checkpoint(EVAL), refusing(lambda path: newest_whole([path])), None, trusting),
    "a name that leads to another folder": Hostile(marker, refusing(saved_checkpoints), None),
    "weights, a pickle": Hostile(in_checkpoint(EVAL), read_state_dict, "cannot be read .*eval", trusting),
    "weights, objects in arrays": Hostile(
        object_arrays("clip.npz"), read_state_dict, "cannot be read .*allow_pickle", trusting_arrays
    ),
    "a program in the cache": Hostile(torchscript("RN50.pt"), load_from_cache, "could not be fetched", torch.jit.load),
    "a program that a run names": Hostile(
        run_that_names_a_program,
        lambda path: interpret(path.parent, 1),
        "is a TorchScript archive, and an archive is a program",
        torch.jit.load,
    ),
    "cached features": Hostile(shard, refusing(lambda path: read_shard(path, cache.rows_of)), None, trusting_arrays),
    "digests of files": Hostile(
        file_digests, refusing(lambda path: read_shard(path, digests.rows_of)), None, trusting_arrays
    ),
    "a config": Hostile(text("tiny.yaml", YAML), read_yaml, "tiny.yaml", trusting_yaml),
    "a run's config": Hostile(
        text("config.yaml", YAML), lambda path: read_config(path.parent), "config.yaml", trusting_yaml
    ),
    "a config in Python": Hostile(
        text("tiny.py", "open('CANARY', 'w')"), read_yaml, "tiny.py", lambda path: exec(path.read_text())
    ),
    "a split file": Hostile(
        text("split.json", SPLIT), lambda path: read_split(path, path.parent / "images"), "split.json"
    ),
    "a few-shot list": Hostile(text("few.jsonl", FEWSHOT), read_draw, "few.jsonl"),
    **{f"a draw, {name}": Hostile(draw(content), read_draw, *rest) for name, (content, *rest) in DRAWS.items()},
    "a zip that leads out": Hostile(archive_that_leads_out("images.zip"), unpack_images, "leads out"),
    "a tar that leads out": Hostile(archive_that_leads_out("images.tar"), unpack_images, "leads out"),
}


def meet(hostile: Hostile, folder: Path) -> tuple[str, bool, bool]:
    """Has the project read a file; returns what it said, whether the canary was made, and whether trust makes it."""
    (folder / "files").mkdir(parents=True)
    canary = folder / "canary"
    path = hostile.write(folder / "files", canary)
    try:
        hostile.read(path)
        said = ""
    except (ValueError, OSError) as error:
        said = str(error)
    was_made = canary.exists()
    if hostile.trust:
        (folder / "again").mkdir()  # what was read may be removed
        with contextlib.suppress(Exception):  # the canary is made, and what follows is of no use
            hostile.trust(hostile.write(folder / "again", canary))
    return said, was_made, canary.exists()


def is_refused(hostile: Hostile, said: str, was_made: bool) -> bool:
    """Says whether the file did nothing and the project said what it should."""
    return not was_made and (not said if hostile.says is None else re.search(hostile.says, said) is not None)


def main() -> int:
    """Prints a line for each file; returns the exit code: 0 if all are refused."""
    warnings.simplefilter("ignore")
    logging.disable()
    n_refused = 0
    for name, hostile in FILES.items():
        with tempfile.TemporaryDirectory() as folder:
            said, was_made, is_live = meet(hostile, Path(folder))
            refused = is_refused(hostile, said, was_made)
            n_refused += refused
            live = "runs where it is trusted" if is_live else "has no code"
            said = said.replace(folder, "...").partition("\n")[0] or "it is passed over"
        print(f"{'refused' if refused else 'NOT REFUSED'}: {name} ({live}): {said}")
    print(f"{n_refused} of {len(FILES)} hostile files are refused.")
    return int(n_refused < len(FILES))


if __name__ == "__main__":
    sys.exit(main())
