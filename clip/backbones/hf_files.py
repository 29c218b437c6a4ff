"""The files of a Hugging Face model: in a folder, or in the hub's cache, which huggingface_hub fills."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..weights import missing_file_message

CONFIG = "config.json"
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
SMALL = (CONFIG, *PROCESSORS, *TOKENIZERS, "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
SMALL = (*SMALL, "added_tokens.json")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"  # the index lists the files of a model in parts
PARTS = "model-*.safetensors"


def import_transformers():
    """Returns the package transformers, whose import takes seconds.

    Raises:
        ValueError: It is not installed.
    """
    return _import("transformers")


def _import(package: str):
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f'The backbone, a model of transformers, needs {package}, which is not installed: pip install -e ".[hf]".'
        ) from error


@dataclass(frozen=True)
class Files:
    """Where a model's files are.

    Attributes:
        repository: OWNER/NAME on the hub; "": they are in a folder.
        revision: a branch, tag or commit of the repository; "": its main branch.
        path: the folder; None: they are in a repository.
    """

    repository: str = ""
    revision: str = ""
    path: Path | None = None

    @classmethod
    def named(cls, rest: str) -> Files:
        """Returns the files that OWNER/NAME, OWNER/NAME@REVISION or FOLDER means; a folder that exists goes first.

        Raises:
            ValueError: It is none of these.
        """
        path = Path(rest).expanduser()
        if rest.strip() and (path.is_dir() or (rest.startswith(("/", "./", "../", "~")) and not path.exists())):
            return cls(path=path)
        if path.is_file():
            raise ValueError(f"{path} is a file. Name its folder, in which its config.json lies: hf:{path.parent}.")
        repository, _, revision = rest.partition("@")
        part = r"[A-Za-z0-9_]+(?:[.-]+[A-Za-z0-9_]+)*"
        if not re.fullmatch(f"{part}/{part}", repository) or rest.endswith("@"):
            raise ValueError(
                f"{'hf:' + rest!r} names no model. Behind hf: stands OWNER/NAME of a repository on the Hugging Face "
                "Hub, OWNER/NAME@REVISION, or a folder that exists."
            )
        return cls(repository, revision)

    def folder(self, *, weights: bool) -> Path:
        """Returns the folder that holds the small files, or the weights too; what the cache lacks is downloaded.

        What the cache has is taken as it is: a branch stays at the commit at which it was fetched first.

        Raises:
            FileNotFoundError: The folder, or a file in it, is missing.
            OSError: The repository could not be fetched.
        """
        folder = self.path or self._cached()
        if self.path is None and not (folder and _is_complete(folder, weights)):
            folder = self._fetch(folder.name if folder else self.revision, weights)
        if not folder.is_dir():
            raise FileNotFoundError(missing_file_message(folder).replace("weights file", "folder"))
        if not (folder / CONFIG).is_file():
            raise FileNotFoundError(
                f"{folder.absolute()} has no {CONFIG}, which says what the model is. Name a folder that transformers' "
                "save_pretrained has written, or a repository with that file."
            )
        if weights and (missing := _missing_weights(folder)):
            raise FileNotFoundError(
                f"{folder.absolute()} has no {missing}. Weights are read from {WEIGHTS}, or from the files that "
                f"{INDEX} lists; a pytorch_model.bin is a pickle and is not read: write the model anew with "
                "save_pretrained, or name a REVISION that has the file."
            )
        return folder

    def weights_file(self, *, download: bool) -> Path | None:
        """Returns the file of weights, or the index of the files that they are in; None: it is not there."""
        folder = self.folder(weights=True) if download else self.path or self._cached()
        if folder is None or _missing_weights(folder):
            return None
        return next(folder / name for name in (WEIGHTS, INDEX) if (folder / name).is_file())

    def commit(self) -> str:
        """Returns the commit whose files the cache has, or else the revision asked for; "" of a folder."""
        folder = None if self.path else self._cached()
        return folder.name if folder else self.revision

    def config(self) -> Path | None:
        """Returns the file of the config; None: it is not there."""
        folder = self.path or self._cached()
        return folder / CONFIG if folder and (folder / CONFIG).is_file() else None

    def _cached(self) -> Path | None:
        found = _import("huggingface_hub").try_to_load_from_cache(
            self.repository, CONFIG, revision=self.revision or None
        )
        return Path(found).parent if isinstance(found, str) else None

    def _fetch(self, revision: str, weights: bool) -> Path:
        from huggingface_hub import constants, snapshot_download

        patterns = [*SMALL, *((WEIGHTS, INDEX, PARTS) if weights else ())]
        try:
            return Path(snapshot_download(self.repository, revision=revision or None, allow_patterns=patterns))
        except Exception as error:  # the network's errors have many classes, and are passed on here
            reason = (str(error).strip().split("\n")[0] or type(error).__name__)[:300]
            at = f" --revision {self.revision}" if self.revision else ""
            raise OSError(
                f"{self.repository} could not be fetched from the Hugging Face Hub ({reason}). It is looked for in the "
                f"cache {constants.HF_HUB_CACHE} first: where there is a network, `hf download {self.repository}{at}` "
                "puts it there."
            ) from error


def parts_of(index: Path) -> list[Path]:
    """Returns the files of weights that an index lists.

    Raises:
        ValueError: It is no index.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of files of weights ({error}). Fetch it again.") from error
    return [index.with_name(name) for name in names]


def _is_complete(folder: Path, weights: bool) -> bool:
    """Whether the cache has all kinds of files: other programs fetch some of them only."""
    kinds = ((CONFIG,), PROCESSORS, TOKENIZERS)
    has_all = all(any((folder / name).is_file() for name in names) for names in kinds)
    return has_all and not (weights and _missing_weights(folder))


def _missing_weights(folder: Path) -> str:
    """Returns the name of a file of weights that should be there; "": none is missing."""
    if (folder / WEIGHTS).is_file():
        return ""
    if not (folder / INDEX).is_file():
        return WEIGHTS
    return next((path.name for path in parts_of(folder / INDEX) if not path.is_file()), "")
