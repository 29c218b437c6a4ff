"""From a model and a tokenizer of open_clip to ours.

The image tower stays open_clip's module. A text tower of ordinary blocks is copied into ours, whose keys are the same;
any other stays open_clip's, and takes no context vectors.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks import ResidualAttentionBlock
from ..simple_tokenizer import END, VOCAB_SIZE
from ..tokens import ClipTokenizer, OtherTokenizer, Tokenizer
from ..tokens import tokenizer as clip_bpe
from ..two_towers import ClosedTowers, ForeignTower, Preprocessing, TwoTowers
from .open_clip_files import import_open_clip

POOLING = {"argmax": "end", "eos": "end", "last": "last", "first": "first"}  # open_clip's words for where it is read
ORDINARY = set(ResidualAttentionBlock(8, 1).state_dict())


def convert(
    model: nn.Module, tokenizer: Any, preprocessing: Preprocessing, config: dict[str, Any]
) -> TwoTowers | ClosedTowers:
    """Returns our model of open_clip's.

    Args:
        model: A CustomTextCLIP or CoCa of open_clip's, float32.
        tokenizer: open_clip's of it.
        preprocessing: Of its image tower.
        config: open_clip's of it.
    """
    embed_dim = config["embed_dim"]
    for tower in (model.visual, model.text):
        tower.output_tokens = False  # CoCa's give tokens, too, which feed its decoder
    visual = ForeignTower(model.visual, embed_dim, preprocessing.size, json.dumps(config["vision_cfg"], sort_keys=True))
    closed = _why_closed(model)
    read_at_end = not closed and POOLING[model.text.pool_type] == "end"
    tokens, end = convert_tokenizer(tokenizer, read_at_end=read_at_end)
    if read_at_end:
        closed = _why_not_at_end(model.text, end, _largest_id(tokenizer))
    if closed:
        text = ForeignTower(model.text, embed_dim)
        towers = ClosedTowers(visual, text, tokens, preprocessing, closed)
    else:
        towers = _open_towers(model.text, visual, tokenizer=tokens, preprocessing=preprocessing)
    towers.logit_scale.data = model.logit_scale.data.reshape([])  # some have one number, some a vector of one
    towers.logit_bias = None if model.logit_bias is None else model.logit_bias.item()
    return towers


def _why_closed(model: nn.Module) -> str:
    """Why our blocks cannot express a text tower, see ClosedTowers.closed; "": they can."""
    text = model.text
    if isinstance(text, import_open_clip().hf_model.HFTextEncoder):
        return f"is a model of transformers, of type {text.config.model_type}"
    if hasattr(model, "text_decoder"):
        return "ends in a token that also feeds a decoder: it is CoCa's"
    if text.cls_emb is not None:
        return "is read at a token of its own behind the text"
    if getattr(text, "use_pad_mask", False):
        return "hides the padding from the text"
    if text.attn_mask is not None and not _is_causal(text.attn_mask):
        return "has a mask that is not causal"
    if text.pool_type not in POOLING:
        return f"is pooled by {text.pool_type!r}"
    block = text.transformer.resblocks[0]
    if differing := sorted(ORDINARY ^ set(block.state_dict())):
        return f"has other blocks than CLIP's: they differ in {', '.join(differing[:2])}"
    if not _activation(block):
        return f"has the activation {type(block.mlp.gelu).__name__}"
    return ""


def _is_causal(mask: Tensor) -> bool:
    return torch.equal(mask.float(), torch.full(mask.shape, -math.inf).triu(1))


def _activation(block: nn.Module) -> str:
    """A name in ACTIVATIONS of clip/blocks.py; "": none of them."""
    gelu = block.mlp.gelu
    if isinstance(gelu, import_open_clip().transformer.QuickGELU):
        return "quick_gelu"
    return {"none": "gelu", "tanh": "gelu_tanh"}.get(gelu.approximate, "") if type(gelu) is nn.GELU else ""


def _why_not_at_end(text: nn.Module, end: int, largest: int) -> str:
    """Why a tower is not read at the end token that its tokenizer sets, see ClosedTowers.closed; "": it is."""
    if text.pool_type == "eos" and text.eos_id != end:
        return f"is read at token {text.eos_id}, but its tokenizer ends a text with token {end}"
    if text.pool_type == "argmax" and largest != end:
        return f"is read at the largest token of a text, but its tokenizer ends a text with token {end} of {largest}"
    return ""


def _largest_id(tokenizer: Any) -> int:
    vocabulary = tokenizer.encoder if _is_simple(tokenizer) else tokenizer.tokenizer.get_vocab()
    return max(vocabulary.values())


def _is_simple(tokenizer: Any) -> bool:
    return isinstance(tokenizer, import_open_clip().SimpleTokenizer)


def _open_towers(text: nn.Module, visual: ForeignTower, **parts) -> TwoTowers:
    block, positions = text.transformer.resblocks[0], text.positional_embedding
    towers = TwoTowers(
        visual,
        embed_dim=visual.output_dim,
        context_length=positions.shape[0],
        vocab_size=text.token_embedding.num_embeddings,
        width=positions.shape[1],
        heads=block.attn.num_heads,
        layers=len(text.transformer.resblocks),
        causal=text.attn_mask is not None,
        pooling=POOLING[text.pool_type],
        projection_bias=getattr(text.text_projection, "bias", None) is not None,
        activation=_activation(block),
        mlp_width=block.mlp.c_fc.out_features,
        eps=block.ln_1.eps,
        **parts,
    )
    missing, unknown = towers.load_state_dict(_weights(text), strict=False)
    assert not unknown and all(key.startswith(("visual.", "logit_scale")) for key in missing), (missing, unknown)
    return towers


def _weights(text: nn.Module) -> dict[str, Tensor]:
    """The state dict of a text tower with its projection as a matrix (W, E) and, where it has one, a bias."""
    weights = {key: value for key, value in text.state_dict().items() if not key.startswith("text_projection")}
    projection = text.text_projection
    if projection is None:
        weights["text_projection"] = torch.eye(text.positional_embedding.shape[1])  # W = E: multiplies by 1, exactly
    elif isinstance(projection, nn.Linear):
        weights["text_projection"] = projection.weight.T
        if projection.bias is not None:
            weights["text_projection_bias"] = projection.bias
    else:
        weights["text_projection"] = projection
    return weights


def convert_tokenizer(tokenizer: Any, *, read_at_end: bool) -> tuple[Tokenizer, int]:
    """Returns our tokenizer of open_clip's, and the id behind a text's own tokens.

    Args:
        tokenizer: A SimpleTokenizer, HFTokenizer or SigLipTokenizer of open_clip's.
        read_at_end: Whether the text tower is read at the end token.
    """
    length, clean_fn = tokenizer.context_length, import_open_clip().tokenizer.get_clean_fn
    if _is_simple(tokenizer):
        if _is_clip_like(tokenizer):
            return ClipTokenizer(length), clip_bpe().encoder[END]
        encode, n_special = tokenizer.encode, 2
        special = set(tokenizer.all_special_ids)
    else:
        inner = tokenizer.tokenizer
        clean = getattr(tokenizer, "clean_fn", clean_fn("canonicalize"))  # SigLipTokenizer's way has no name

        def encode(text: str) -> list[int]:
            return inner(clean(text), add_special_tokens=False).input_ids

        own = len(encode("x"))
        n_special = 3 if getattr(tokenizer, "tokenizer_mode", "") == "clips" else len(inner("x").input_ids) - own
        kinds = ("bos", "eos", "sep", "cls", "pad")  # not the unknown token, which a name may hold
        special = {getattr(inner, f"{kind}_token_id", None) for kind in kinds} - {None}
    options = {"special": special, "n_special": n_special}
    tokens = OtherTokenizer(tokenizer, encode, length, **options)
    end = int(tokens([tokens.placeholder])[0, tokens.n_start + 1])
    tokens.end = end if read_at_end else None
    return tokens, end


def _is_clip_like(tokenizer: Any) -> bool:
    """Whether a SimpleTokenizer makes the ids that ours makes."""
    same_ids = tokenizer.vocab_size == VOCAB_SIZE and tokenizer.bpe_ranks == clip_bpe().bpe_ranks
    lower = import_open_clip().tokenizer.get_clean_fn("lower")
    return same_ids and tokenizer.clean_fn is lower and tokenizer.reduction_fn is None
