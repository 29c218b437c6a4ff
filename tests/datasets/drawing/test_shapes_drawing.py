"""How `shapes` is drawn: the same to the bit everywhere, colours and light as asked for, masks against geometry."""

import ast
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.drawing import shapes_drawing, shapes_masks
from datasets.drawing.shapes_drawing import BACKGROUNDS, COLOURS, LIGHTS, RENDERINGS, Spec, draw
from datasets.drawing.shapes_masks import SHAPES, TEXTURES, shape_mask


def generator(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def grid(n=800, edge=1.2):
    axis = (2 * (np.arange(n) + 0.5) / n - 1) * edge
    return np.meshgrid(axis, axis)  # u, v


def test_every_bit_of_the_images_is_fixed():
    """Meant to notice a change: a new digest means new images, and the numbers in docs/SHAPES.md have to be redone."""
    digest = hashlib.sha256()
    for i, rendering in enumerate(RENDERINGS):
        for j, shape in enumerate(SHAPES):
            spec = Spec(
                shape, list(COLOURS)[(i + j) % 10], TEXTURES[j % 5], rendering, "rough", "warm", clutter=3, noise=9
            )
            digest.update(draw(replace(spec, background=BACKGROUNDS[j % 5], blur=j % 2), generator([i, j])))
    assert digest.hexdigest() == "ed209390255e955c6a27a72a6bf543fb6a4819d75ce715b5c0013296769b9b8b"


def test_drawing_uses_no_function_whose_last_bit_may_differ():
    exact = set("abs arange array astype broadcast_to clip float64 floor int64 ndarray pad uint8 where zeros".split())
    exact |= {"zeros_like", "random", "Generator", "integers"}
    for module in (shapes_drawing, shapes_masks):
        tree = ast.parse(Path(module.__file__).read_text())
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
        used = {n.attr for n in nodes if ast.unparse(n.value) in ("np", "rng", "np.random")}
        assert used <= exact
        assert not [n for n in ast.walk(tree) if isinstance(n, (ast.Pow, ast.MatMult))]


@pytest.mark.parametrize("colour", COLOURS)
def test_object_has_its_colour(colour):
    spec = Spec("square", colour, "plain", size=(0.8, 0.8), shift=0.0, turn=0.0)
    image = draw(spec, generator())
    # The half edge is 0.75 * 0.8 * 24 = 14.4 pixels; the colour varies by at most 12.
    middle = image[24 - 13 : 24 + 13, 24 - 13 : 24 + 13].reshape(-1, 3)
    assert (middle == middle[0]).all()
    assert np.abs(middle[0].astype(int) - COLOURS[colour]).max() <= 12
    assert image[:8].min() >= 205  # light background


def test_light_multiplies_the_colours():
    spec = Spec("circle", "blue", "plain")
    day, warm = draw(spec, generator()), draw(replace(spec, light="warm"), generator())
    np.testing.assert_allclose(warm, np.minimum(day * np.array(LIGHTS["warm"]), 255), atol=1.01)  # both are rounded
    half = draw(replace(spec, light="dim", cast=0.5), generator())
    np.testing.assert_allclose(half, day * 0.75, atol=1.01)  # both are rounded


# Masks, against geometry

AREAS = {
    "circle": np.pi * 0.72,
    "square": 1.5**2,
    "triangle": 1.65 * (1.65 / 1.75),
    "cross": 2 * 0.56 * 1.8 - 0.56**2,
    "ring": np.pi * (0.81 - 0.22),
    "diamond": 2 * 0.6 * 0.98,
    "hourglass": 4 * (0.08 * 0.85 + 0.75 * 0.85**2 / 2),
    # A five-pointed star of inner radius r = 0.31 / cos 36: its pentagon and five tips.
    "star": 5 * 0.31**2 * np.tan(np.pi / 5) * (1 + np.tan(np.pi / 5) * np.tan(2 * np.pi / 5)),
}


@pytest.mark.parametrize("shape", AREAS)
def test_area_of_a_mask(shape):
    u, v = grid()
    area = shape_mask(shape, u, v).mean() * 2.4**2
    assert area == pytest.approx(AREAS[shape], rel=0.01)
