"""The frozen CLIP that a config names: its precision, how its images are prepared, one for all runs of a process."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode as CN

from clip.clip import library_facts, load, own_preprocessing, weights_sha256
from clip.model import VisionTransformer, convert_weights
from clip.two_towers import ClosedTowers, Preprocessing, TwoTowers
from engine.config.defaults import PREPROCESSING
from engine.config.load import flatten, merge, require
from engine.device import multiplies_bfloat16
from engine.distributed import first_on_machine
from engine.process_cache import shared

logger = logging.getLogger(__name__)

PRECISIONS = {
    "fp32": torch.float32,
    "fp16": torch.float16,  # CLIP's weights in float16
    "amp": torch.float32,  # float32 weights, float16 arithmetic while training
    "bf16": torch.bfloat16,  # CLIP's weights in bfloat16
}


def usable_precision(prec: str, device: torch.device) -> str:
    """Returns `prec`, or fp32 (with one warning line) where the device cannot compute in float16; says what is slow."""
    if device.type != "cpu":
        return prec
    if prec in ("fp16", "amp"):  # not bf16, on any CPU: it is less exact than what the papers' settings ask for
        logger.warning("PREC %s needs a GPU: fp32 is used on the CPU", prec)
        prec = "fp32"
    if prec == "fp32" and multiplies_bfloat16():
        logger.info("PREC bf16 would encode images about twice as fast on this processor, and round to three digits")
    if prec == "bf16" and not multiplies_bfloat16():
        logger.warning(
            "No instructions for PREC bf16 were found on this processor; without them it is slower than PREC fp32"
        )
    return prec


def input_values(preprocessing: Preprocessing) -> dict[str, Any]:
    """Returns the config keys, with their values, by which images are prepared like this."""
    own, size = preprocessing, (preprocessing.size, preprocessing.size)
    values = size, own.interpolation, own.resize, list(own.mean), list(own.std)
    return dict(zip(PREPROCESSING, values, strict=True))


def preprocessing_warning(cfg: CN) -> str:
    """Says how images are prepared otherwise than a backbone of another library was trained to see them; else ""."""
    name, node = cfg.MODEL.BACKBONE.NAME, cfg.INPUT
    preprocessing = own_preprocessing(name)
    if preprocessing is None:
        return ""
    own, found = input_values(preprocessing), flatten(cfg)
    found = {key: type(value)(found[key]) for key, value in own.items()}
    differs = [f"{key} is {found[key]} instead of {own[key]}" for key in own if found[key] != own[key]]
    differs += [] if "normalize" in node.TRANSFORMS else ["INPUT.TRANSFORMS has no normalize"]
    differs += ["INPUT.NO_TRANSFORM is True"] if node.NO_TRANSFORM and node.RESIZE != "squash" else []
    if not differs:
        return ""
    return (
        f"Images are prepared otherwise than {name} was trained to see them, which lowers its accuracy: "
        f"{', '.join(differs)}. Unless that is meant, set none of these keys."
    )


def prepare_as_trained(cfg: CN, given: Collection[str]) -> None:
    """Sets PREPROCESSING to what a backbone of another library was trained with, but for the keys `given`.

    Raises:
        ValueError, OSError: There is no such model, or what says its preprocessing cannot be had.
    """
    if preprocessing := own_preprocessing(cfg.MODEL.BACKBONE.NAME):
        own = {key: value for key, value in input_values(preprocessing).items() if key not in given}
        require(merge(cfg, own, cfg.MODEL.BACKBONE.NAME))


def load_clip_to_cpu(cfg: CN, *, draw: bool = True) -> TwoTowers | ClosedTowers:
    """Loads MODEL.BACKBONE onto the CPU, in float32; what a file written for the original draws next follows `draw`."""
    return load(cfg.MODEL.BACKBONE.NAME, "cpu", draw=draw, **stated(cfg))[0]


def stated(cfg: CN) -> dict[str, Any]:
    """Returns what the config states of weights that do not say it themselves, as `load` takes it."""
    backbone = cfg.MODEL.BACKBONE  # of a method written for the original, it may be older than these keys
    return {"heads": tuple(backbone.get("HEADS", ())), "activation": backbone.get("ACTIVATION", "")}


def facts_of_backbone(cfg: CN) -> dict[str, Any]:
    """Returns name or path of the backbone, the digest of its file, what was stated, and what its library says."""
    name = cfg.MODEL.BACKBONE.NAME
    more = {**stated(cfg), "library": library_facts(name)}
    return {"backbone": name, "weights_sha256": weights_sha256(name), **{key: x for key, x in more.items() if x}}


def load_clip(cfg: CN, prec: str, device: torch.device) -> TwoTowers | ClosedTowers:
    """Loads MODEL.BACKBONE.NAME, frozen and in eval mode, onto the device. Runs share it: nobody may change it.

    Raises:
        ValueError: If INPUT.SIZE is not the backbone's resolution.
    """
    name = cfg.MODEL.BACKBONE.NAME
    logger.info("Loading CLIP (backbone: %s)", name)
    clip_model = shared_clip(cfg, prec, device)
    resolution = clip_model.visual.input_resolution
    if tuple(cfg.INPUT.SIZE) != (resolution, resolution):
        is_given = own_preprocessing(name)  # else the backbone's own size has been taken
        raise ValueError(
            f"INPUT.SIZE is {tuple(cfg.INPUT.SIZE)}, but the resolution of {name} is ({resolution}, {resolution}). "
            + ("Leave it out." if is_given else "Set INPUT.SIZE in the trainer's YAML or at the end of the command.")
        )
    return clip_model


def shared_clip(cfg: CN, prec: str, device: torch.device) -> TwoTowers | ClosedTowers:
    """The same for any INPUT.SIZE."""
    name = cfg.MODEL.BACKBONE.NAME
    key = (name, weights_sha256(name), *stated(cfg).values(), prec, device, cfg.MODEL.CHANNELS_LAST)
    with first_on_machine():  # it may have to be downloaded
        return shared("CLIP", key, lambda: frozen_clip(cfg, prec, device))


def frozen_clip(cfg: CN, prec: str, device: torch.device) -> TwoTowers | ClosedTowers:
    clip_model = load_clip_to_cpu(cfg, draw=False)
    if PRECISIONS[prec] != torch.float32:
        convert_weights(clip_model, PRECISIONS[prec])
    if cfg.MODEL.CHANNELS_LAST:
        clip_model.visual.to(memory_format=torch.channels_last)
    return clip_model.requires_grad_(False).to(device).eval()


def require_open(clip_model: TwoTowers | ClosedTowers) -> None:
    """Raises ValueError if the text tower cannot be entered, which a method needs that learns something in it."""
    if clip_model.closed:
        raise ValueError(
            f"The text tower of this backbone cannot be entered: it {clip_model.closed}. Use ZeroshotCLIP, "
            "ZeroshotCLIP2 or LinearProbe, or name another MODEL.BACKBONE.NAME."
        )


def require_vit(visual: nn.Module, cfg: CN, does: str, remedy: str) -> None:
    """Raises ValueError if an image tower is no ViT in OpenAI's layout; `does` says what the method needs it for."""
    if not isinstance(visual, VisionTransformer):
        kind = type(getattr(visual, "module", visual)).__name__
        raise ValueError(
            f"{cfg.TRAINER.NAME} {does}, but the image tower of {cfg.MODEL.BACKBONE.NAME} is a {kind}. Name a ViT of "
            f"OpenAI's, such as ViT-B/16, or a file in that layout as MODEL.BACKBONE.NAME; or {remedy}."
        )
