"""CLIP-like models of other libraries, as our TwoTowers: told by the prefix of their name, read by their library."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..two_towers import ClosedTowers, Preprocessing, TwoTowers


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

    def facts(self) -> dict[str, str]:
        """Returns what provenance says of it: library, version, revision."""


def find_backbone(name: str | Path) -> Backbone | None:
    """Returns the model of another library that a name means; None of OpenAI's names and of paths.

    Raises:
        ValueError: The prefix is known and the rest of the name is not; the message names near ones.
    """
    prefix, _, rest = str(name).partition(":")
    if prefix == "open_clip":
        from .open_clip_models import OpenClipModel  # here: the library costs seconds, which OpenAI's models do not pay

        return OpenClipModel.named(rest)
    if prefix == "hf":
        from .hf_models import HuggingFaceModel

        return HuggingFaceModel.named(rest)
    return None
