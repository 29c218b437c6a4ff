"""Prompts of words through a text tower whose own weights are learned, against all positions of every prompt."""

from functools import lru_cache

import pytest
import torch

from clip.clip import tokenize
from clip.model import CLIP
from clip.plain_prompts import PlainPromptEncoder
from clip.prompt_layout import lay_out, lay_out_words
from clip.prompts import PromptEncoder
from tests.clip.test_class_prompts import MANY
from tests.clip.test_plain_prompts import NAMES as OTHER_NAMES
from tests.clip.test_plain_prompts import towers
from tests.support.naive import naive_features
from tests.support.tolerance import EXACT, NAMES, assert_as_exact, assert_near

pytestmark = pytest.mark.usefixtures("both_attentions")
WIDTH = 64
TEMPLATES = {  # words, and how many tokens stand before the name
    "a photo of a {}, a type of pet.": 4,
    "{} texture.": 0,
    "a big b{}": 2,  # what touches the name is not shared: together they may be other tokens
    "{}": 0,
}


@lru_cache
def state_dict(n_blocks):
    torch.manual_seed(0)
    return build(n_blocks).state_dict()


def build(n_blocks):
    sizes = {"transformer_width": WIDTH, "transformer_heads": 2, "transformer_layers": n_blocks, "embed_dim": 32}
    image = {"image_resolution": 32, "vision_layers": 1, "vision_width": 64, "vision_patch_size": 32}
    return CLIP(context_length=77, vocab_size=49408, **sizes, **image)


def clip_model(n_blocks, dtype):
    """A CLIP with a thin text tower; its blocks, last norm and projection are leaves."""
    model = build(n_blocks)
    model.load_state_dict(state_dict(n_blocks))
    return model.to(dtype)


def gradients(model, features):
    """The gradients of all weights behind the embeddings, of a sum that weighs every feature differently."""
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(4)).to(features.dtype)
    (features * weights).sum().backward()
    return [features.detach(), *(parameter.grad for parameter in tuned(model))]


def tuned(model):
    return [*model.transformer.parameters(), *model.ln_final.parameters(), model.text_projection]


def texts(names, template):
    return [template.replace("{}", name.replace("_", " ")) for name in names]


def naively(names, template, n_blocks, dtype):
    model = clip_model(n_blocks, dtype)
    return gradients(model, model.encode_text(tokenize(texts(names, template))))


def by_encoder(names, template, n_blocks, dtype, **options):
    model = clip_model(n_blocks, dtype)
    encoder = PromptEncoder(model, lay_out_words(list(names), template), tuned=True, **options)
    return gradients(model, encoder(torch.empty(0, WIDTH, dtype=dtype)))


@pytest.mark.parametrize(
    ("n_blocks", "names", "chunk_rows"),
    [(2, NAMES[:3], 0), (2, NAMES, 25), (12, NAMES[:3], 25), (12, MANY, 0), (2, MANY, 300)],
    ids=["2 blocks, C3", "2 blocks, C5, chunks", "12 blocks, C3, chunks", "12 blocks, C100", "2 blocks, C100, chunks"],
)
@pytest.mark.parametrize("template", TEMPLATES)
def test_values_and_gradients(template, n_blocks, names, chunk_rows):
    case = names, template, n_blocks
    exact = naively(*case, torch.float64)
    assert_near(by_encoder(*case, torch.float64, chunk_rows=chunk_rows), exact, EXACT)
    found, plain = by_encoder(*case, torch.float32, chunk_rows=chunk_rows), naively(*case, torch.float32)
    for triple in zip(found, plain, exact, strict=True):
        assert_as_exact(*triple)


def test_what_the_weights_become_is_seen():
    """Nothing was kept of the weights as they were when the encoder was built."""
    model = clip_model(2, torch.float64)
    encoder = PromptEncoder(model, lay_out_words(list(NAMES), "a photo of a {}."), tuned=True)
    with torch.no_grad():
        for parameter in tuned(model):
            parameter.mul_(1.5)
    assert_near(encoder(torch.empty(0, WIDTH)), model.encode_text(tokenize(texts(NAMES, "a photo of a {}."))), EXACT)


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_stands_before_the_name_is_computed_once(template):
    encoder = PromptEncoder(clip_model(2, torch.float64), lay_out_words(list(NAMES), template), tuned=True)
    shared = 1 + TEMPLATES[template]
    assert encoder.n_rows == shared + sum(int(row.argmax()) + 1 - shared for row in tokenize(texts(NAMES, template)))


@pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_learned_context_in_a_tuned_tower(position, class_specific):
    shape = (len(NAMES), 4, WIDTH) if class_specific else (4, WIDTH)
    found = []
    for is_fast in (True, False):
        ctx = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
        model, options = clip_model(2, torch.float64), {"class_specific": class_specific, "tuned": True}
        fast = PromptEncoder(model, lay_out(list(NAMES), 4, position), **options)
        features = fast(ctx) if is_fast else naive_features(model, ctx, NAMES, position)
        found.append([*gradients(model, features), ctx.grad])
    assert_near(*found, EXACT)


@pytest.mark.parametrize("kind", ["siglip", "not-causal", "no-start"])
def test_words_alone_in_a_tower_that_shares_nothing(kind):
    model = towers(kind)
    layout = lay_out_words(list(OTHER_NAMES), "a dog {}.", tokenizer=model.tokenizer)
    found = PlainPromptEncoder(model, layout)(torch.empty(0, model.transformer.width))
    assert_near(found, model.encode_text(model.tokenizer(texts(OTHER_NAMES, "a dog {}."))), EXACT)


def test_a_prompt_that_is_too_long_is_refused():
    with pytest.raises(
        ValueError, match=r"'face face .* has 79 tokens; at most 77 are allowed. Shorten the class name.$"
    ):
        lay_out_words(["face " * 75], "a {} .")
