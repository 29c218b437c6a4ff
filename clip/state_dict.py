"""What a state dict in OpenAI's layout says about its CLIP: the sizes, and whether it is whole."""

import math

import torch
from torch import Tensor

from .simple_tokenizer import VOCAB_SIZE

HEAD_DIM = 64  # width of one attention head in every OpenAI CLIP, in both towers
WIDEST_VIT = 1024  # OpenAI's ViT-L/14; open_clip's wider ones (ViT-H, ViT-g, ViT-bigG) have heads of 80 to 112
VIT, RESNET = ("visual.transformer.", "visual.class_embedding", "visual.proj"), ("visual.layer", "visual.attnpool.")
OTHER_LAYOUTS = {  # beginnings of keys -> whose they are
    ("vision_model.", "text_model."): "those of Hugging Face's CLIP",
    ("visual.trunk.",): "those of an open_clip model with an image tower of timm's",
    ("text.",): "those of an open_clip model with its text tower under `text.`",
    ("patch_embed.", "cls_token", "blocks."): "those of timm's ViT, an image tower alone",
    ("conv_proj.", "class_token", "encoder.layers."): "those of torchvision's ViT, an image tower alone",
}


def infer_sizes(state_dict: dict[str, Tensor]) -> dict:
    """CLIP's arguments, read from the shapes of a state dict."""
    _check_layout(state_dict)
    if any(key.startswith(VIT) for key in state_dict):
        vision_width, _, patch_size, _ = _shape(state_dict, "visual.conv1.weight", 4)
        vision_layers = _count_blocks(state_dict, "visual.transformer.resblocks.")
        image_resolution = patch_size * _grid_edge(state_dict, "visual.positional_embedding")
        _check_heads("visual.conv1.weight", vision_width)
        if vision_width > WIDEST_VIT:
            raise _misfit(
                f"has an image tower {vision_width:,} wide. OpenAI's are at most {WIDEST_VIT:,} wide, with heads of "
                f"{HEAD_DIM}; wider ones, as open_clip's ViT-H, ViT-g and ViT-bigG, have wider heads: other features "
                "would be computed"
            )
    else:
        vision_width, patch_size = _shape(state_dict, "visual.layer1.0.conv1.weight", 4)[0], None
        vision_layers = tuple(_count_blocks(state_dict, f"visual.layer{stage}.") for stage in (1, 2, 3, 4))
        image_resolution = 32 * _grid_edge(state_dict, "visual.attnpool.positional_embedding")
        _check_heads("visual.layer1.0.conv1.weight", vision_width * 32)
    context_length, transformer_width = _shape(state_dict, "positional_embedding", 2)
    _check_heads("positional_embedding", transformer_width)
    vocab_size = _shape(state_dict, "token_embedding.weight", 2)[0]
    if vocab_size != VOCAB_SIZE:
        raise _misfit(f"has {vocab_size:,} tokens, so it belongs to another tokenizer than OpenAI's ({VOCAB_SIZE:,})")
    return {
        "embed_dim": _shape(state_dict, "text_projection", 2)[1],
        "image_resolution": image_resolution,
        "vision_layers": vision_layers,
        "vision_width": vision_width,
        "vision_patch_size": patch_size,
        "context_length": context_length,
        "vocab_size": vocab_size,
        "transformer_width": transformer_width,
        "transformer_heads": transformer_width // HEAD_DIM,
        "transformer_layers": _count_blocks(state_dict, "transformer.resblocks."),
    }


def _check_layout(state_dict: dict[str, Tensor]) -> None:
    """Raises a ValueError that says what a state dict is, where it is something known that is no CLIP of OpenAI's."""
    for beginnings, whose in OTHER_LAYOUTS.items():
        if any(key.startswith(beginnings) for key in state_dict):
            example = next(key for key in state_dict if key.startswith(beginnings))
            raise _misfit(f"has the keys `{example}` and the like, {whose}")
    if not any(key.startswith("visual.") for key in state_dict):
        raise _misfit(
            f"has no image tower, whose keys begin with `visual.`; its first key is `{min(state_dict, default='')}`"
        )
    if all(key.startswith("visual.") for key in state_dict):
        raise _misfit("has an image tower alone, no text tower")
    if not any(key.startswith((*VIT, *RESNET)) for key in state_dict):
        example = min(key for key in state_dict if key.startswith("visual."))
        raise _misfit(f"has an image tower that is neither OpenAI's ViT nor ResNet: its first key is `{example}`")


def _shape(state_dict: dict[str, Tensor], key: str, n_dims: int) -> torch.Size:
    if key not in state_dict:
        raise _misfit(f"has no {key}")
    shape = state_dict[key].shape
    if len(shape) != n_dims:
        raise _misfit(f"has {key} of shape {tuple(shape)}, which has not {n_dims} dimensions")
    return shape


def _grid_edge(state_dict: dict[str, Tensor], key: str) -> int:
    """Edge of the square of positions that an embedding (1 + edge ** 2, W) stands for."""
    n_positions = _shape(state_dict, key, 2)[0] - 1
    edge = math.isqrt(max(n_positions, 0))
    if edge == 0 or edge**2 != n_positions:
        raise _misfit(f"has {key} of {n_positions + 1} rows, which is no square of positions plus one")
    return edge


def _count_blocks(state_dict: dict[str, Tensor], prefix: str) -> int:
    n_blocks = len({key[len(prefix) :].split(".")[0] for key in state_dict if key.startswith(prefix)})
    if n_blocks == 0:
        raise _misfit(f"has no {prefix}0")
    return n_blocks


def _check_heads(key: str, width: int) -> None:
    if width == 0 or width % HEAD_DIM:
        raise _misfit(f"has {key} of a tower that is {width} wide, which is no multiple of {HEAD_DIM}, a head's width")


def check_mask(state_dict: dict[str, Tensor]) -> None:
    """Raises a ValueError if a state dict carries an attention mask that is not the text tower's causal one."""
    mask = state_dict.get("attn_mask")
    if mask is not None and not torch.equal(mask.float(), torch.full(mask.shape, -math.inf).triu(1)):
        raise _misfit("has an attn_mask that is not causal, as the mask of OpenAI's text tower is; strip a wrong one")


def check_fit(state_dict: dict[str, Tensor], reference: dict[str, Tensor]) -> None:
    """Raises a ValueError if keys or shapes differ from those of a reference."""
    problems = [f"has no {key}" for key in reference if key not in state_dict]
    problems += [f"has the unknown key {key}" for key in state_dict if key not in reference]
    problems += [
        f"has {key} of shape {tuple(state_dict[key].shape)} instead of {tuple(value.shape)}"
        for key, value in reference.items()
        if key in state_dict and state_dict[key].shape != value.shape
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise _misfit("; ".join(problems[:3]) + more)


def _misfit(problem: str) -> ValueError:
    return ValueError(
        f"The state dict {problem}. It must hold a whole CLIP in OpenAI's layout: name one of OpenAI's models, or give "
        "a file with OpenAI's key names."
    )
