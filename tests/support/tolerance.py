"""How far apart two float32 computations of the same thing may be.

A float32 sum depends on the order of its terms, and the order depends on the processor, the number of threads and the
size of the batch. So a fixed limit near float32's resolution holds on some machines and fails on others. Where
exactness is claimed, tests compare in float64. In float32 they allow a multiple of the rounding error that the plain
computation makes itself: its distance from the same computation in float64, measured where the tests run.
"""

from functools import cache

import torch
import torch.nn.functional as F

from clip import build_model
from tests.support.naive import naive_features
from tests.support.tiny_clip import VISION, golden_images, golden_state_dict

EXACT = 1e-10  # in float64, whose own rounding shows at 1e-15 to 1e-14 here
EPS = torch.finfo(torch.float32).eps
# Orders of summation that are all correct have errors within a factor of 3 of each other (measured with
# ATEN_CPU_CAPABILITY=default, avx2, avx512); 10 leaves room. A wrong term is off by thousands of times the rounding.
FACTOR = 10
FIT = FACTOR * 1e-4  # scikit-learn's LBFGS stops where the gradient is below 1e-4: where exactly, rounding decides
# The golden numbers are float32 themselves, computed elsewhere: 5e-6 from ours at most (measured), 6e-5 is allowed.
GOLDEN_TOLERANCE = 500 * EPS
NAMES = ("face", "Boeing 737-300", "a", "chairs (folding)", "wine_bottle")  # 1, 8, 1, 4 and 2 tokens


def distance(found, expected) -> float:
    """The norm of the difference of two tensors, arrays, numbers or lists of numbers, relative to the expected norm."""
    found, expected = (torch.as_tensor(value, dtype=torch.float64).detach().cpu() for value in (found, expected))
    assert found.shape == expected.shape, f"the shape is {tuple(found.shape)} instead of {tuple(expected.shape)}"
    norm = expected.norm().item()
    return (found - expected).norm().item() / (norm or 1.0)


def assert_near(found, expected, tolerance: float | None = None) -> None:
    """Asserts that values, or all values of two lists or dicts, are near each other.

    Args:
        tolerance: The largest distance; None: `rounding_tolerance()`.
    """
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list) and not all(isinstance(value, float) for value in expected):
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other, tolerance)
        return
    allowed = rounding_tolerance() if tolerance is None else tolerance
    off = distance(found, expected)
    assert off <= allowed, f"the distance is {off:.1e}, {allowed:.1e} is allowed"


def assert_as_exact(found, plain, exact) -> None:
    """Asserts that a float32 result is about as near to the float64 one as the plain float32 computation is."""
    assert_near(found, exact, FACTOR * max(distance(plain, exact), EPS))


@cache
def rounding_tolerance() -> float:
    """The distance that is allowed between results of the small CLIPs in float32, features to gradients and runs."""
    errors = [0.0]
    for kind in VISION:
        for position in ("end", "middle", "front"):
            plain, exact = (plain_step(kind, position, dtype) for dtype in (torch.float32, torch.float64))
            errors += [distance(one, other) for one, other in zip(plain, exact, strict=True)]
    return FACTOR * max(errors)


@torch.enable_grad()
def plain_step(kind: str, position: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """CoOp by its formula: image features, text features, logits and the gradient of a context of four vectors."""
    clip_model = build_model(golden_state_dict(kind)).requires_grad_(False).to(dtype)
    ctx = 0.1 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    ctx = ctx.to(dtype).requires_grad_()
    images = clip_model.encode_image(golden_images(kind).to(dtype))
    texts = naive_features(clip_model, ctx, NAMES, position)
    logits = clip_model.logit_scale.exp() * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).t()
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 4, 0])).backward()
    return images, texts.detach(), logits.detach(), ctx.grad
