"""A prompt encoder whose training step goes through torch.compile, checked first against the encoder as it is.

The first features with gradients are a trial: forward and backward, compiled and eagerly, on the same inputs. If the
compiled way raises, or gives other numbers than rounding does, a warning says so and the encoder stays eager.

Eager are also, each with one log line: inputs of another shape or precision than the first, for which it would have to
be compiled again, and prompts that are encoded in chunks, whose kernels are large enough to keep a GPU busy. Without
gradients, as in testing, it is always eager: then prompts are encoded once, or many images' at a time.

With CUDA graphs ("reduce-overhead") outputs and gradients lie in buffers that the next step overwrites. Both leave
here as copies, so they may be kept.

Cost: tracing and compiling take minutes, once for a run. Where attention goes by groups (clip/packed_tower.py), they
take the longer the more lengths the class names have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

# How far compiled features may be from the eager ones, relative to their norm: some hundred roundings in float32 and
# float64, ten in half precision, where fused kernels skip roundings. Gradients may be ten times as far.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
OF_GRADIENTS = 10
N_TRIALS = 3  # CUDA graphs warm up, record, and are replayed from the third call on


class CompiledEncoder(nn.Module):
    """A PromptEncoder, or another with its `forward`, `n_rows` and `chunk_rows`, whose inputs alone are learned.

    It has no tensors besides the encoder's.

    Args:
        encoder: The encoder. Its weights are constants.
        how: Of torch.compile, such as mode="reduce-overhead" or backend="aot_eager".
    """

    def __init__(self, encoder: nn.Module, **how):
        super().__init__()
        self.encoder, self.chunk_rows, self.n_rows = encoder, encoder.chunk_rows, encoder.n_rows
        self.compiled_for: tuple | None = None  # the inputs that it is compiled for
        self.is_refused = False
        self.said: set[str] = set()
        torch.compiler.reset()  # what an earlier run of the process has compiled holds memory, and counts as attempts
        encoder.compile(fullgraph=True, dynamic=False, **how)  # encoder(...) is compiled, encoder.forward(...) eager

    def forward(self, ctx: Tensor, deep: Sequence[Tensor | None] = ()) -> Tensor:
        """Encodes the prompts, see PromptEncoder."""
        inputs = [ctx, *deep]
        if self.is_refused or not needs_gradients(inputs):
            return self.encoder.forward(ctx, deep)
        if reason := self.eager_reason(inputs):
            if reason not in self.said:
                self.said.add(reason)
                logger.info("MODEL.COMPILE: %s", reason)
            return self.encoder.forward(ctx, deep)
        if self.compiled_for is None:
            if warning := self.try_out(inputs):
                return self.refuse(warning, ctx, deep)
            self.compiled_for = signature(inputs)
        try:
            return encode_apart(self.encoder, ctx, deep)
        except Exception as error:  # torch's compiler and its backends raise what they like
            warning = said_by(error)  # the error itself holds tensors
        return self.refuse(warning, ctx, deep)

    def refuse(self, why: str, ctx: Tensor, deep: Sequence[Tensor | None]) -> Tensor:
        """Goes on eagerly, and says why."""
        self.is_refused = True
        logger.warning("MODEL.COMPILE is not used, the text side stays as it is: %s", why)
        return self.encoder.forward(ctx, deep)

    def eager_reason(self, inputs: list[Tensor | None]) -> str:
        """Says why these inputs are encoded as they are; "" if they go through the compiled encoder."""
        n_contexts = len(inputs[0]) if inputs[0].dim() > (3 if self.encoder.class_specific else 2) else 1
        if self.chunk_rows and n_contexts * self.n_rows > self.chunk_rows:
            return f"{n_contexts * self.n_rows:,} rows of prompts are encoded in chunks of {self.chunk_rows:,}"
        if self.compiled_for not in (None, signature(inputs)):
            return "some batches have another shape or precision than the first"
        return ""

    def try_out(self, inputs: list[Tensor | None]) -> str:
        """Compares compiled with eager features and gradients; returns "" or what is wrong with the compiled ones."""
        features, gradients = differentiate(self.encoder.forward, inputs)
        try:
            for _ in range(N_TRIALS):
                found, found_gradients = differentiate(partial(encode_apart, self.encoder), inputs)
        except Exception as error:  # torch's compiler and its backends raise what they like
            return said_by(error)
        allowed = TOLERANCE[features.dtype]
        off, off_gradients = distance([found], [features]), distance(found_gradients, gradients)
        if off <= allowed and off_gradients <= OF_GRADIENTS * allowed:  # not where one is nan
            logger.info("The text side is compiled; its features differ from the eager ones by %.1e (relative)", off)
            return ""
        return (
            f"compiled features differ from the eager ones by {off:.1e} (relative) and gradients by "
            f"{off_gradients:.1e}; {allowed:.0e} and {OF_GRADIENTS * allowed:.0e} are allowed"
        )


def needs_gradients(inputs: Sequence[Tensor | None]) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)


def signature(inputs: Sequence[Tensor | None]) -> tuple:
    """What a compiled encoder depends on besides the numbers: another signature would compile it again."""
    device = inputs[0].device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return autocast, *(None if x is None else (x.shape, x.dtype, x.device, x.requires_grad) for x in inputs)


def encode_apart(encoder: nn.Module, ctx: Tensor, deep: Sequence[Tensor | None]) -> Tensor:
    """Features of the compiled encoder, and in the backward pass gradients, that no later step overwrites."""
    torch.compiler.cudagraph_mark_step_begin()
    ctx, *deep = (None if x is None else x.view_as(x) for x in (ctx, *deep))
    for x in (ctx, *deep):
        if x is not None and x.requires_grad:
            x.register_hook(torch.clone)
    return encoder(ctx, deep).clone()


def differentiate(encode: Callable, inputs: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
    """Features, and the gradients of a sum that weighs each value of them, at copies of the inputs."""
    ctx, *deep = (None if x is None else x.detach().requires_grad_(x.requires_grad) for x in inputs)
    learned = [x for x in (ctx, *deep) if x is not None and x.requires_grad]
    features = encode(ctx, deep)
    weights = torch.linspace(-1, 1, features.numel(), device=features.device).view_as(features)
    weights /= features.numel() ** 0.5  # so that the gradients of many classes fit float16
    with torch.autocast(features.device.type, enabled=False):
        gradients = torch.autograd.grad(features, learned, weights.type(features.dtype))
    return features.detach(), [gradient.detach() for gradient in gradients]


def distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest norm of a difference, relative to the norm of what is expected; inf or nan if it is none."""
    pairs = [(one.double(), other.double()) for one, other in zip(found, expected, strict=True)]
    ratios = [((one - other).norm() / other.norm().clamp(min=1e-300)).item() for one, other in pairs]
    return float("nan") if any(ratio != ratio for ratio in ratios) else max(ratios)


def said_by(error: Exception) -> str:
    """The kind of an error and the beginning of what it says; a backend's own error stands in the second line."""
    return " ".join([f"{type(error).__name__}:", *str(error).split("\n")[:2]]).strip()
