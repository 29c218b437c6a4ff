"""CLIP with what was learned in its weights, as a file that whatever reads OpenAI's layout loads.

clip.safetensors   a state dict with OpenAI's keys, float32: all of CLIP, both towers
config.json        class names, the prompt of the training, preprocessing, where it comes from
README.md          what it is, and the lines that use it
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save

from clip.model import CLIP as OpenAILayout
from engine import TrainerX
from trainers.backbone import load_clip_to_cpu

from .artefact import CLIP, facts_of, require_own, write_folder
from .card import merged_card


def write_merged(trainer: TrainerX, folder: Path, results: dict[str, Any]) -> None:
    """Writes the folder; one that is there already is replaced if it holds such an export and nothing else.

    Args:
        trainer: With what was learned.
        folder: Where to.
        results: Of the test of this very model, for the page; {} if it was not tested.

    Raises:
        ValueError: If the method leaves CLIP's weights as they are, CLIP is not in OpenAI's layout, or the folder holds
            something else.
        OSError: If it cannot be written.
    """
    name = trainer.cfg.TRAINER.NAME
    if not hasattr(trainer, "merge_into"):
        raise ValueError(
            f"{name} leaves CLIP's own weights as they are, so there is no CLIP to write. Use --format classifier or "
            "--format onnx."
        )
    require_own(folder, CLIP)
    clip_model = load_clip_to_cpu(trainer.cfg).requires_grad_(False)
    if not isinstance(clip_model, OpenAILayout):
        raise ValueError(
            f"{trainer.cfg.MODEL.BACKBONE.NAME} is not in OpenAI's layout, in which --format clip writes. Use --format "
            "classifier or --format onnx, or train on a CLIP of OpenAI's or a file in its layout."
        )
    trainer.merge_into(clip_model)
    facts = {**facts_of(trainer, results), "template": trainer.templates()[0]}
    weights = save({key: value.contiguous() for key, value in clip_model.state_dict().items()})
    write_folder(folder, {CLIP: weights}, facts, card=merged_card(facts))
