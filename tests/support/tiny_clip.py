"""Small CLIPs with fixed weights, the ones behind the numbers in tests/golden (its README says how they are drawn)."""

from functools import lru_cache
from math import log, prod

import numpy as np
import torch

from clip.model import CLIP

VISION = {
    "vit": {"image_resolution": 32, "vision_layers": 2, "vision_width": 64, "vision_patch_size": 16},
    "rn": {"image_resolution": 64, "vision_layers": (1, 1, 1, 1), "vision_width": 4, "vision_patch_size": None},
}
TEXT = {"context_length": 77, "vocab_size": 49408, "transformer_width": 64, "transformer_heads": 1}


def golden_state_dict(kind: str) -> dict[str, torch.Tensor]:
    """A state dict in OpenAI's layout, float32; kind is "vit" or "rn". Each call gives tensors of its own."""
    return {key: value.clone() for key, value in _draw(kind).items()}


def golden_images(kind: str) -> torch.Tensor:
    """(6, 3, R, R) float32, R = 32 for "vit" and 64 for "rn"."""
    resolution = VISION[kind]["image_resolution"]
    shape = (6, 3, resolution, resolution)
    return torch.from_numpy(np.random.default_rng(7).standard_normal(shape, dtype=np.float32))


@lru_cache
def _draw(kind: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        model = CLIP(embed_dim=32, transformer_layers=3, **VISION[kind], **TEXT)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    rng = np.random.default_rng(0)
    return {key: _draw_tensor(key, shapes[key], rng) for key in sorted(shapes)}


def _draw_tensor(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    n = np.asarray(rng.standard_normal(shape, dtype=np.float32))
    value = _scale(key, shape, n)
    return torch.from_numpy(np.asarray(value, dtype=np.float16).astype(np.float32))


def _scale(key: str, shape: tuple[int, ...], n: np.ndarray) -> np.ndarray:
    if key == "logit_scale":
        return np.asarray(log(20))
    if key.endswith("running_var"):
        return 1 + 0.1 * np.abs(n)
    if key.endswith(("running_mean", "bias")):
        return 0.1 * n
    if key.endswith("weight") and n.ndim == 1:
        return 1 + 0.1 * n
    if key.endswith(("text_projection", "visual.proj")):
        return n * shape[0] ** -0.5
    if "embedding" in key:
        return 0.3 * n
    return n * prod(shape[1:]) ** -0.5
