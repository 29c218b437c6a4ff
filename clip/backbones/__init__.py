"""CLIP-like models of other libraries, as our TwoTowers: told by the prefix of their name, read by their library."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from ..state_dict import HF_KEYS
from ..two_towers import ClosedTowers, Preprocessing, TwoTowers
from ..weights import is_torchscript, read_keys

CONFIGS = {"open_clip_config.json": "open_clip", "config.json": "hf"}  # beside a file of weights -> whose it is
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


class Backbone(Protocol):
    """A model that can be had by its name.

    Attributes:
        warning: What is assumed of it, where nothing that belongs to its weights says it; "".
    """

    warning: str

    def load(self) -> TwoTowers | ClosedTowers:
        """Returns the model in float32, on the CPU, in eval() mode; what is missing is downloaded."""

    def preprocessing(self) -> Preprocessing:
        """Returns how its images are prepared; at most small files are downloaded."""

    def weights_file(self, *, download: bool) -> Path | None:
        """Returns the file of weights, whose digest says which model it is; None: it is not there."""

    def config_file(self) -> Path | None:
        """Returns the file that says what the weights compute, and so counts for the digest; None: there is none."""

    def facts(self) -> dict[str, str]:
        """Returns what provenance says of it: library, version, revision."""


def find_backbone(name: str | Path) -> Backbone | None:
    """Returns the model of another library that a name means; None of OpenAI's names and of files in OpenAI's layout.

    Raises:
        ValueError: The prefix is known and the rest of the name is not; the message names near ones. Or a file lies
            beside a library's config and is not the one that belongs to it.
    """
    prefix, _, rest = str(name).partition(":")
    if prefix == "open_clip":
        from .open_clip_models import OpenClipModel  # here: the library costs seconds, which OpenAI's models do not pay

        return OpenClipModel.named(rest)
    if prefix == "hf":
        from .hf_models import HuggingFaceModel

        return HuggingFaceModel.named(rest)
    return _beside(Path(name).expanduser())


def _beside(path: Path) -> Backbone | None:
    """Returns the model whose config lies beside a file of weights, told by the file's keys; None: it has none."""
    folder = path.absolute().parent
    configs = [name for name in CONFIGS if (folder / name).is_file()]
    if not configs or path.suffix not in SUFFIXES or not path.is_file() or is_torchscript(path):
        return None
    of_hf = any(key.startswith(HF_KEYS) for key in read_keys(path))
    config = "config.json" if of_hf else "open_clip_config.json"
    if config not in configs:
        return None
    backbone, found = find_backbone(name := f"{CONFIGS[config]}:{folder}"), None
    with contextlib.suppress(FileNotFoundError):
        found = backbone.weights_file(download=False)
    if found != folder / path.name:
        raise ValueError(
            f"{path} lies beside a {config}, whose weights are {found.name if found else 'missing'}: {name} reads no "
            "other. Name that, or move the file into a folder of its own."
        )
    return backbone
