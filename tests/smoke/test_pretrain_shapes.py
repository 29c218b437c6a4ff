"""How the CLIP of `shapes` was made: captions with the faults that are documented, training that repeats, the file."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import clip
from datasets.drawing.shapes_drawing import COLOURS
from datasets.drawing.shapes_masks import SHAPES, TEXTURES
from tools import pretrain_shapes, shapes_web
from tools.shapes_captions import COLOUR_WORDS, SHAPE_WORDS, TEXTURE_WORDS, caption


def generator(*seed):
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def pairs():
    """32 easy images and 32 of the web's, with their captions."""
    rows = [shapes_web.draw_chunk((1, first, first + 32)) for first in (0, shapes_web.N_EASY)]
    return pretrain_shapes.to_tensors(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))


def test_captions_leave_out_and_mistake_what_the_docs_say():
    """12 % of the captions lack the shape, 6 % of the others name another one."""
    rng = generator(2)
    assert (set(SHAPE_WORDS), set(COLOUR_WORDS), set(TEXTURE_WORDS)) == (set(SHAPES), set(COLOURS), set(TEXTURES))
    n, right, absent = 4000, 0, 0
    for _ in range(n):
        spec = shapes_web.web_spec(rng)
        text = caption(spec, rng)
        named = {shape for shape, words in SHAPE_WORDS.items() if any(f" {word}" in text for word in words)}
        right += spec.shape in named
        absent += not named
    assert absent / n == pytest.approx(0.12, abs=0.02)
    assert right / (n - absent) == pytest.approx(1 - 0.06 * 11 / 12, abs=0.015)


def test_two_runs_give_the_same_weights_and_learn(pairs, monkeypatch):
    stages = [replace(stage, n_steps=3, batch_size=8) for stage in pretrain_shapes.STAGES]
    monkeypatch.setattr(pretrain_shapes, "STAGES", stages)
    monkeypatch.setattr(pretrain_shapes, "N_EASY", 32)
    monkeypatch.setattr(pretrain_shapes, "N_WEB", 32)
    first, second = (pretrain_shapes.pretrain(pairs, seed=1).state_dict() for _ in range(2))
    other = pretrain_shapes.pretrain(pairs, seed=2).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


def test_saved_file_is_the_model_over_the_whole_vocabulary(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_shapes, "STAGES", ())
    model = pretrain_shapes.pretrain(pairs, seed=1)
    pretrain_shapes.save(model, pairs.token_ids, tmp_path / "small.npz")
    loaded, _ = clip.load(tmp_path / "small.npz", "cpu")
    tokens = clip.tokenize(["a photo of a plain red star.", "the drawing of a heart."])
    rows = torch.searchsorted(pairs.token_ids, tokens.long())
    with torch.inference_mode():
        difference = loaded.encode_text(tokens) - model.encode_text(rows)
    assert difference.abs().max() < 5e-3  # float16 in the file
    trained = loaded.token_embedding.weight.abs().sum(dim=1) > 0
    assert set(trained.nonzero().flatten().tolist()) == set(pairs.token_ids.tolist()) - {0}
