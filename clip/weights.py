"""Read a state dict from the kinds of file that hold a CLIP."""

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .download import CACHE, sha256

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys that training programs put a state dict under
ANCHOR = "token_embedding.weight"  # a key of every CLIP in OpenAI's layout: what stands before it is a prefix


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a weights file, on the CPU.

    Args:
        path: a TorchScript archive as OpenAI publishes them; a state dict saved by torch.save, bare or under one of
            the keys in WRAPPERS (read with weights_only: no code in it runs); a safetensors file; or an .npz of
            arrays, whose float16 become float32. A prefix that all keys share, such as `module.`, is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is none of these, or truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(missing_file_message(path))
    try:
        return _without_prefix(_reader(path)(path))
    except Exception as error:  # what a broken file makes the readers raise is not documented, and is passed on here
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        cut_short = " If the file is truncated, fetch it again." if _is_cut_short(path, error) else ""
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read ({reason}). It must be a TorchScript archive, a "
            f"state dict saved by torch.save, a safetensors file, or an .npz of arrays.{cut_short}"
        ) from error


def _without_prefix(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same without what nn.DataParallel, or a module that holds the CLIP, puts before all keys."""
    prefixes = [key.removesuffix(ANCHOR) for key in state_dict if key.endswith(f".{ANCHOR}")]
    prefix = prefixes[0] if prefixes else ""
    if not all(key.startswith(prefix) for key in state_dict):
        return state_dict
    return {key.removeprefix(prefix): value for key, value in state_dict.items()}


def _is_cut_short(path: Path, error: Exception) -> bool:
    """Whether a file that cannot be read ends too early, by what it holds and what its reader says."""
    with path.open("rb") as file:
        starts_as_zip = file.read(2) == b"PK"
    if starts_as_zip or path.stat().st_size == 0:
        return not zipfile.is_zipfile(path)
    return isinstance(error, EOFError) or any(word in str(error) for word in ("truncated", "unexpected EOF", "it ends"))


def read_keys(path: Path) -> frozenset[str]:
    """The keys of a weights file, as `read_state_dict` gives them; one that has not changed is read once."""
    status = path.stat()
    return _keys_of(path, status.st_ino, status.st_size, status.st_mtime_ns)


@cache
def _keys_of(path: Path, *status: int) -> frozenset[str]:
    return frozenset(read_state_dict(path))


def torch_readable(path: str | Path, root: str | Path | None = None) -> Path:
    """The path of a weights file that torch.jit.load or torch.load reads: an .npz is copied to one in the cache.

    Args:
        path: a file that `read_state_dict` takes.
        root: cache folder, `~/.cache/clip` by default.
    """
    path = Path(path)
    if _reader(path) is not _read_npz:
        return path
    folder = Path(root or CACHE).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{path.stem}-{sha256(path)[:16]}.pt"
    part = copy.with_name(f"{copy.name}.{os.getpid()}.part")
    torch.save(read_state_dict(path), part)
    part.replace(copy)  # one that is there already could be another file, and nothing would tell
    return copy


def missing_file_message(path: Path) -> str:
    """What is wrong with the path of a weights file, and how far the path does exist."""
    path = path.absolute()
    if path.is_dir():
        return f"{path} is a folder. Give the path of the weights file in it."
    there = next(parent for parent in path.parents if parent.exists())
    missing = path.relative_to(there)
    return f"The weights file {path} is missing. {there} exists, {missing} in it does not: correct the path."


def _reader(path: Path) -> Callable[[Path], dict[str, Tensor]]:
    """Which reader a file needs, by what is in it: the suffix says nothing sure."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(9)
        if start[:2] == b"PK":
            raise ValueError("a zip archive without its end")
        if start[8:] == b"{":  # after the length of its header
            return _read_safetensors
        return _read_torch  # torch.save before torch 1.6 wrote no zip archive
    if is_torchscript(path):
        return _read_torchscript
    return _read_npz if all(name.endswith(".npy") for name in _names(path)) else _read_torch


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, which is a program: to be opened only if it is known, or asked for."""
    return zipfile.is_zipfile(path) and any(name.endswith("/constants.pkl") for name in _names(path))


def _names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # torch calls TorchScript deprecated and has no other reader for the archives that OpenAI published.
        warnings.filterwarnings("ignore", message=".*torch.jit.load.*deprecated")
        return dict(torch.jit.load(path, map_location="cpu").state_dict())


def _read_torch(path: Path) -> dict[str, Tensor]:
    _check_records(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if asked := re.search(r"\bGLOBAL (\S+)", str(error)):  # torch's message goes on with how to trust the file
            raise ValueError(f"it asks for {asked[1]!r}, where a state dict has tensors") from None
        raise
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError(f"its content is of type {type(content).__name__}, not a state dict")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"its {key!r} is of type {type(value).__name__}, where a state dict has tensors")
    return dict(content)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # here: few files need it

    _check_end(path)
    return load_file(path)


def _check_end(path: Path) -> None:
    """Raises if a safetensors file is shorter than the header says, which its library puts in words of its own."""
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        n_expected = 8 + n_header
        if n_expected <= n_bytes:
            tensors = [entry for key, entry in json.loads(file.read(n_header)).items() if key != "__metadata__"]
            n_expected += max((entry["data_offsets"][1] for entry in tensors), default=0)
    if n_bytes < n_expected:
        raise ValueError(f"it ends before byte {n_expected:,}")


def _check_records(path: Path) -> None:
    """Raises if a record of the archive that torch.save writes is not what its checksum says: torch does not look."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if altered := archive.testzip():
                raise ValueError(f"its record {altered!r} is altered")


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in tensors.items()}
