"""Hand-made prompts: the features of classes by them, and two sets for ensembling, CLIP's 80 for ImageNet and seven.

Source: the prompt-engineering notebook of CLIP's authors, https://github.com/openai/CLIP (MIT License, Copyright (c)
2021 OpenAI), which found the seven by forward selection among the 80.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.two_towers import TwoTowers

TEXTS_AT_ONCE = 1024  # bounds memory: 80 templates of 1,000 classes are 80,000 texts

IMAGENET_TEMPLATES_SELECT = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

IMAGENET_TEMPLATES = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)


def ensemble_features(clip_model: TwoTowers, classnames: list[str], templates: tuple[str, ...]) -> Tensor:
    """Encodes every class with every template and averages the normalised features.

    Args:
        clip_model: The CLIP.
        classnames: C names; underscores are read as spaces.
        templates: K prompts with `{}` for the name.

    Returns:
        (C, E) float32, normalised.
    """
    device = clip_model.logit_scale.device
    mean = 0
    for template in templates:
        tokens = clip_model.tokenizer([template.format(name.replace("_", " ")) for name in classnames]).to(device)
        features = torch.cat([clip_model.encode_text(part) for part in tokens.split(TEXTS_AT_ONCE)]).float()
        mean = mean + F.normalize(features, dim=-1) / len(templates)
    return F.normalize(mean, dim=-1)
