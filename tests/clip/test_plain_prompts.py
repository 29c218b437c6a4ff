"""Prompts of towers that share nothing, against the formula: whole rows through the tower, one class at a time."""

from functools import lru_cache, partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip.plain_prompts import PlainPromptEncoder
from clip.prompt_layout import lay_out
from clip.prompts import PromptEncoder, shares_positions
from clip.tokens import OtherTokenizer
from clip.two_towers import ForeignTower, TwoTowers
from tests.support.tolerance import EXACT, assert_near

LENGTH, WIDTH, EMBED = 16, 32, 12
NAMES = ("face", "boeing 737", "a", "golden_retriever dog")
WORDS = "x a face boeing 737 golden retriever dog .".split()
START, END, PAD = 20, 21, 1
# Tower -> causal, pooling, bias of the projection, start token.
TOWERS = {
    "siglip": (False, "last", True, False),
    "clipa": (False, "last", False, True),
    "first": (False, "first", False, True),
    "not-causal": (False, "end", False, True),
    "no-start": (True, "end", False, False),
}


def ids_of(text):
    return [WORDS.index(word) + 2 for word in text.lower().replace(".", " .").split()]


def rows_of(texts, *, start):
    rows = torch.full((len(texts), LENGTH), PAD)
    for row, text in zip(rows, texts, strict=True):
        ids = [START] * start + ids_of(text) + [END]
        row[: len(ids)] = torch.tensor(ids)
    return rows


@lru_cache
def towers(kind, dtype=torch.float64):
    """A tower of three blocks with random weights, whose padding is not 0, and a tokenizer of words."""
    causal, pooling, bias, start = TOWERS[kind]
    end = END if pooling == "end" else None
    options = {"special": {START, END, PAD}, "n_special": 1 + start, "end": end}
    tokens = OtherTokenizer(partial(rows_of, start=start), ids_of, LENGTH, **options)
    visual = ForeignTower(nn.Flatten(), EMBED, 2)
    sizes = {"embed_dim": EMBED, "context_length": LENGTH, "vocab_size": 24, "width": WIDTH, "heads": 2, "layers": 3}
    unlike = {"activation": "gelu_tanh", "mlp_width": 48, "eps": 1e-6, "projection_bias": bias}
    torch.manual_seed(0)
    model = TwoTowers(visual, causal=causal, pooling=pooling, tokenizer=tokens, **sizes, **unlike)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, dtype=torch.float64)
    return model.requires_grad_(False).to(dtype)


def by_formula(kind, ctx, position, deep=()):
    """(C, E): each class's row is laid out by hand, and attention is written out, in ctx's dtype."""
    causal, pooling, _, start = TOWERS[kind]
    model, features = towers(kind, ctx.dtype), []
    for c, name in enumerate(NAMES):
        vectors = ctx[c] if ctx.dim() == 3 else ctx
        half = {"end": len(vectors), "middle": len(vectors) // 2, "front": 0}[position]
        words, dot = (model.token_embedding(torch.tensor(ids_of(text))) for text in (name.replace("_", " "), "."))
        first, end = (model.token_embedding(torch.tensor([token])) for token in (START, END))
        parts = [*([first] if start else []), vectors[:half], words, vectors[half:], dot, end]
        n_own = sum(map(len, parts))
        pad = model.token_embedding(torch.full((LENGTH - n_own,), PAD))
        x = torch.cat([*parts, pad]) + model.positional_embedding  # (L, W)
        for i, block in enumerate(model.transformer.resblocks):
            if 1 <= i <= len(deep):
                vectors = deep[i - 1] if deep[i - 1].dim() == 2 else deep[i - 1][c]
                x = torch.cat([x[:start], vectors, x[start + len(vectors) :]])
            x = x + attention(block, block.ln_1(x), causal)
            hidden = F.gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh")
            x = x + block.mlp.c_proj(hidden)
        read = model.ln_final(x)[{"end": n_own - 1, "last": LENGTH - 1, "first": 0}[pooling]]
        feature = read @ model.text_projection
        features.append(feature + getattr(model, "text_projection_bias", 0))
    return torch.stack(features)


def attention(block, x, causal):
    q, k, v = (
        part.view(LENGTH, 2, -1).transpose(0, 1)
        for part in F.linear(x, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
    )
    scores = q @ k.transpose(1, 2) * (WIDTH // 2) ** -0.5  # (heads, L, L)
    if causal:
        scores = scores + torch.full((LENGTH, LENGTH), -torch.inf, dtype=x.dtype).triu(1)
    return block.attn.out_proj((scores.softmax(dim=-1) @ v).transpose(0, 1).flatten(1))


def draw(*shape):
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def features_and_gradients(encode, leaves):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    features = encode(*leaves)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    (features * weights.to(features.dtype)).sum().backward()
    return [features.detach(), *(leaf.grad for leaf in leaves)]


def build(kind, n_ctx, position, dtype=torch.float64, **options):
    model = towers(kind, dtype)
    layout = lay_out(list(NAMES), n_ctx, position, tokenizer=model.tokenizer)
    return PlainPromptEncoder(model, layout, **options)


@pytest.mark.parametrize("chunk_rows", [0, 40], ids=["whole", "chunks"])
@pytest.mark.parametrize("n_batch", [None, 3], ids=["one", "B3"])
@pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("kind", TOWERS)
def test_values_and_gradients(kind, position, class_specific, n_batch, chunk_rows):
    n_ctx = 5
    shape = [n for n in (n_batch, len(NAMES) if class_specific else None, n_ctx) if n is not None]
    ctx = draw(*shape)

    def formula(ctx):
        rows = [by_formula(kind, one, position) for one in (ctx if n_batch else [ctx])]
        return torch.stack(rows) if n_batch else rows[0]

    expected = features_and_gradients(formula, [ctx])
    for dtype, tolerance in ((torch.float64, EXACT), (torch.float32, 1e-5)):
        encoder = build(kind, n_ctx, position, dtype, class_specific=class_specific, chunk_rows=chunk_rows)
        found = features_and_gradients(encoder, [ctx.to(dtype)])
        assert found[0].dtype == dtype
        assert_near(found, expected, tolerance)


@pytest.mark.parametrize("chunk_rows", [0, 40], ids=["whole", "chunks"])
@pytest.mark.parametrize("n_vectors", [4, 2])
@pytest.mark.parametrize("kind", ["siglip", "clipa"])
def test_deep_vectors_replace_the_first_behind_the_start(kind, n_vectors, chunk_rows):
    leaves = [draw(4), *draw(2, n_vectors)]
    encoder = build(kind, 4, "end", chunk_rows=chunk_rows)
    found = features_and_gradients(lambda ctx, *deep: encoder(ctx, deep), leaves)
    expected = features_and_gradients(lambda ctx, *deep: by_formula(kind, ctx, "end", deep), leaves)
    assert_near(found, expected, EXACT)


@pytest.mark.parametrize("chunk_rows", [0, 40], ids=["whole", "chunks"])
@pytest.mark.parametrize("kind", ["siglip", "clipa"])
def test_the_vectors_of_each_class_replace_the_first_behind_the_start(kind, chunk_rows):
    leaves = [draw(4), draw(3), draw(len(NAMES), 3)]
    encoder = build(kind, 4, "end", chunk_rows=chunk_rows)
    found = features_and_gradients(lambda ctx, *deep: encoder(ctx, deep), leaves)
    expected = features_and_gradients(lambda ctx, *deep: by_formula(kind, ctx, "end", deep), leaves)
    assert_near(found, expected, EXACT)


@pytest.mark.parametrize("kind", TOWERS)
def test_words_in_place_of_vectors_are_texts(kind):
    """The embeddings of words as context give what encode_text gives for the text."""
    model = towers(kind)
    ctx = model.token_embedding(torch.tensor(ids_of("a dog")))
    texts = [f"a dog {name.replace('_', ' ')}." for name in NAMES]
    assert_near(build(kind, 2, "end")(ctx), model.encode_text(model.tokenizer(texts)), EXACT)


def test_the_fast_encoder_takes_no_tower_whose_prompts_share_nothing():
    for kind in TOWERS:
        layout = lay_out(list(NAMES), 2, tokenizer=towers(kind).tokenizer)
        assert not shares_positions(towers(kind))
        with pytest.raises(AssertionError, match="use PlainPromptEncoder"):
            PromptEncoder(towers(kind), layout)


@pytest.mark.parametrize("kind", ["siglip", "clipa"])
def test_a_prompt_may_fill_the_context_and_no_more(kind):
    tokens, start = towers(kind).tokenizer, TOWERS[kind][-1]
    longest = LENGTH - 1 - start - 4  # end token; three tokens of the longest name, and the full stop
    assert lay_out(list(NAMES), longest, tokenizer=tokens).eot.max() == LENGTH - 1
    with pytest.raises(ValueError, match=f"'golden retriever dog' has 17 tokens with {longest + 1} context vectors"):
        lay_out(list(NAMES), longest + 1, tokenizer=tokens)
    with pytest.raises(ValueError, match="holds special tokens, which begin and end a prompt"):
        special = OtherTokenizer(partial(rows_of, start=start), ids_of, LENGTH, special={4}, n_special=1 + start)
        lay_out(list(NAMES), 1, tokenizer=special)
