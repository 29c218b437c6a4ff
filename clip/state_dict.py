"""What a state dict in OpenAI's layout says about its CLIP: the sizes, and whether it is whole."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .blocks import ACTIVATIONS, HEAD_DIM
from .simple_tokenizer import VOCAB_SIZE

WIDEST = {"ViT": 1024, "ResNet": 4096, "text": 1024}  # of OpenAI's towers, where heads are
VIT, RESNET = ("visual.transformer.", "visual.class_embedding", "visual.proj"), ("visual.layer", "visual.attnpool.")
HF_KEYS = ("vision_model.", "text_model.")
WITH_ARCHITECTURE = "Name the architecture, too: open_clip:ARCHITECTURE/PATH"
NO_TEXT = "Name a CLIP, which has a text tower, too"
OTHER_LAYOUTS = {  # beginnings of keys -> whose they are, what to do
    HF_KEYS: (
        "those of Hugging Face's CLIP",
        "Put the config.json that belongs to it beside it, or name hf:FOLDER or hf:OWNER/NAME",
    ),
    ("visual.trunk.",): ("those of an open_clip model with an image tower of timm's", WITH_ARCHITECTURE),
    ("text.",): ("those of an open_clip model with its text tower under `text.`", WITH_ARCHITECTURE),
    ("patch_embed.", "cls_token", "blocks."): ("those of timm's ViT, an image tower alone", NO_TEXT),
    ("conv_proj.", "class_token", "encoder.layers."): ("those of torchvision's ViT, an image tower alone", NO_TEXT),
}
STATE = (
    'State both MODEL.BACKBONE.HEADS, such as "(16, 12)" of the image and the text tower, and '
    "MODEL.BACKBONE.ACTIVATION, or name the architecture: open_clip:ARCHITECTURE/PATH"
)
OPENAI_LAYOUT = (
    "It must hold a whole CLIP in OpenAI's layout: name one of OpenAI's models, or give a file with OpenAI's key names"
)


def check_stated(heads: Sequence[int], activation: str) -> None:
    """Raises a ValueError if what was stated of a CLIP is nothing that a CLIP can have; () and "": nothing was."""
    if heads and (len(heads) != 2 or not all(isinstance(n, int) and n > 0 for n in heads)):
        raise ValueError(
            f"MODEL.BACKBONE.HEADS is {heads}; it must be the numbers of attention heads of the image tower and of the "
            'text tower, such as "(16, 12)". Or leave it out.'
        )
    if activation and activation not in ACTIVATIONS:
        raise ValueError(
            f"MODEL.BACKBONE.ACTIVATION is {activation!r}; it must be one of: {', '.join(ACTIVATIONS)}. Or leave it "
            "out."
        )


def infer_sizes(state_dict: dict[str, Tensor], heads: Sequence[int] = (), activation: str = "") -> dict:
    """CLIP's arguments: what the shapes of a state dict say, and what they leave open as stated, or by OpenAI's rules.

    Args:
        heads: numbers of attention heads of the image tower and of the text tower; (): one for each 64 of a width.
        activation: a name in ACTIVATIONS; "": QuickGELU.

    Raises:
        ValueError: it is no CLIP in OpenAI's layout; or OpenAI has no tower so wide, and not both are stated.
    """
    check_stated(heads, activation)
    _check_layout(state_dict)
    vision, text = heads or (0, 0)
    if any(key.startswith(VIT) for key in state_dict):
        vision_width, _, patch_size, _ = _shape(state_dict, "visual.conv1.weight", 4)
        vision_layers = _count_blocks(state_dict, "visual.transformer.resblocks.")
        image_resolution = patch_size * _grid_edge(state_dict, "visual.positional_embedding")
        vision_heads = _heads("visual.conv1.weight", "ViT", vision_width, vision, activation)
    else:
        vision_width, patch_size = _shape(state_dict, "visual.layer1.0.conv1.weight", 4)[0], None
        vision_layers = tuple(_count_blocks(state_dict, f"visual.layer{stage}.") for stage in (1, 2, 3, 4))
        image_resolution = 32 * _grid_edge(state_dict, "visual.attnpool.positional_embedding")
        vision_heads = _heads("visual.layer1.0.conv1.weight", "ResNet", vision_width * 32, vision, activation)
    context_length, transformer_width = _shape(state_dict, "positional_embedding", 2)
    transformer_heads = _heads("positional_embedding", "text", transformer_width, text, activation)
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
        "transformer_heads": transformer_heads,
        "transformer_layers": _count_blocks(state_dict, "transformer.resblocks."),
        "vision_heads": vision_heads,
        "activation": activation or "quick_gelu",
    }


def _check_layout(state_dict: dict[str, Tensor]) -> None:
    """Raises a ValueError that says what a state dict is, where it is something known that is no CLIP of OpenAI's."""
    for beginnings, (whose, remedy) in OTHER_LAYOUTS.items():
        if any(key.startswith(beginnings) for key in state_dict):
            example = next(key for key in state_dict if key.startswith(beginnings))
            raise _misfit(f"has the keys `{example}` and the like, {whose}", remedy)
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


def _heads(key: str, tower: str, width: int, stated: int, activation: str) -> int:
    """A tower's number of heads: as stated, or by OpenAI's rule where OpenAI has towers of such a width."""
    if width < 1 or width % (stated or HEAD_DIM):
        what = f"{stated} heads do not divide" if stated else f"is no multiple of {HEAD_DIM}, a head's width"
        raise _misfit(f"has {key} of a tower that is {width} wide, which {what}", OPENAI_LAYOUT if stated else STATE)
    if (width > WIDEST[tower] or width % HEAD_DIM) and not (stated and activation):
        kind = "a text" if tower == "text" else "an image"
        raise _misfit(
            f"has {kind} tower {width:,} wide. OpenAI's are at most {WIDEST[tower]:,} wide, with heads of {HEAD_DIM} "
            "and QuickGELU; others, as open_clip's ViT-H, ViT-g and ViT-bigG, have other heads: other features would "
            "be computed",
            STATE,
        )
    return stated or width // HEAD_DIM


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


def _misfit(problem: str, remedy: str = OPENAI_LAYOUT) -> ValueError:
    return ValueError(f"The state dict {problem}. {remedy}.")
