"""The fast text encoder against all 77 positions of every prompt: values, gradients, and the rows that it computes."""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clip import build_model, packed_tower
from clip.clip import tokenizer
from clip.prompt_layout import lay_out
from clip.prompts import PromptEncoder
from tests.support.naive import naive_features, naive_prompts
from tests.support.tiny_clip import golden_state_dict
from tests.support.tolerance import EXACT, GOLDEN_TOLERANCE, NAMES, assert_as_exact, assert_near
from trainers.base import TextEncoder
from trainers.coop import PromptLearner

pytestmark = pytest.mark.usefixtures("both_attentions")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())
ALL_NAMES = tuple(GOLDEN["classnames"])
N_TOKENS = (1, 8, 1, 4, 2)
FOLLOWS = (2, 2, 2, 1, 2)  # ". [EOT]" after the name; in "chairs (folding)." the end is one token, ")."
POSITIONS = ("end", "middle", "front")


@lru_cache
def clip_model(dtype=torch.float32):
    """The golden CLIP; its text tower has three layers."""
    return build_model(golden_state_dict("vit")).requires_grad_(False).to(dtype)


def draw_context(n_ctx, n_batch, n_classes=None):
    """(M, D), with n_classes (C, M, D), with n_batch (B, ...); float64, but float32 holds every number."""
    shape = [n for n in (n_batch, n_classes, n_ctx) if n is not None]
    generator = torch.Generator().manual_seed(3)
    return torch.randn(*shape, 64, generator=generator).mul(0.1).double()


def probe(features):
    """A scalar that weighs every feature differently."""
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(4)).to(features.dtype)
    return (features * weights).sum()


@lru_cache
def oracle(names, position, n_ctx, n_batch, class_specific, dtype=torch.float64):
    """Context, features and the probe's gradient by the plain computation."""
    ctx = draw_context(n_ctx, n_batch, len(names) if class_specific else None).to(dtype).requires_grad_()
    contexts = [ctx] if n_batch is None else list(ctx)
    features = [naive_features(clip_model(dtype), context, names, position) for context in contexts]
    if not features:
        return ctx.detach(), torch.empty(0, len(names), 32, dtype=dtype), torch.empty_like(ctx)
    features = features[0] if n_batch is None else torch.stack(features)
    probe(features).backward()
    return ctx.detach(), features.detach(), ctx.grad


def build_encoder(names, position, n_ctx, class_specific, *, dtype=torch.float32, chunk_rows=0):
    return PromptEncoder(
        clip_model(dtype), lay_out(list(names), n_ctx, position), class_specific=class_specific, chunk_rows=chunk_rows
    )


def compare(names, position, class_specific, n_ctx, n_batch, chunk_rows, dtype=torch.float64):
    """In float64 equal to the plain computation, in float32 about as exact as the plain one in float32."""
    case = (names, position, n_ctx, n_batch, class_specific)
    ctx, *exact = oracle(*case)
    ctx = ctx.to(dtype, copy=True).requires_grad_()
    features = build_encoder(names, position, n_ctx, class_specific, dtype=dtype, chunk_rows=chunk_rows)(ctx)
    assert features.dtype == dtype
    probe(features).backward()
    found = [features, ctx.grad]
    if dtype == torch.float64:
        assert_near(found, exact, EXACT)
    else:
        _, *plain = oracle(*case, dtype)
        for triple in zip(found, plain, exact, strict=True):
            assert_as_exact(*triple)


@pytest.mark.parametrize("chunk_rows", [0, 25], ids=["whole", "chunks"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("n_batch", [None, 0, 1, 3], ids=lambda n: f"B{n}")
@pytest.mark.parametrize("n_ctx", [16, 4, 1], ids=lambda n: f"M{n}")
@pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
@pytest.mark.parametrize("position", POSITIONS)
def test_values_and_gradients(position, class_specific, n_ctx, n_batch, dtype, chunk_rows):
    compare(NAMES, position, class_specific, n_ctx, n_batch, chunk_rows, dtype)


@pytest.mark.parametrize(
    "names", [ALL_NAMES, ("face",), ("a", "a"), ("face " * 30,)], ids=["golden", "one", "twins", "long"]
)
@pytest.mark.parametrize("position", POSITIONS)
def test_class_names(names, position):
    compare(names, position, False, 5, None, 0)


@pytest.mark.parametrize(("position", "room", "n_calls"), [("end", 0, 3), ("end", -1, 0), ("front", 0, 0)])
def test_few_rows_attend_at_once(position, room, n_calls, monkeypatch):
    """One call of torch's attention for each block; none for more rows, or where the names in front are cached."""
    encoder, attend, calls = build_encoder(NAMES, position, 4, False), F.scaled_dot_product_attention, []
    monkeypatch.setattr(packed_tower, "AT_ONCE", encoder.n_rows + room)
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *args, **kw: calls.append(1) or attend(*args, **kw))
    encoder(draw_context(4, None).float())
    assert len(calls) == n_calls


@pytest.mark.parametrize("chunk_rows", [1, 30, 60, 10**6])
def test_any_size_of_chunks(chunk_rows):
    compare(NAMES, "end", False, 4, 3, chunk_rows)


@pytest.mark.parametrize("chunk_rows", [0, 25], ids=["whole", "chunks"])
@pytest.mark.parametrize(("n_deep", "n_vectors"), [(1, 4), (2, 4), (2, 2)])
def test_deep_prompts(n_deep, n_vectors, chunk_rows):
    """Other vectors replace the context's first before a block: values and all gradients."""
    results = []
    for encoder in (build_encoder(NAMES, "end", 4, False, dtype=torch.float64, chunk_rows=chunk_rows), None):
        vectors = [draw_context(4, None), *draw_context(n_vectors, n_deep)]
        ctx, *deep = (vector.clone().requires_grad_() for vector in vectors)
        model = clip_model(torch.float64)
        features = encoder(ctx, deep) if encoder else naive_features(model, ctx, NAMES, "end", deep)
        probe(features).backward()
        results.append([features, ctx.grad, *(vector.grad for vector in deep)])
    assert_near(*results, EXACT)


def test_outputs_that_deep_prompts_replace_are_not_computed():
    deep = draw_context(3, 2).float()
    encoder = build_encoder(NAMES, "end", 4, False)
    n_rows, n_replaced = encoder.n_rows, 3
    rows = rows_per_layer(encoder, draw_context(4, 2), deep)
    assert rows == [(2, n_rows - n_replaced), (2, n_rows - n_replaced), (2, len(NAMES))]


def n_rows_of_design(position, class_specific, n_ctx):
    """The exact minimum; [SOS] is computed once per run and counts nowhere."""
    own = sum(N_TOKENS) + sum(FOLLOWS)
    if position == "front":
        return sum(n_ctx + follows for follows in FOLLOWS)
    if class_specific:
        return len(NAMES) * n_ctx + own
    n_shared = n_ctx if position == "end" else n_ctx // 2
    if position == "middle" and n_ctx == 1:  # nothing learned in front of the name: it is constant
        return sum(1 + follows for follows in FOLLOWS)
    return n_shared + len(NAMES) * (n_ctx - n_shared) + own


@pytest.mark.parametrize("n_ctx", [16, 4, 5])
@pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
@pytest.mark.parametrize("position", POSITIONS)
def test_only_the_rows_that_differ_are_computed(position, class_specific, n_ctx):
    assert tuple(len(tokenizer().encode(name.replace("_", " "))) for name in NAMES) == N_TOKENS
    expected = n_rows_of_design(position, class_specific, n_ctx)
    encoder = build_encoder(NAMES, position, n_ctx, class_specific)
    assert encoder.n_rows == expected
    assert rows_per_layer(encoder, draw_context(n_ctx, 2, len(NAMES) if class_specific else None)) == [
        (2, expected),
        (2, expected),
        (2, len(NAMES)),  # in the last layer only the end tokens are queries
    ]


def rows_per_layer(encoder, ctx, deep=()):
    """The (B, rows) that enter each layer's MLP, in the order in which they do."""
    seen = []
    hooks = [
        block.mlp.register_forward_hook(lambda module, args, output: seen.append(tuple(args[0].shape[:2])))
        for block in encoder.transformer.resblocks
    ]
    with torch.no_grad():
        encoder(ctx.float(), deep)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(("position", "chunk_rows"), [("end", 30), ("front", 12), ("middle", 40)])
def test_chunks_bound_the_rows(position, chunk_rows):
    encoder = build_encoder(NAMES, position, 4, False, chunk_rows=chunk_rows)
    seen = rows_per_layer(encoder, draw_context(4, 3))
    assert max(n_batch * n_rows for n_batch, n_rows in seen) <= chunk_rows
    assert len(seen) > 3


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_without_gradients_the_same(mode, position):
    encoder = build_encoder(NAMES, position, 4, False, chunk_rows=30)
    ctx = draw_context(4, None).float().requires_grad_()
    with mode():
        quiet = encoder(ctx)
    assert not quiet.requires_grad
    assert torch.equal(quiet, encoder(ctx))


class TestPromptLearner:
    @pytest.mark.parametrize("n_ctx", [5, 1])
    @pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
    @pytest.mark.parametrize("position", POSITIONS)
    def test_prompts_for_the_plain_text_encoder(self, position, class_specific, n_ctx):
        options = {"n_ctx": n_ctx, "class_specific": class_specific, "position": position}
        learner = PromptLearner(clip_model(), list(NAMES), **options)
        prompts, tokens = naive_prompts(clip_model(), learner.ctx, NAMES, position)
        assert torch.equal(learner(), prompts) and torch.equal(learner.layout.tokens, tokens)
        features = TextEncoder(clip_model())(learner(), learner.layout.tokens)
        assert_near(features, naive_features(clip_model(), learner.ctx, NAMES, position))

    def test_random_start(self):
        torch.manual_seed(0)
        ctx = PromptLearner(clip_model(), list(NAMES), class_specific=True).ctx
        assert ctx.shape == (5, 16, 64) and ctx.dtype == torch.float32
        assert ctx.std().item() == pytest.approx(0.02, rel=0.05) and abs(ctx.mean().item()) < 1e-3

    @pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
    def test_words_give_the_features_of_the_written_prompt(self, class_specific):
        """As the original computed them with CLIP's own text encoder."""
        learner = PromptLearner(
            clip_model(), list(ALL_NAMES), n_ctx=4, ctx_init="a_photo_of_a", class_specific=class_specific
        )
        assert learner.ctx.shape == ((9, 4, 64) if class_specific else (4, 64))
        features = PromptEncoder(clip_model(), learner.layout, class_specific=class_specific)(learner.ctx)
        expected = torch.tensor(GOLDEN["vit"]["text_features_a_photo_of_a"]).view(9, 32)
        assert_near(features, expected, GOLDEN_TOLERANCE)

    def test_words_are_counted_in_tokens(self, caplog):
        learner = PromptLearner(clip_model(), list(NAMES), n_ctx=2, ctx_init="naïve café")
        assert learner.n_ctx == 4
        words = clip_model().token_embedding(torch.tensor([1097, 35689, 563, 15304]))  # golden/tokens.json
        assert torch.equal(learner.ctx, words)
        [record] = caplog.records
        assert record.getMessage() == (
            "N_CTX is 2, but CTX_INIT 'naïve café' has 4 tokens: 4 context vectors are learned"
        )


class TestErrors:
    def test_name_too_long(self):
        assert lay_out(["face " * 58], 16).eot.item() == 76  # 1 + 16 + 58 + 1 + 1 = 77 tokens: just fits
        with pytest.raises(ValueError) as error:
            lay_out(["a", "face " * 59], 16)
        assert "has 78 tokens with 16 context vectors; at most 77 are allowed. Shorten" in str(error.value)

    def test_unknown_position(self):
        with pytest.raises(ValueError, match="position is 'back'; it must be one of: end, middle, front"):
            lay_out(["a"], 4, "back")

    @pytest.mark.parametrize("n_ctx", [0, -1])
    def test_no_context(self, n_ctx):
        with pytest.raises(ValueError, match=f"number of context vectors is {n_ctx}; it must be at least 1"):
            lay_out(["a"], n_ctx)


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated, and warns of every number that it keeps
@pytest.mark.parametrize("position", POSITIONS)
def test_a_traced_encoder_takes_other_numbers_of_contexts(position):
    encoder, ctx = build_encoder(NAMES, position, 4, False), draw_context(4, 3).float()
    with torch.no_grad():
        assert_near(torch.jit.trace(encoder, ctx[:1])(ctx), encoder(ctx))
