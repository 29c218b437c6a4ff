"""A compiled encoder against the same encoder as it is, and what it does where the compiled one cannot be trusted.

What torch's own backends need a GPU or a compiler for, stand-ins do here: they take the traced graph and run it.
"""

import logging
from functools import lru_cache

import pytest
import torch

from clip.model import CLIP
from clip.prompt_layout import lay_out
from clip.prompts import PromptEncoder
from tests.clip.test_plain_prompts import build as build_plain
from tests.support.tolerance import EXACT, assert_near
from trainers.compiled_prompts import CompiledEncoder

NAMES = ("face", "wine_bottle")
N_CTX, WIDTH = 4, 32


@lru_cache
def clip_model(dtype):
    """A text tower of two thin blocks with random weights."""
    torch.manual_seed(0)
    sizes = {"transformer_width": WIDTH, "transformer_heads": 2, "transformer_layers": 2, "embed_dim": 16}
    image = {"image_resolution": 32, "vision_layers": 1, "vision_width": 64, "vision_patch_size": 32}
    return CLIP(context_length=77, vocab_size=49408, **sizes, **image).requires_grad_(False).to(dtype)


def build(position="end", dtype=torch.float64, **options):
    return PromptEncoder(clip_model(dtype), lay_out(list(NAMES), N_CTX, position), **options)


def draw(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(*shape, generator=generator).mul(0.1).to(dtype).requires_grad_()


def step(encode, ctx, deep=()):
    """Features, and the gradients of a scalar that weighs each of them differently."""
    features = encode(ctx, deep)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(4)).to(features.dtype)
    learned = [x for x in (ctx, *deep) if x is not None]
    return [features, *torch.autograd.grad((features * weights).sum(), learned)]


class Counted:
    """A backend that runs the traced graph as it is, and counts the graphs."""

    n_graphs = 0

    def __call__(self, graph, _):
        self.n_graphs += 1
        return graph.forward


def check(encoder, *inputs, backend=None):
    """The encoder is one graph without a break, and gives the eager features and gradients."""
    expected = step(encoder.forward, *inputs)
    counted = Counted()
    compiled = CompiledEncoder(encoder, backend=backend or counted)
    for _ in range(2):
        assert_near(step(compiled, *inputs), expected, EXACT)
    assert compiled.compiled_for and not compiled.is_refused
    assert backend or counted.n_graphs == 1


@pytest.mark.parametrize("n_batch", [None, 2], ids=["one context", "CoCoOp"])
@pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_values_and_gradients(position, class_specific, n_batch):
    shape = [n for n in (n_batch, len(NAMES) if class_specific else None, N_CTX, WIDTH) if n]
    check(build(position, class_specific=class_specific), draw(*shape))


def test_deep_prompts():
    check(build(), draw(N_CTX, WIDTH), [draw(2, WIDTH)])


def test_deep_prompts_of_each_class():
    check(build(class_deep=True), draw(N_CTX, WIDTH), [draw(len(NAMES), 2, WIDTH)])


@pytest.mark.parametrize("kind", ["siglip", "clipa"])
def test_a_tower_that_shares_nothing(kind):
    check(build_plain(kind, N_CTX, "end"), draw(N_CTX, WIDTH))


def test_torchs_own_joint_graph_of_both_passes():
    check(build(), draw(N_CTX, WIDTH), [draw(2, WIDTH)], backend="aot_eager")


# Where it stays eager


class Sums(torch.nn.Module):
    """An encoder of three classes that is traced at once."""

    class_specific, chunk_rows, n_rows = False, 0, 5

    def forward(self, ctx, deep=()):
        return ctx.sum(dim=-2)[..., :3].sin() + 1


def no_compiler(graph, _):
    raise RuntimeError("no compiler here")


def fails_in_the_call(graph, _):
    def run(*args):
        raise RuntimeError("no kernel here")

    return run


def changed(change):
    return lambda graph, _: lambda *args: [change(features) for features in graph.forward(*args)]


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (no_compiler, "no compiler here"),
        (fails_in_the_call, "RuntimeError: no kernel here"),
        (
            changed(lambda x: 1.01 * x),
            "features differ from the eager ones by 1.0e-02 (relative) and gradients by 1.0e-02",
        ),
        (
            changed(lambda x: x + 0.1 * (x - x.detach())),
            "by 0.0e+00 (relative) and gradients by 1.0e-01; 1e-10 and 1e-09 are",
        ),
        (changed(lambda x: x / 0), "differ from the eager ones by inf"),
    ],
    ids=["compiling", "calling", "features", "gradients", "not finite"],
)
def test_what_cannot_be_trusted_is_said_once_and_left(backend, said, caplog):
    encoder, ctx = Sums(), draw(N_CTX, WIDTH)
    compiled = CompiledEncoder(encoder, backend=backend)
    for _ in range(2):
        assert_near(step(compiled, ctx), step(encoder.forward, ctx), 0)
    [record] = [one for one in caplog.records if one.name == "trainers.compiled_prompts"]  # torch's own are debugging
    assert record.levelno == logging.WARNING and said in record.getMessage()
    assert record.getMessage().startswith("MODEL.COMPILE is not used, the text side stays as it is: ")


def test_a_failure_in_a_later_step_is_said_and_left(caplog):
    is_broken, ctx = [], draw(N_CTX, WIDTH)

    def breaks(graph, _):
        return lambda *args: no_compiler(graph, _) if is_broken else graph.forward(*args)

    encoder = Sums()
    compiled = CompiledEncoder(encoder, backend=breaks)
    step(compiled, ctx)
    is_broken.append(True)
    assert_near(step(compiled, ctx), step(encoder.forward, ctx), 0)
    assert compiled.is_refused and "no compiler here" in caplog.text


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_rounding_is_allowed(dtype, allowed):
    compiled = CompiledEncoder(Sums(), backend=changed(lambda x: (1 + allowed) * x))
    step(compiled, draw(N_CTX, WIDTH, dtype=dtype))
    assert compiled.compiled_for


def test_another_shape_is_eager_and_said_once(caplog):
    caplog.set_level(logging.INFO)
    counted, encoder = Counted(), Sums()
    compiled = CompiledEncoder(encoder, backend=counted)
    for n_images in (2, 3, 2, 3):
        contexts = draw(n_images, N_CTX, WIDTH)
        assert_near(step(compiled, contexts), step(encoder.forward, contexts), EXACT)
    assert counted.n_graphs == 1
    assert caplog.text.count("some batches have another shape or precision than the first") == 1


def test_mixed_precision_is_compiled_as_it_is_and_nothing_else_with_it(caplog):
    caplog.set_level(logging.INFO)
    counted, encoder, ctx = Counted(), build(dtype=torch.float32), draw(N_CTX, WIDTH, dtype=torch.float32)
    compiled = CompiledEncoder(encoder, backend=counted)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = step(compiled, ctx), step(encoder.forward, ctx)
    assert found[0].dtype == torch.bfloat16 and compiled.compiled_for
    assert_near(found, expected, 0)
    step(compiled, ctx)
    assert counted.n_graphs == 1 and "another shape or precision" in caplog.text


@pytest.mark.parametrize("n_images", [1, 9])
def test_chunks_are_eager(n_images, caplog):
    caplog.set_level(logging.INFO)
    encoder, counted = build(chunk_rows=5 if n_images == 1 else 50), Counted()
    contexts = draw(n_images, N_CTX, WIDTH)
    compiled = CompiledEncoder(encoder, backend=counted)
    assert_near(step(compiled, contexts), step(encoder.forward, contexts), 0)
    assert not counted.n_graphs and "rows of prompts are encoded in chunks of" in caplog.text


def test_without_gradients_nothing_is_compiled():
    counted = Counted()
    compiled = CompiledEncoder(build(), backend=counted)
    with torch.no_grad():
        compiled(draw(N_CTX, WIDTH))
    compiled(draw(N_CTX, WIDTH).detach())
    assert not counted.n_graphs


class Reused(torch.autograd.Function):
    """Returns its value, and its gradient, in buffers that the next call overwrites, as CUDA graphs do."""

    buffers: dict = {}

    @classmethod
    def write(cls, key, value):
        return cls.buffers.setdefault((key, value.shape), torch.empty_like(value)).copy_(value).detach()

    @staticmethod
    def forward(ctx, x):
        return Reused.write("value", x)

    @staticmethod
    def backward(ctx, gradient):
        return Reused.write("gradient", gradient)


def test_features_and_gradients_may_be_kept():
    def reuse(graph, _):
        def run(*args):
            found = graph.forward(*(Reused.apply(x) if x.requires_grad else x for x in args))
            return [Reused.apply(features) for features in found]

        return run

    encoder = Sums()
    compiled = CompiledEncoder(encoder, backend=reuse)
    inputs = [draw(N_CTX, WIDTH), draw(N_CTX, WIDTH).detach().mul(3).requires_grad_()]
    kept = [step(compiled, ctx) for ctx in inputs]
    assert compiled.compiled_for and Reused.buffers
    for ctx, found in zip(inputs, kept, strict=True):
        assert_near(found, step(encoder.forward, ctx), EXACT)
