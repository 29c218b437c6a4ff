"""CLIP's towers against the golden features, open_clip and the formulas."""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.clip import tokenize
from clip.model import CLIP, LayerNorm, ModifiedResNet, build_model, convert_weights
from clip.prepared import prepare
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tolerance import EXACT, GOLDEN_TOLERANCE, assert_near

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())
NAMES = GOLDEN["classnames"]
KINDS = ["vit", "rn"]
TEXTS = ["a photo of a cat.", "x", "", "a very long description of a dog " * 9, "two words"]


@lru_cache
def golden_model(kind: str, dtype: torch.dtype = torch.float32) -> CLIP:
    return build_model(golden_state_dict(kind)).requires_grad_(False).to(dtype)


# --- features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_golden_ones(kind):
    model, tokens = golden_model(kind), tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    expected = torch.tensor(GOLDEN[kind]["image_features"]).view(6, 32)
    assert_near(model.encode_image(golden_images(kind)), expected, GOLDEN_TOLERANCE)
    expected = torch.tensor(GOLDEN[kind]["text_features_a_photo_of_a"]).view(9, 32)
    assert_near(model.encode_text(tokens), expected, GOLDEN_TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_open_clips(kind):
    open_clip_model = pytest.importorskip("open_clip.model", reason="open_clip_torch is not installed")
    other = open_clip_model.build_model_from_openai_state_dict(golden_state_dict(kind)).float()
    images, tokens = 2 * golden_images(kind) + 1, tokenize(TEXTS)
    with torch.no_grad():
        image_features, text_features = other.encode_image(images), other.encode_text(tokens)
    model = golden_model(kind)  # float32, as open_clip's layer norms always are
    assert_near(model.encode_image(images), image_features)
    assert_near(model.encode_text(tokens), text_features)


def resnet_by_formula(tower: nn.Module, x: Tensor) -> Tensor:
    """The features (B, D) of a ResNet, loaded or prepared, where no operation writes over its input."""
    for conv, bn in ((tower.conv1, tower.bn1), (tower.conv2, tower.bn2), (tower.conv3, tower.bn3)):
        x = F.relu(bn(conv(x)))
    x = tower.avgpool(x)
    for block in (*tower.layer1, *tower.layer2, *tower.layer3, *tower.layer4):
        y = F.relu(block.bn1(block.conv1(x)))
        y = F.relu(block.bn2(block.conv2(y)))
        y = block.bn3(block.conv3(block.avgpool(y)))
        x = F.relu(y + (x if block.downsample is None else block.downsample(x)))
    return tower.attnpool(x)


@pytest.mark.parametrize("make", [nn.Identity(), prepare], ids=["loaded", "prepared"])
def test_what_a_resnet_computes_in_place_has_the_bits_and_gradients_of_the_formula(make):
    tower = ModifiedResNet((2, 1, 1, 2), 32, 4, 64, 8).eval()
    torch.manual_seed(1)
    for norm in (module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor, start in ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)):
            nn.init.uniform_(tensor, start - 0.5, start + 0.5)
    tower, images = make(tower), torch.randn(2, 3, 64, 64, requires_grad=True)
    before, inputs = images.detach().clone(), (images, *(w for w in tower.parameters() if w.requires_grad))
    features, expected = tower(images), resnet_by_formula(tower, images)
    assert torch.equal(features, expected)
    assert torch.equal(images, before)
    options = {"materialize_grads": True}  # the prepared pool needs no bias of its keys
    gradients = [torch.autograd.grad(x.square().sum(), inputs, **options) for x in (features, expected)]
    assert gradients[0][0].any()
    assert all(map(torch.equal, *gradients))


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated, and warns of every number that it keeps
@pytest.mark.parametrize("kind", KINDS)
def test_a_traced_tower_takes_other_batches(kind):
    """As torch.onnx traces it: of one image, of one short text."""
    model, images, tokens = golden_model(kind), golden_images(kind), tokenize(TEXTS)
    visual = torch.jit.trace(model.visual, images[:1])
    assert_near(visual(images), model.encode_image(images))
    encode_text = torch.jit.trace_module(model, {"encode_text": tokens[1:2]}).encode_text
    assert_near(encode_text(tokens), model.encode_text(tokens))


def test_forward_is_scaled_cosine_similarity():
    model, images, tokens = golden_model("vit", torch.float64), golden_images("vit").double(), tokenize(TEXTS)
    image_features, text_features = model.encode_image(images), model.encode_text(tokens)
    cosines = F.cosine_similarity(image_features[:, None], text_features[None], dim=-1)
    per_image, per_text = model(images, tokens)
    assert_near(per_image, golden_state_dict("vit")["logit_scale"].double().exp() * cosines, EXACT)
    assert torch.equal(per_text, per_image.t())


# --- the text tower --------------------------------------------------------------------------------------------------


def encode_all_77_positions(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """Text features by the formula, over every position, with attention written out."""
    x = model.token_embedding(tokens) + model.positional_embedding  # (C, L, W)
    hidden = torch.full((77, 77), float("-inf"), dtype=x.dtype).triu(1)
    for block in model.transformer.resblocks:
        q, k, v = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        attention = (q @ k.transpose(1, 2) * 64**-0.5 + hidden).softmax(dim=-1)
        x = x + block.attn.out_proj(attention @ v)
        h = block.mlp.c_fc(block.ln_2(x))
        x = x + block.mlp.c_proj(h * torch.sigmoid(1.702 * h))
    return (model.ln_final(x) @ model.text_projection)[torch.arange(len(x)), tokens.argmax(dim=-1)]


def test_columns_after_the_last_eot_are_skipped_exactly():
    model, tokens = golden_model("vit", torch.float64), tokenize(TEXTS)
    expected = encode_all_77_positions(model, tokens)
    assert_near(model.encode_text(tokens), expected, EXACT)
    assert_near(model.encode_text(tokens[[0, 1, 4]]), expected[[0, 1, 4]], EXACT)


def test_columns_after_the_last_eot_are_not_computed():
    model, seen = golden_model("vit"), []
    hook = model.transformer.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    model.encode_text(tokenize(["a photo of a cat.", "x"]))
    hook.remove()
    assert seen == [(8, 2, 64)]  # start, six tokens, end


@pytest.mark.parametrize(
    "encode",
    [
        lambda model: model.encode_text(torch.ones(2, 78, dtype=torch.int)),
        lambda model: model.transformer(torch.zeros(78, 2, 64)),
    ],
)
def test_a_sequence_longer_than_the_context_is_refused(encode):
    with pytest.raises(ValueError, match="78 tokens long; the text tower takes at most 77"):
        encode(golden_model("vit"))


# --- precision -------------------------------------------------------------------------------------------------------


def test_layer_norm_computes_in_float32():
    x = 100 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).half()
    result = LayerNorm(64)(x)
    assert result.dtype == torch.float16
    assert torch.equal(result, F.layer_norm(x.float(), (64,)).half())


@pytest.mark.parametrize("kind", KINDS)
def test_convert_weights_leaves_norms_and_embeddings_in_float32(kind):
    model = build_model(golden_state_dict(kind))
    convert_weights(model)
    assert model.dtype == torch.float16
    for key, value in model.state_dict().items():
        kept = ("ln_", "bn", "embedding", "logit_scale", "downsample.1.", "num_batches_tracked")
        expected = golden_state_dict(kind)[key].dtype if any(part in key for part in kept) else torch.float16
        assert value.dtype == expected, key
