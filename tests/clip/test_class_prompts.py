"""Vectors of each class in the middle of the text tower, against all 77 positions of every prompt in all blocks."""

from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F

from clip import packed_tower
from clip.model import CLIP
from clip.prompt_layout import lay_out
from clip.prompts import PromptEncoder
from tests.support.naive import naive_features
from tests.support.tolerance import EXACT, NAMES, assert_as_exact, assert_near

WIDTH, N_BLOCKS = 64, 12
pytestmark = pytest.mark.usefixtures("both_attentions")
MANY = tuple(f"{adjective} {noun}" for adjective in "big red old brave sea".split() for noun in
             "dog cat horse accordion airplane anchor ant barrel bass bonsai brain buddha camera cannon chair crab "
             "brontosaurus stegosaurus trilobite gramophone".split())  # fmt: skip
CASES = [  # block, K, M, names, words
    (1, 4, 4, NAMES[:3], "{}."),
    (8, 1, 4, NAMES, "{}, a type of car"),
    (8, 4, 4, MANY, "{}."),
    (11, 4, 6, NAMES[2:], "person doing {}."),
    (11, 1, 1, NAMES[:3], "{}."),
]


@lru_cache
def clip_model(dtype=torch.float64):
    """A CLIP whose text tower has twelve thin blocks, with random weights; its image tower is unused."""
    torch.manual_seed(0)
    sizes = {"transformer_width": WIDTH, "transformer_heads": 2, "transformer_layers": N_BLOCKS, "embed_dim": 32}
    image = {"image_resolution": 32, "vision_layers": 1, "vision_width": 64, "vision_patch_size": 32}
    model = CLIP(context_length=77, vocab_size=49408, **sizes, **image).double()
    for parameter in model.parameters():
        parameter.data = parameter.data.float().double()  # so that float32 holds the same weights
    return model.requires_grad_(False).to(dtype)


def draw(block, n_vectors, n_ctx, names):
    """A context (M, D) and vectors of each class (C, K, D) as large as the states that they replace."""
    generator = torch.Generator().manual_seed(3)
    ctx = 0.1 * torch.randn(n_ctx, WIDTH, generator=generator)
    return ctx, torch.randn(len(names), n_vectors, WIDTH, generator=generator)


def values_and_gradients(encode, case, dtype):
    """What an encoder(ctx, deep) gives: features, and the gradients of both leaves by a sum that weighs each value."""
    ctx, own = (leaf.to(dtype, copy=True).requires_grad_() for leaf in draw(*case[:4]))
    features = encode(ctx, [None] * (case[0] - 1) + [own])
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    (features * weights).sum().backward()
    return [features.detach(), ctx.grad, own.grad]


def build_encoder(case, dtype=torch.float64, **options):
    _, _, n_ctx, names, words = case
    return PromptEncoder(clip_model(dtype), lay_out(list(names), n_ctx, words=words), class_deep=True, **options)


@lru_cache
def oracle(case, dtype):
    *_, names, words = case

    def encode(ctx, deep):
        return naive_features(clip_model(dtype), ctx, names, "end", deep, words)

    return values_and_gradients(encode, case, dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "b{} K{} M{} C{}".format(*case[:3], len(case[3])))
def test_values_and_gradients(case):
    exact = oracle(case, torch.float64)
    for chunk_rows in (0, 40):
        encoder = build_encoder(case, chunk_rows=chunk_rows)
        assert_near(values_and_gradients(encoder, case, torch.float64), exact, EXACT)
    found = values_and_gradients(build_encoder(case, torch.float32), case, torch.float32)
    for triple in zip(found, oracle(case, torch.float32), exact, strict=True):
        assert_as_exact(*triple)


def test_rows_that_grow_in_mid_tower_attend_by_groups_from_there_on(monkeypatch):
    case, attend, n_keys = (8, 4, 6, NAMES, "{}."), F.scaled_dot_product_attention, []

    def count(q, k, v, **options):
        n_keys.append(k.shape[2])
        return attend(q, k, v, **options)

    n_shared = 6 + sum((3, 10, 3, 5, 4))  # the vectors; of NAMES the tokens, the full stop and the end, see below
    monkeypatch.setattr(packed_tower, "AT_ONCE", n_shared)
    monkeypatch.setattr(F, "scaled_dot_product_attention", count)
    found = values_and_gradients(build_encoder(case), case, torch.float64)
    assert n_keys == 8 * [1 + n_shared]
    monkeypatch.undo()
    assert_near(found, oracle(case, torch.float64), EXACT)


def test_prompts_of_all_classes_before_those_of_each():
    """Then the states that the later ones replace are those of the earlier ones."""
    ctx, own = draw(8, 3, 4, NAMES)
    deep = [None, own[0].double(), own[1, :2].double(), None, own.double()]
    encoder = build_encoder((5, 3, 4, NAMES, "{}."))
    expected = naive_features(clip_model(), ctx.double(), NAMES, "end", deep)
    assert_near(encoder(ctx.double(), deep), expected, EXACT)


def test_several_contexts():
    ctx, own = (leaf.double() for leaf in draw(8, 4, 4, NAMES))
    contexts, deep = torch.stack([ctx, 2 * ctx]), [None, own]
    expected = torch.stack([naive_features(clip_model(), one, NAMES, "end", deep) for one in contexts])
    assert_near(build_encoder((2, 4, 4, NAMES, "{}."))(contexts, deep), expected, EXACT)


def test_the_prefix_is_shared_up_to_the_block_and_its_replaced_outputs_are_not_computed():
    case = block, n_vectors, n_ctx, names, _ = (8, 4, 6, NAMES, "person doing {}.")
    n_own = [1, 8, 1, 4, 2]  # tokens of NAMES
    n_follow = [2, 2, 2, 1, 2]  # ". [EOT]" after the name; in "chairs (folding)." the end is one token, ")."
    prefix, own = n_ctx + 2, sum(n_own) + sum(n_follow)  # [SOS] is cached
    shared, later = prefix + own, len(names) * prefix + own
    encoder = build_encoder(case)
    ctx, vectors = (leaf.double() for leaf in draw(*case[:4]))
    rows = rows_per_block(encoder, ctx, [None] * (block - 1) + [vectors])
    assert rows == [shared] * 7 + [shared - n_vectors] + [later] * 3 + [len(names)]
    assert encoder.n_rows == later


@pytest.mark.parametrize("chunk_rows", [30, 45])
def test_chunks_bound_the_rows_of_the_longest_block(chunk_rows):
    case = (8, 4, 6, NAMES, "{}.")
    encoder = build_encoder(case, chunk_rows=chunk_rows)
    ctx, vectors = (leaf.double() for leaf in draw(*case[:4]))
    assert max(rows_per_block(encoder, ctx.expand(3, -1, -1), [None] * 7 + [vectors])) <= chunk_rows


def rows_per_block(encoder, ctx, deep):
    """How many rows enter each block's MLP, of all contexts, in the order in which they do."""
    seen = []
    hooks = [
        block.mlp.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[:2].numel()))
        for block in encoder.transformer.resblocks
    ]
    with torch.no_grad():
        encoder(ctx, deep)
    for hook in hooks:
        hook.remove()
    return seen
