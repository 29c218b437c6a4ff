"""A classifier as a folder that needs none of this code: numbers in safetensors, facts in JSON, a page that says how.

classifier.safetensors   weight (C, E) float32; scale () of cosines; bias (C,); Tip-Adapter's keys (N, E), owners (N,),
                         alpha (), beta ()
config.json              class names, backbone, preprocessing, where it comes from
README.md                what it is, and ten lines that use it
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.clip import library_facts, weights_sha256
from clip.prepared import prepare
from engine import TrainerX
from engine.config.load import full_default, merge, require
from engine.data.transforms import IN_TESTS
from engine.features.head import CachedHead, Head, LinearHead
from engine.files import missing_path, write_atomically, writing
from engine.run.classes import Classes
from engine.run.results import results_of
from engine.text import printable, shorten
from trainers.backbone import load_clip, stated

from .card import card
from .run_folder import EXPORTED, Source

WEIGHTS, CONFIG, CARD = "classifier.safetensors", EXPORTED, "README.md"
ONNX, ONNX_DATA = "classifier.onnx", "classifier.onnx.data"
CLIP = "clip.safetensors"
FILES = {  # by the file that tells the format
    WEIGHTS: {WEIGHTS, CARD, CONFIG},
    ONNX: {ONNX, ONNX_DATA, CARD, CONFIG},
    CLIP: {CLIP, CARD, CONFIG},
}
PREPROCESSING = (
    *("SIZE", "INTERPOLATION", "RESIZE", "TRANSFORMS", "NO_TRANSFORM", "PIXEL_MEAN", "PIXEL_STD"),
    "REDUCED_DECODING",
)


def write_artefact(trainer: TrainerX, head: Head | None, folder: Path, results: dict[str, Any]) -> None:
    """Writes the folder; one that is there already is replaced if it holds an export and nothing else.

    Args:
        trainer: With what was learned.
        head: Its `head_of`.
        folder: Where to.
        results: Of the test of this very model, for the page; {} if it was not tested.

    Raises:
        ValueError: If the method's answers are more than a matrix, or the folder holds something else.
        OSError: If it cannot be written.
    """
    if head is None:
        raise ValueError(
            f"{trainer.cfg.TRAINER.NAME} does more than one matrix does: its classes depend on the image, or it "
            "changes features or logits. Use --format onnx, predict.py or inference.Classifier."
        )
    facts, tensors = facts_of(trainer, results), tensors_of(head)
    weights = save({name: value.cpu().contiguous() for name, value in tensors.items()})
    write_folder(folder, {WEIGHTS: weights}, facts, card=card(facts, parts=frozenset(tensors)))


def write_folder(folder: Path, contents: dict[str, bytes | Path], facts: dict[str, Any], *, card: str) -> None:
    """Writes an export: `contents`, each the bytes of a file or a file to copy, the page, and `facts` as config.json.

    Raises:
        ValueError: See `require_own`; the first of `contents` tells the format.
        OSError: If it cannot be written.
    """
    require_own(folder, next(iter(contents)))
    config = (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()
    contents = {**contents, CARD: card.encode(), CONFIG: config}  # the last one: without it there is no export
    for name in (CONFIG, ONNX_DATA):
        with writing(folder / name):
            (folder / name).unlink(missing_ok=True)
    for name, content in contents.items():
        is_file = isinstance(content, Path)
        write = partial(shutil.copyfile, content) if is_file else partial(_write_bytes, content)
        write_atomically(folder / name, write)


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def require_own(folder: Path, main: str) -> None:
    """Raises ValueError unless a folder is new, empty, or an export of the format of its file `main`."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file. Name a new folder.")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if found - FILES[main] or (found and main not in found):
        raise ValueError(f"{folder} holds other files. Name a new folder.")


def tensors_of(head: Head) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in head._asdict().items() if value is not None}


def facts_of(trainer: TrainerX, results: dict[str, Any]) -> dict[str, Any]:
    """Returns what config.json says."""
    cfg, name, trained = trainer.cfg, trainer.cfg.MODEL.BACKBONE.NAME, results_of(trainer)
    return {
        "format": 1,
        "classnames": list(trainer.dm.dataset.classnames),
        "backbone": name,
        "backbone_sha256": weights_sha256(name),
        **{f"backbone_{key}": _plain(value) for key, value in stated(cfg).items() if value},
        **({"backbone_library": library} if (library := library_facts(name)) else {}),
        "precision": trainer.precision,
        "preprocessing": {key: _plain(value) for key, value in preprocessing_of(cfg.INPUT).items()},
        **{key: trained[key] for key in ("trainer", "source", "shots", "seed", "epoch")},
        **{key: results.get(key) for key in ("dataset", "accuracy", "macro_f1", "total", "warnings")},
        "libraries": (results.get("provenance") or {}).get("libraries"),
    }


def preprocessing_of(node: CN) -> dict[str, Any]:
    """Returns what INPUT says of a test; what training did besides would mislead a stranger."""
    keys = {key: node[key] for key in PREPROCESSING}
    return {**keys, "TRANSFORMS": [name for name in node.TRANSFORMS if name in IN_TESTS]}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, list)) else value


class Exported(TrainerX):
    """The classifier in such a folder, on this project's CLIP. A subclass sets `head` and `exported`, its classes."""

    head: Head
    exported: list[str]
    prepare_tower = staticmethod(prepare)

    def build_model(self) -> None:
        if self.dm.dataset.classnames != self.exported:
            raise ValueError("An exported classifier knows no other classes than its own. Export the run for others.")
        self.precision = "fp32"
        self.clip_model = load_clip(self.cfg, "fp32", self.device)
        found, expected = self.head.weight.shape[1], self.clip_model.visual.output_dim
        if found != expected:
            raise ValueError(
                f"The exported classifier has {found} numbers for each class, but {self.cfg.MODEL.BACKBONE.NAME} gives "
                f"features of {expected}. Bring back the backbone that it was made with."
            )
        self.head = self.head._make(v.to(self.device) if isinstance(v, Tensor) else v for v in self.head)

    def image_tower(self) -> nn.Module:
        return self.clip_model.visual

    def classify_features(self, features: Tensor) -> Tensor:
        return self.head.logits(features)

    def feature_head(self) -> Head:
        return self.head


def read_artefact(folder: str | Path) -> Source:
    """Reads a folder that `write_artefact` has written; it may be a stranger's, and none of it is run.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file does not hold what it should, or the backbone's weights are others.
    """
    folder = Path(folder).expanduser()
    if (folder / ONNX).is_file():
        raise ValueError(
            f"{folder} holds an ONNX file, which needs none of this code: the lines in its README.md use it with "
            "onnxruntime. For Classifier.from_export, export the run with --format classifier."
        )
    if (folder / CLIP).is_file():
        raise ValueError(
            f"{folder} holds a whole CLIP, not a classifier: name {folder / CLIP} as MODEL.BACKBONE.NAME, or in "
            "Classifier.zero_shot as the lines in its README.md do. For Classifier.from_export, a run is exported with "
            "--format classifier."
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(missing_path(folder / name, "The exported file", "Name a folder of export.py."))
    facts, head = _read_facts(folder / CONFIG), _read_head(folder / WEIGHTS)
    names, backbone = facts["classnames"], facts["backbone"]
    if len(head.weight) != len(names):
        raise ValueError(f"{folder}: {WEIGHTS} has {len(head.weight)} rows for {len(names)} class names.")
    found = weights_sha256(backbone)
    if None not in (found, facts.get("backbone_sha256")) and found != facts["backbone_sha256"]:
        raise ValueError(
            f"{folder} was made with other weights of {printable(backbone)}, or with another config beside them. Bring "
            "those back."
        )
    cfg, input_keys = full_default(), facts["preprocessing"]
    values = {f"INPUT.{key}": input_keys[key] for key in PREPROCESSING if key in input_keys}
    own = {"TRAINER.NAME": "Exported", "MODEL.BACKBONE.NAME": backbone, "DATASET.NAME": "ClassNames", "SEED": 1}
    open_facts = {"HEADS": facts.get("backbone_heads"), "ACTIVATION": facts.get("backbone_activation")}
    own |= {f"MODEL.BACKBONE.{key}": value for key, value in open_facts.items() if value}
    require(merge(cfg, {**values, **own}, str(folder / CONFIG)))
    return Source(
        cfg,
        type("Exported", (Exported,), {"head": head, "exported": names}),
        Classes(names, "a photo of a {}."),
        "",
        None,
    )


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        names = facts["classnames"]
        if not (isinstance(names, list) and names and all(isinstance(x, str) for x in [*names, facts["backbone"]])):
            raise ValueError("no class names or backbone")
        if not isinstance(facts["preprocessing"], dict):
            raise ValueError("no preprocessing")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not what export.py writes ({shorten(error)}). Export the run again.") from error
    return facts


def _read_head(path: Path) -> Head:
    try:
        tensors = load_file(path)
        weight, scale, bias = tensors["weight"].float(), tensors.get("scale"), tensors.get("bias")
        scale = None if scale is None else float(scale)
        if "keys" in tensors:
            return _cached_head(weight, scale, tensors)
        if weight.dim() != 2 or (scale is None and bias is None) or (bias is not None and len(bias) != len(weight)):
            raise ValueError("weight (C, E), and scale, or bias (C,), or both are needed")
        return LinearHead(weight, scale, bias)
    except Exception as error:  # what safetensors raises for a broken file is its own
        raise ValueError(f"{path} is not what export.py writes ({shorten(error)}). Export the run again.") from error


def _cached_head(weight: Tensor, scale: float | None, tensors: dict[str, Tensor]) -> CachedHead:
    keys, owners = tensors["keys"].float(), tensors["owners"].long()
    fits = weight.dim() == keys.dim() == 2 and keys.shape == (len(owners), weight.shape[1]) and owners.dim() == 1
    if not fits or scale is None or not all(0 <= owner < len(weight) for owner in owners.tolist()):
        raise ValueError("weight (C, E), scale, keys (N, E) and owners (N,) from 0 to C - 1 are needed")
    return CachedHead(weight, scale, keys, owners, float(tensors["alpha"]), float(tensors["beta"]))
