"""A feature for each class from hand-made prompts: what zero-shot CLIP is, and methods on features start from.

w_i = norm(mean_k norm(g(template_k(CLASS_i))))     ensemble_features; guide_features in training
w_i = mean_k g(template_k(CLASS_i))                 mean_features
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.two_towers import TwoTowers

logger = logging.getLogger(__name__)

TEXTS_AT_ONCE = 1024  # bounds memory: 80 templates of 1,000 classes are 80,000 texts


def ensemble_features(clip_model: TwoTowers, classnames: list[str], templates: tuple[str, ...]) -> Tensor:
    """Encodes every class with every template and averages the normalised features.

    Args:
        clip_model: The CLIP.
        classnames: C names; underscores are read as spaces.
        templates: K prompts with `{}` for the name.

    Returns:
        (C, E) float32, normalised.
    """
    mean = 0
    for template in templates:
        mean = mean + F.normalize(encode_classes(clip_model, classnames, template), dim=-1) / len(templates)
    return F.normalize(mean, dim=-1)


@torch.no_grad()
def guide_features(clip_model: TwoTowers, classnames: list[str], templates: tuple[str, ...]) -> Tensor:
    """The same, in the middle of a training step and of autocast: what guides a method is zero-shot CLIP as it is."""
    logger.info("The guide's prompt: %s", " | ".join(templates))
    with torch.autocast(clip_model.logit_scale.device.type, enabled=False):
        return ensemble_features(clip_model, classnames, templates)


def mean_features(clip_model: TwoTowers, classnames: list[str], templates: tuple[str, ...]) -> Tensor:
    """The same without normalising, neither each feature nor the mean: (C, E) float32."""
    return sum(encode_classes(clip_model, classnames, template) for template in templates) / len(templates)


def encode_classes(clip_model: TwoTowers, classnames: list[str], template: str) -> Tensor:
    """Encodes every class with one template: (C, E) float32, not normalised."""
    texts = [template.format(name.replace("_", " ")) for name in classnames]
    tokens = clip_model.tokenizer(texts).to(clip_model.logit_scale.device)
    return torch.cat([clip_model.encode_text(part) for part in tokens.split(TEXTS_AT_ONCE)]).float()
