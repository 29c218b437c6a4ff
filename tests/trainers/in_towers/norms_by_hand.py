"""CLIP with layer norms of other values, on the plain towers and all 77 positions of every prompt, in any precision."""

import copy

import torch
from torch.func import functional_call

from clip.clip import tokenize

BLOCKS = {"text": "transformer.resblocks.", "vision": "visual.transformer.resblocks."}
AROUND = {"text": "", "vision": "visual."}


def key_of(name):
    """The entry of CLIP's state dict for a learned "text.0.ln_1.weight" or "vision.ln_pre.bias"."""
    tower, _, rest = name.partition(".")
    return (BLOCKS if rest[0].isdigit() else AROUND)[tower] + rest


def spread(trainer):
    """Moves every layer norm away from CLIP's; returns the trainer."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in trainer.model.prompt_learner.named_parameters():
            if ".ln_" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return trainer


def naive_features(trainer, leaves, images, classnames, dtype):
    """Normalised features of images (B, E) and of written prompts (C, E)."""
    plain = copy.deepcopy(trainer.clip_model).to(dtype)
    norms = {key_of(name): value for name, value in leaves.items() if ".ln_" in name}
    weights = {**plain.state_dict(), **norms}
    tokens = tokenize([f"a photo of a {name.replace('_', ' ')}." for name in classnames])
    plain.forward = lambda: (plain.encode_image(images.to(dtype)), plain.encode_text(tokens))
    return tuple(x / x.norm(dim=-1, keepdim=True) for x in functional_call(plain, weights, ()))
