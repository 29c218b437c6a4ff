"""The towers of transformers' two-tower models: its own modules, or its weights in our blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..tokens import Tokenizer
from ..two_towers import ForeignTower, Preprocessing, TwoTowers

ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}


class ImageTower(nn.Module):
    """(B, 3, R, R) -> (B, E): transformers' image tower and its projection."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.vision_model = model.vision_model
        self.projection = getattr(model, "visual_projection", nn.Identity())

    def forward(self, image: Tensor) -> Tensor:
        return self.projection(self.vision_model(pixel_values=image).pooler_output)


class TextTower(nn.Module):
    """(C, L) -> (C, E): transformers' text tower and its projection.

    Args:
        model: The whole model, whose image tower is taken out.
        pad: id of the padding, which is hidden from the other tokens; None: nothing is.
    """

    def __init__(self, model: nn.Module, pad: int | None):
        super().__init__()
        model.vision_model, model.visual_projection = None, None
        self.model, self.pad = model, pad

    def forward(self, tokens: Tensor) -> Tensor:
        mask = None if self.pad is None else tokens != self.pad
        return self.model.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output


def open_towers(
    kind: str, model: nn.Module, visual: ForeignTower, tokens: Tokenizer, preprocessing: Preprocessing
) -> TwoTowers:
    """Returns the model with its text tower in our blocks."""
    text, is_siglip = model.config.text_config, kind == "siglip"
    towers = TwoTowers(
        visual,
        embed_dim=visual.output_dim,
        context_length=text.max_position_embeddings,
        vocab_size=text.vocab_size,
        width=text.hidden_size,
        heads=text.num_attention_heads,
        layers=text.num_hidden_layers,
        causal=not is_siglip,
        pooling="last" if is_siglip else "end",
        projection_bias=is_siglip,
        tokenizer=tokens,
        preprocessing=preprocessing,
        activation=ACTIVATIONS[text.hidden_act],
        mlp_width=text.intermediate_size,
        eps=text.layer_norm_eps,
    )
    projection = model.text_model.head if is_siglip else model.text_projection
    ours = text_weights(model.text_model, projection)
    missing, unexpected = towers.load_state_dict(ours, strict=False)
    missing = [key for key in missing if not key.startswith("visual.") and key != "logit_scale"]
    assert not missing and not unexpected, f"not converted: {missing}, {unexpected}"
    return towers


def text_weights(tower: nn.Module, projection: nn.Linear) -> dict[str, Tensor]:
    """Returns the weights of a text tower of transformers under the names of TwoTowers."""
    theirs, ours = tower.state_dict(), {"text_projection": projection.weight.t()}
    if projection.bias is not None:
        ours["text_projection_bias"] = projection.bias
    renamed = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    }
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for i in range(len(tower.encoder.layers)):
        block, layer = f"transformer.resblocks.{i}", f"encoder.layers.{i}"
        for end in ("weight", "bias"):
            renamed |= {f"{block}.{our}.{end}": f"{layer}.{their}.{end}" for our, their in parts.items()}
            qkv = [theirs[f"{layer}.self_attn.{part}_proj.{end}"] for part in "qkv"]
            ours[f"{block}.attn.in_proj_{end}"] = torch.cat(qkv)
    return {**ours, **{our: theirs[their] for our, their in renamed.items()}}
