"""open_clip's models by name: which one is meant, where its config and weights lie, how its images are prepared.

    open_clip:ViT-B-32/laion2b_s34b_b79k      an architecture and a tag of open_clip.list_pretrained()
    open_clip:ViT-B-32/PATH                   an architecture and a file of weights, or a folder that holds one
    open_clip:FOLDER                          a folder with open_clip_config.json and weights, as open_clip saves them
    open_clip:hf-hub:OWNER/NAME[@REVISION]    such a folder on the Hugging Face Hub

The library builds the model from the config that belongs to the weights; open_clip_towers.py makes ours of it. Nothing
that is fetched runs code: weights are read with weights_only, tokenizers without trust_remote_code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..two_towers import ClosedTowers, Preprocessing, TwoTowers
from ..weights import missing_file_message
from .open_clip_files import (
    CONFIG,
    check_positions,
    fetch,
    handled_root,
    import_open_clip,
    misfit,
    near,
    read_shapes,
    reason_of,
    revision_of,
    weights_in,
)


class OpenClipModel:
    """A model that open_clip builds; the subclasses say from what.

    Attributes:
        name: What open_clip calls its config.
        config: Its sizes as in open_clip's JSON files: embed_dim, vision_cfg, text_cfg.
        images: How its images are prepared, in open_clip's words; what is not said is open_clip's default.
        warning: What is assumed of it; "" where its config says all.
    """

    name: str
    config: dict[str, Any]
    images: dict[str, Any]
    warning: str = ""

    @staticmethod
    def named(rest: str) -> OpenClipModel:
        """Returns the model that a name means, without its prefix `open_clip:`.

        Raises:
            ValueError: open_clip is not installed, or has no such architecture or tag; the message names near ones.
            FileNotFoundError: A path does not exist, or a folder has no config or no weights.
        """
        architectures = import_open_clip().list_models()
        if rest.startswith("hf-hub:") and rest != "hf-hub:":
            return HubModel(*rest.removeprefix("hf-hub:").partition("@")[::2])
        given = rest.removeprefix("local-dir:")
        folder = Path(given).expanduser()
        if given and (folder / CONFIG).is_file():
            return FolderModel(folder)
        architecture, _, source = rest.partition("/")
        if architecture in architectures:
            return _of_architecture(architecture, source)
        if folder.is_file():
            raise ValueError(f"{folder} does not say its architecture. Name it, too: open_clip:ARCHITECTURE/PATH.")
        if given and folder.is_dir():
            raise FileNotFoundError(
                f"{folder.absolute()} has no {CONFIG}. Give a folder that open_clip saved, or the architecture, too: "
                "open_clip:ARCHITECTURE/PATH."
            )
        if given.startswith(("/", "./", "../", "~")):
            raise FileNotFoundError(missing_file_message(folder).replace("weights file", "folder"))
        raise ValueError(
            f"open_clip has no architecture {architecture!r}.{near(architecture, architectures)} A model's name is "
            "open_clip:ARCHITECTURE/TAG, open_clip:ARCHITECTURE/PATH, open_clip:FOLDER or open_clip:hf-hub:OWNER/NAME; "
            "open_clip.list_pretrained() lists architectures and tags."
        )

    @handled_root()
    def load(self) -> TwoTowers | ClosedTowers:
        """Returns the model in float32, on the CPU, in eval() mode; what is missing is downloaded.

        Raises:
            ValueError: The weights cannot be read, or are those of another architecture.
            OSError: Something could not be fetched.
        """
        from .open_clip_towers import convert

        preprocessing, tokenizer = self.preprocessing(), self.tokenizer()
        path = self.weights_file(download=True)
        shapes = read_shapes(path)
        try:
            model = self.build(path)
        except OSError as error:  # the config of a text tower of transformers is fetched
            tower = self.config["text_cfg"].get("hf_model_name")
            raise OSError(
                f"open_clip:{self.name} could not be built ({reason_of(error)}). Where there is a network, `hf "
                f"download {tower}` puts its text tower's config into the cache of the Hugging Face Hub."
            ) from error
        except Exception as error:  # open_clip says in many ways that weights do not fit, failed asserts among them
            raise ValueError(misfit(path, self.name, shapes, error)) from error
        check_positions(path, self.name, shapes, model)
        return convert(model.float(), tokenizer, preprocessing, self.config).eval()

    def preprocessing(self) -> Preprocessing:
        """Returns how its images are prepared; at most its config is downloaded.

        Raises:
            ValueError: In a way that is not supported.
        """
        size, images = self.config["vision_cfg"].get("image_size", 224), self.images
        edges = {size} if isinstance(size, int) else set(size)
        mode = images.get("resize_mode") or "shortest"
        if len(edges) > 1 or mode not in ("shortest", "squash"):
            raise ValueError(
                f"open_clip:{self.name} takes images of {size} pixels, resized by {mode!r}; only square images, "
                "resized by 'shortest' or 'squash', are supported. Name another model."
            )
        interpolation = "bilinear" if images.get("interpolation") == "bilinear" else "bicubic"  # as open_clip reads it
        values = {key: tuple(images[key]) for key in ("mean", "std") if images.get(key)}
        return Preprocessing(edges.pop(), interpolation, "squash" if mode == "squash" else "crop", **values)

    def tokenizer(self):
        """Returns open_clip's tokenizer of the model.

        Raises:
            OSError: Its files are not there, and could not be fetched.
        """
        name = self.config["text_cfg"].get("hf_tokenizer_name")
        if not name:
            return import_open_clip().get_tokenizer(self.name)
        try:
            return self.hf_tokenizer(name, trust_remote_code=False)  # beats what a config of the hub may say
        except ImportError as error:
            raise ValueError(
                f'The tokenizer {name!r} needs transformers, which is not installed: pip install -e ".[open_clip]".'
            ) from error
        except (OSError, ValueError) as error:  # transformers raises either for files that are not there
            raise OSError(
                f"The tokenizer {name!r} of open_clip:{self.name} could not be loaded ({reason_of(error)}). Its files "
                f"must lie in the model's folder, or come from the Hugging Face Hub: with a network, `hf download "
                f"{name}` puts them into its cache."
            ) from error

    def hf_tokenizer(self, name: str, **options):
        return import_open_clip().get_tokenizer(self.name, **options)

    def build(self, path: Path) -> nn.Module:
        """Returns open_clip's model with a file's weights."""
        return _create(f"local-dir:{path.parent}")

    def weights_file(self, *, download: bool) -> Path | None:
        """Returns the file of weights; None: it is not there, and is not to be fetched."""
        raise NotImplementedError

    def config_file(self) -> Path | None:
        """Returns the file of its config; None: the config is the library's, whose version `facts` says."""

    def facts(self) -> dict[str, str]:
        """Returns what provenance says of it."""
        return {"library": "open_clip", "version": import_open_clip().__version__}


def _create(name: str, **options) -> nn.Module:
    # The text tower as a module of its own, whatever the config says; open_clip renames the weights.
    return import_open_clip().create_model(name, force_custom_text=True, require_pretrained=True, **options)


def _of_architecture(architecture: str, source: str) -> OpenClipModel:
    open_clip = import_open_clip()
    if open_clip.is_pretrained_cfg(architecture, source):
        return PublishedModel(architecture, source)
    path = Path(source).expanduser()
    if source and path.exists():
        return FileModel(architecture, weights_in(path) if path.is_dir() else path)
    if "/" in source or path.suffix:
        raise FileNotFoundError(missing_file_message(path))
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    raise ValueError(
        (f"open_clip has no weights {source!r} of {architecture}." if source else f"{architecture} needs a tag, too.")
        + f"{near(source, tags)} "
        + (f"It has: {', '.join(tags)}." if tags else "It has none of it: give the path of a file.")
    )


@dataclass(frozen=True)
class ArchitectureModel(OpenClipModel):
    """An architecture, whose config is the library's."""

    name: str

    @property
    def config(self) -> dict[str, Any]:
        return import_open_clip().get_model_config(self.name)


@dataclass(frozen=True)
class PublishedModel(ArchitectureModel):
    """An architecture and a tag."""

    tag: str

    @property
    def images(self) -> dict[str, Any]:
        return import_open_clip().get_pretrained_cfg(self.name, self.tag)

    def build(self, path: Path) -> nn.Module:
        # Where the architecture's name does not say the QuickGELU of a tag, open_clip warns and computes with GELU.
        return _create(self.name, pretrained=str(path), force_quick_gelu=bool(self.images.get("quick_gelu")))

    def weights_file(self, *, download: bool) -> Path | None:
        return fetch(*self._address, download=download)

    def facts(self) -> dict[str, str]:
        where = {"repository": self._address[0], "revision": revision_of(self.weights_file(download=False))}
        return {**super().facts(), "architecture": self.name, "weights": self.tag, **where}

    @property
    def _address(self) -> tuple[str, str]:
        """Repository, and the file in it; "": open_clip's usual one."""
        repository, _, filename = self.images["hf_hub"].rpartition("/")
        return repository, filename


@dataclass(frozen=True)
class FileModel(ArchitectureModel):
    """An architecture and a file, which says neither its activation nor how images are prepared."""

    path: Path

    @property
    def images(self) -> dict[str, Any]:
        """Those that all tags of the architecture share; else open_clip's defaults."""
        open_clip = import_open_clip()
        tags = open_clip.list_pretrained_tags_by_model(self.name)
        keys = ("mean", "std", "interpolation", "resize_mode")
        images = [{key: open_clip.get_pretrained_cfg(self.name, tag).get(key) for key in keys} for tag in tags]
        return images[0] if images and all(each == images[0] for each in images) else {}

    @property
    def warning(self) -> str:
        activation = "QuickGELU" if self.config.get("quick_gelu") else "GELU"
        source = f"as for open_clip's weights of {self.name}" if self.images else "by open_clip's defaults"
        return (
            f"The weights {self.path.name} say neither their activation nor how images are prepared. As open_clip's "
            f"{self.name}, {activation} is assumed, and images are prepared {source}."
        )

    def build(self, path: Path) -> nn.Module:
        return _create(self.name, pretrained=str(path))

    def weights_file(self, *, download: bool) -> Path | None:
        return self.path

    def facts(self) -> dict[str, str]:
        return {**super().facts(), "architecture": self.name, "weights": self.path.name}


@dataclass(frozen=True)
class FolderModel(OpenClipModel):
    """A folder with a config, weights, and the files of a tokenizer where it is one of transformers."""

    folder: Path

    @property
    def name(self) -> str:
        return f"local-dir:{self.folder}"

    @property
    def config(self) -> dict[str, Any]:
        return self._content()["model_cfg"]

    @property
    def images(self) -> dict[str, Any]:
        return self._content().get("preprocess_cfg") or {}

    def _content(self) -> dict[str, Any]:
        path = self.folder / CONFIG
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not all(isinstance(content["model_cfg"][key], dict) for key in ("vision_cfg", "text_cfg")):
                raise TypeError("vision_cfg and text_cfg must be objects")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path.absolute()} is no config of open_clip ({type(error).__name__}: {error}). It must be JSON with "
                "`model_cfg`, and in it `embed_dim`, `vision_cfg` and `text_cfg`."
            ) from error
        return content

    def weights_file(self, *, download: bool) -> Path | None:
        return weights_in(self.folder)

    def config_file(self) -> Path | None:
        return self.folder / CONFIG

    def facts(self) -> dict[str, str]:
        return {**super().facts(), "architecture": self.folder.name, "weights": weights_in(self.folder).name}


@dataclass(frozen=True)
class HubModel(OpenClipModel):
    """Such a folder on the Hugging Face Hub: config and weights are those of one commit."""

    repository: str
    revision: str  # a commit, branch or tag; "": the main branch

    @property
    def name(self) -> str:
        return f"hf-hub:{self.repository}"

    @property
    def config(self) -> dict[str, Any]:
        return self._folder().config

    @property
    def images(self) -> dict[str, Any]:
        return self._folder().images

    def _folder(self) -> FolderModel:
        return FolderModel(fetch(self.repository, CONFIG, self.revision, download=True).parent)

    def tokenizer(self):
        if self.config["text_cfg"].get("hf_tokenizer_name"):
            return super().tokenizer()
        return self._folder().tokenizer()

    def hf_tokenizer(self, name: str, **options):
        text = self.config["text_cfg"]
        options = {**text.get("tokenizer_kwargs", {}), **options}
        length, mode = text.get("context_length", 77), text.get("tokenizer_mode")
        return import_open_clip().tokenizer.HFTokenizer(name, context_length=length, tokenizer_mode=mode, **options)

    def weights_file(self, *, download: bool) -> Path | None:
        config = fetch(self.repository, CONFIG, self.revision, download=download)
        return fetch(self.repository, "", revision_of(config), download=download) if config else None

    def config_file(self) -> Path | None:
        return fetch(self.repository, CONFIG, self.revision, download=False)

    def facts(self) -> dict[str, str]:
        revision = revision_of(self.weights_file(download=False))
        return {**super().facts(), "repository": self.repository, "revision": revision}
