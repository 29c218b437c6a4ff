"""Models of Hugging Face's transformers as TwoTowers: `hf:OWNER/NAME`, `hf:OWNER/NAME@REVISION` or `hf:FOLDER`.

| model_type       | text tower                                                     | image tower           |
|------------------|----------------------------------------------------------------|-----------------------|
| clip, metaclip_2 | our blocks: causal, read at the end token                      | the library's modules |
| siglip           | our blocks: not causal, read at the last of L padded positions | the library's modules |
| chinese_clip     | the library's, closed: its blocks are BERT's                   | the library's modules |

Read are config.json, preprocessor_config.json, the tokenizer's files and safetensors. Nothing of a repository runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from ..tokens import ClipTokenizer, Tokenizer
from ..two_towers import ClosedTowers, ForeignTower, Preprocessing, TwoTowers
from .hf_files import CONFIG, INDEX, Files, import_transformers, parts_of
from .hf_inputs import read_preprocessing, read_tokenizer
from .hf_towers import ACTIVATIONS, ImageTower, TextTower, open_towers

CLASSES = {
    "clip": "CLIPModel",
    "metaclip_2": "MetaClip2Model",
    "siglip": "SiglipModel",
    "chinese_clip": "ChineseCLIPModel",
}
CLOSED = {"chinese_clip": "is Chinese CLIP's BERT, whose blocks are not CLIP's"}  # why
CLOSED_LENGTH = 77  # of their texts, at most; their padding is hidden from all tokens
USABLE = (
    f"Name a model of: {', '.join(CLASSES.values())}. Where open_clip has it too, open_clip:ARCHITECTURE/TAG may do."
)


@dataclass(frozen=True)
class HuggingFaceModel:
    """A two-tower model that transformers has a class for, see Backbone."""

    files: Files
    warning = ""  # its config says all

    @classmethod
    def named(cls, rest: str) -> HuggingFaceModel:
        return cls(Files.named(rest))

    def load(self) -> TwoTowers | ClosedTowers:
        folder = self.files.folder(weights=True)
        kind, config = _read_config(folder)
        preprocessing, text = _preprocessing(folder, config), config.text_config
        if kind == "siglip" and not config.vision_config.vision_use_head:
            raise ValueError(f"In {folder / CONFIG} vision_use_head is False: such an image tower gives no feature.")
        model = _load(folder, CLASSES[kind])
        width = model.text_model.head.out_features if kind == "siglip" else config.projection_dim
        images = config.vision_config.to_json_string(use_diff=False)
        visual = ForeignTower(ImageTower(model), width, preprocessing.size, images)
        length = CLOSED_LENGTH if kind in CLOSED else text.max_position_embeddings
        tokens = read_tokenizer(folder, length, text.vocab_size)
        if closed := _why_closed(kind, text):
            pad = text.pad_token_id if kind in CLOSED else None
            tower = ForeignTower(TextTower(model, pad), width)
            towers = ClosedTowers(visual, tower, tokens, preprocessing, closed)
        else:
            if kind != "siglip":
                _check_end(folder, kind, text, tokens)
            towers = open_towers(kind, model, visual, tokens, preprocessing)
        towers.logit_scale = nn.Parameter(model.logit_scale.detach().reshape([]).clone())
        if kind == "siglip":
            towers.logit_bias = model.logit_bias.item()
        return towers.eval()

    def preprocessing(self) -> Preprocessing:
        folder = self.files.folder(weights=False)
        return _preprocessing(folder, _read_config(folder)[1])

    def weights_file(self, *, download: bool) -> Path | None:
        return self.files.weights_file(download=download)

    def config_file(self) -> Path | None:
        return self.files.config()

    def facts(self) -> dict[str, str]:
        try:
            facts = {"library": "transformers", "version": version("transformers")}
        except PackageNotFoundError:
            facts = {"library": "transformers"}
        if self.files.repository:
            facts |= {"repository": self.files.repository, "revision": self.files.commit()}
        return facts


def _read_config(folder: Path):
    """Returns the model_type of a folder and transformers' config, with its defaults.

    Raises:
        ValueError: The type is not one of CLASSES, or the config is wrong.
    """
    path = folder / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kind, architectures = found.get("model_type"), found.get("architectures") or []
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as the config of a model ({error}). Fetch it again.") from error
    if "auto_map" in found:
        raise ValueError(f"{path} names code of its own (auto_map), and nothing of a repository is run. {USABLE}")
    if kind not in CLASSES or (architectures and architectures[0] != CLASSES[kind]):
        what = f"a {architectures[0]}" if architectures else "a model"
        raise ValueError(
            f"{path} is that of {what} with the model_type {kind!r}, which is no model of an image and a text tower "
            f"that is known here. {USABLE}"
        )
    config_class = getattr(import_transformers(), CLASSES[kind]).config_class
    try:
        return kind, config_class.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # what a wrong config makes the library raise is not documented, and is passed on here
        raise ValueError(f"transformers cannot read {path} ({' '.join(str(error).split())}).") from error


def _load(folder: Path, class_name: str) -> nn.Module:
    """Returns transformers' model with the weights of a folder, in float32.

    Raises:
        ValueError: The weights cannot be read or do not fit the config.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / INDEX
    for path in parts_of(index) if index.is_file() else [folder / "model.safetensors"]:
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} ({path.stat().st_size:,} bytes) cannot be read as safetensors ({error}). If it is cut short, "
                "fetch it again."
            ) from error
    transformers = import_transformers()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = getattr(transformers, class_name).from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
    except Exception as error:  # as above
        raise ValueError(
            f"transformers cannot build the {class_name} of {folder} ({' '.join(str(error).split())})."
        ) from error
    unexpected = (key for key in report["unexpected_keys"] if not key.endswith("position_ids"))  # old files' buffers
    wrong = {
        "lack": sorted(map(str, report["missing_keys"])),
        "have in another shape": sorted(str(key[0]) for key in report["mismatched_keys"]),
        "have, and the model has no place for,": sorted(unexpected),
    }
    if found := [f"{what} {', '.join(keys[:4])} ({len(keys)} in all)" for what, keys in wrong.items() if keys]:
        raise ValueError(
            f"The weights in {folder} do not fit the {class_name} of {CONFIG}: they {'; they '.join(found)}. Put the "
            f"{CONFIG} there that belongs to them."
        )
    return model


def _preprocessing(folder: Path, config) -> Preprocessing:
    """Returns how images are prepared.

    Raises:
        ValueError: They do not fit the image tower.
    """
    preprocessing = read_preprocessing(folder)
    size, patch = config.vision_config.image_size, config.vision_config.patch_size
    if not isinstance(size, int) or not isinstance(patch, int):
        raise ValueError(f"In {folder / CONFIG} image_size is {size} and patch_size {patch}; they must be one number.")
    # SigLIP has models that leave a border out (384 pixels in patches of 14), as they were trained.
    if size < patch or (size % patch and config.model_type != "siglip"):
        raise ValueError(f"In {folder / CONFIG} image_size is {size}, which patch_size {patch} does not divide.")
    if size != preprocessing.size:
        raise ValueError(
            f"{folder} prepares images of {preprocessing.size} pixels (preprocessor_config.json); its image tower "
            f"takes {size} ({CONFIG}). Put files there that belong together."
        )
    return preprocessing


def _why_closed(kind: str, text) -> str:
    """Returns why our blocks cannot express a text tower; "": they can."""
    if kind in CLOSED:
        return CLOSED[kind]
    if text.hidden_act not in ACTIVATIONS:
        return f"has the activation {text.hidden_act}, none of {', '.join(ACTIVATIONS)}"
    return ""


def _check_end(folder: Path, kind: str, text, tokens: Tokenizer) -> None:
    """Raises ValueError if the library reads a text's feature elsewhere than at the tokenizer's end."""
    is_clips = isinstance(tokens, ClipTokenizer)
    end = max(tokens.special) if is_clips else tokens.end
    # With 2, a mistake in old configs, the library reads a CLIP's feature at the largest id of a text.
    by_largest = kind == "clip" and text.eos_token_id == 2
    is_largest = is_clips or end == text.vocab_size - 1
    if not (is_largest if by_largest else end == text.eos_token_id):
        raise ValueError(
            f"In {folder / CONFIG} eos_token_id of the text tower is {text.eos_token_id}; the tokenizer ends a text "
            f"with {end}, so features would be read elsewhere than at the end. Put files there that belong together."
        )
