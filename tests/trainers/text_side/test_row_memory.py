"""The bound on a row's memory against what a training step keeps, and the rows that a GPU's free memory gives."""

import pytest
import torch

from clip.model import CLIP, convert_weights
from clip.prompt_layout import lay_out
from clip.prompts import PromptEncoder
from trainers.row_memory import bytes_per_row, rows_that_fit

pytestmark = pytest.mark.usefixtures("both_attentions")
NAMES = [f"{name} {number}" for name in ("face", "wine bottle") for number in range(12)]


def build(n_layers, width, dtype):
    sizes = {"transformer_width": width, "transformer_heads": width // 64, "transformer_layers": n_layers}
    image = {"image_resolution": 32, "vision_layers": 1, "vision_width": 64, "vision_patch_size": 32}
    clip_model = CLIP(context_length=77, vocab_size=49408, embed_dim=32, **sizes, **image).requires_grad_(False)
    convert_weights(clip_model, dtype)
    return clip_model


def kept_bytes(clip_model, layout, n_contexts, class_specific):
    """Bytes that wait for the backward pass, without weights, and the rows that they belong to."""
    encoder = PromptEncoder(clip_model, layout, class_specific=class_specific)
    shape = [n_contexts, *([len(NAMES)] if class_specific else []), layout.n_ctx, clip_model.transformer.width]
    constants = {tensor.untyped_storage().data_ptr() for tensor in (*clip_model.parameters(), *encoder.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in constants:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = encoder(torch.randn(shape, requires_grad=True))
    assert features.requires_grad
    return sum(kept.values()), n_contexts * encoder.n_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
@pytest.mark.parametrize(
    ("n_layers", "width", "n_ctx", "position"), [(8, 128, 16, "end"), (8, 128, 4, "front"), (6, 64, 60, "middle")]
)
def test_it_bounds_what_is_kept_and_not_by_far(n_layers, width, n_ctx, position, class_specific, dtype):
    clip_model, layout = build(n_layers, width, dtype), lay_out(NAMES, n_ctx, position)
    kept, n_rows = kept_bytes(clip_model, layout, 2, class_specific)
    bound = n_rows * bytes_per_row(clip_model.transformer, layout.longest, dtype)
    assert kept <= bound <= 2 * kept, f"{kept / n_rows:.0f} of {bound / n_rows:.0f} bytes"


def test_half_of_the_memory_has_half_of_the_rows():
    rows = [rows_that_fit(free, 300_000) for free in (80 * 10**9, 40 * 10**9)]
    assert rows[0] == pytest.approx(2 * rows[1], abs=2) and rows[0] * 300_000 < 80 * 10**9


def test_more_memory_never_has_fewer_rows_and_the_least_is_one():
    rows = [rows_that_fit(free, 300_000) for free in range(0, 10**9, 10**7)]
    assert rows == sorted(rows) and rows[0] == 1 < rows[-1]
