"""Draws docs/shapes.png: one image of each shape in each rendering, then of `shapes`, then of its shifted sets.

Run: python -m tools.contact_sheet [--out docs/shapes.png]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.drawing.shapes_drawing import BACKGROUNDS, COLOURS, LIGHTS, RENDERINGS, Spec, draw
from datasets.drawing.shapes_masks import SHAPES, TEXTURES
from datasets.drawing.shapes_scenes import PAIRS, STYLE
from datasets.shapes_shifted import ShapesA, ShapesR, ShapesSketch, ShapesV2

SCALE = 2  # screen pixels to an image's pixel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/shapes.png"))
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet().save(out, optimize=True)


def contact_sheet() -> Image.Image:
    """Rows: the seven renderings of the pretraining images, two rows of `shapes`, one of each of its shifted sets."""
    rng = np.random.Generator(np.random.PCG64(0))
    rows = [[draw(_pretraining_spec(rendering, i), rng) for i in range(len(SHAPES))] for rendering in RENDERINGS]
    rows += [[draw(_downstream_spec(STYLE, row, i), rng) for i in range(len(SHAPES))] for row in range(2)]
    for styles in (shifted.styles for shifted in (ShapesV2, ShapesSketch, ShapesA, ShapesR)):
        rows.append([draw(_downstream_spec(styles[i % len(styles)], 0, i), rng) for i in range(len(SHAPES))])
    sheet = Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows]))
    return sheet.resize((SCALE * sheet.width, SCALE * sheet.height), Image.Resampling.NEAREST)


def _pretraining_spec(rendering: str, i: int) -> Spec:
    colour, light = list(COLOURS)[3 * i % len(COLOURS)], list(LIGHTS)[i % len(LIGHTS)]
    background = BACKGROUNDS[i % len(BACKGROUNDS)]
    texture = TEXTURES[i % len(TEXTURES)]
    return Spec(SHAPES[i], colour, texture, rendering, background, light, cast=0.7, clutter=i % 4, noise=10)


def _downstream_spec(style: Spec, row: int, i: int) -> Spec:
    texture, colour = PAIRS[(i + 4 * row) % len(PAIRS)]
    return replace(style, shape=SHAPES[i], colour=colour, texture=texture)


if __name__ == "__main__":
    main()
