"""Vectors before the blocks of both towers, of 12 thin blocks, against the plain computation: values and gradients."""

from functools import lru_cache

import pytest
import torch

from clip.model import CLIP, convert_weights
from clip.prompt_layout import lay_out
from clip.prompts import PromptEncoder
from tests.support.naive import naive_features, naive_image_features
from tests.support.tolerance import EXACT, NAMES, assert_near

N_BLOCKS, WIDTH = 12, 16
DEPTHS, N_VECTORS = (1, 3, 9, 12), (1, 2, 4)
IN_FLOAT32 = 1e-5
pytestmark = pytest.mark.usefixtures("both_attentions")
DTYPES = {torch.float32: IN_FLOAT32, torch.float64: EXACT}


@lru_cache
def clip_model(dtype=torch.float64):
    """Towers of two heads. Their weights are drawn so large that no block is nearly the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = {"context_length": 77, "vocab_size": 49408, "transformer_width": WIDTH, "transformer_heads": 2}
        image = {"image_resolution": 32, "vision_patch_size": 8, "vision_width": WIDTH, "vision_heads": 2}
        model = CLIP(embed_dim=8, vision_layers=N_BLOCKS, transformer_layers=N_BLOCKS, **image, **text)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(std=0.2 * (16 / parameter.shape[-1]) ** 0.5)
    return model.eval().requires_grad_(False).to(dtype)


def draw(*shape):
    """float64, but float32 holds every number."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).mul(0.3).double()


def outcome(encode, vectors, dtype):
    """Features, and the gradients of a scalar that weighs each of them differently by all vectors."""
    leaves = [vector.to(dtype, copy=True).requires_grad_() for vector in vectors]
    features = encode(leaves)
    (features * draw(*features.shape).to(dtype)).sum().backward()
    return [features.detach(), *(leaf.grad for leaf in leaves)]


@lru_cache
def names_of(n_classes):
    return tuple(f"{NAMES[c % len(NAMES)]} {'old ' * (c % 3)}{c}" for c in range(n_classes))


@pytest.mark.parametrize("n_classes", [3, pytest.param(100, marks=pytest.mark.slow)], ids=lambda n: f"C{n}")
@pytest.mark.parametrize("n_vectors", N_VECTORS, ids=lambda n: f"M{n}")
@pytest.mark.parametrize("depth", DEPTHS, ids=lambda n: f"J{n}")
def test_the_text_tower(depth, n_vectors, n_classes):
    """Two fixed words stand between the vectors and the name: what replaces the vectors leaves them."""
    names, vectors, words = (
        names_of(n_classes),
        [draw(n_vectors, WIDTH), *draw(depth - 1, n_vectors, WIDTH)],
        draw(2, 16),
    )

    def naive(leaves):
        ctx = torch.cat([leaves[0], words])
        return naive_features(clip_model(), ctx, names, "end", leaves[1:])

    expected = outcome(naive, vectors, torch.float64)
    for dtype, tolerance in DTYPES.items():
        encoder = PromptEncoder(clip_model(dtype), lay_out(list(names), n_vectors + 2))

        def fast(leaves, encoder=encoder, dtype=dtype):
            return encoder(torch.cat([leaves[0], words.to(dtype)]), leaves[1:])

        assert_near(outcome(fast, vectors, dtype), expected, tolerance)


@pytest.mark.parametrize("n_vectors", N_VECTORS, ids=lambda n: f"K{n}")
@pytest.mark.parametrize("depth", DEPTHS, ids=lambda n: f"J{n}")
def test_the_image_tower(depth, n_vectors):
    images, vectors = draw(2, 3, 32, 32), list(draw(depth, n_vectors, WIDTH))
    expected = outcome(lambda leaves: naive_image_features(clip_model(), images, leaves), vectors, torch.float64)
    for dtype, tolerance in DTYPES.items():
        found = outcome(lambda leaves, dtype=dtype: clip_model(dtype).visual(images.to(dtype), leaves), vectors, dtype)
        assert_near(found, expected, tolerance)


def test_an_image_tower_without_vectors_is_clips():
    images = draw(2, 3, 32, 32)
    assert_near(clip_model().visual(images), naive_image_features(clip_model(), images), EXACT)


def test_vectors_in_float32_enter_a_tower_in_bfloat16():
    model = CLIP(8, 32, 2, WIDTH, 8, 77, 49408, WIDTH, 2, 2, vision_heads=2).eval()
    convert_weights(model, torch.bfloat16)
    assert model.visual(draw(2, 3, 32, 32), list(draw(2, 3, WIDTH).float())).dtype == torch.bfloat16


def test_more_vectors_than_blocks_are_an_error():
    with pytest.raises(AssertionError, match="prompts before 13 blocks; there are 12"):
        clip_model().visual(draw(1, 3, 32, 32), list(draw(13, 2, WIDTH)))
