"""Draws docs/shapes.png: one image of each shape in each rendering, then of `shapes`, then of its shifted sets.

Run: python -m tools.contact_sheet [--out docs/shapes.png]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.drawing.shapes_drawing import BACKGROUNDS, COLOURS, LIGHTS, RENDERINGS, Spec, draw
from datasets.drawing.shapes_masks import SHAPES, TEXTURES
from datasets.drawing.shapes_scenes import PAIRS, STYLE
from datasets.shapes_shifted import ShapesA, ShapesR, ShapesSketch, ShapesV2

SCALE = 2  # screen pixels to an image's pixel
LABEL_WIDTH, GAP, MARGIN, FONT_SIZE = 170, 18, 10, 20  # screen pixels; GAP: between groups of rows
INK, PAPER = "#222222", "#ffffff"
SHIFTED = {"shapes_v2": ShapesV2, "shapes_sketch": ShapesSketch, "shapes_a": ShapesA, "shapes_r": ShapesR}

Rows = list[tuple[str, np.ndarray]]  # label, images side by side (H, W, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/shapes.png"))
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet().save(out, optimize=True)


def contact_sheet() -> Image.Image:
    """Groups of labelled rows: the renderings of the pretraining images, two rows of `shapes`, its shifted sets."""
    groups = row_groups()
    height, width = (SCALE * n for n in groups[0][0][1].shape[:2])
    n_rows = sum(map(len, groups))
    size = LABEL_WIDTH + width + MARGIN, n_rows * height + (len(groups) - 1) * GAP + 2 * MARGIN
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), FONT_SIZE)
    y = MARGIN
    for rows in groups:
        for label, row in rows:
            image = Image.fromarray(row).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(image, (LABEL_WIDTH, y))
            pen.text((LABEL_WIDTH - MARGIN, y + height // 2), label, fill=INK, font=font, anchor="rm")
            y += height
        y += GAP
    return sheet


def row_groups() -> list[Rows]:
    """Draws the rows of each group: one image of each shape in a row."""
    rng, n = np.random.Generator(np.random.PCG64(0)), len(SHAPES)
    pretraining = [(name, _side_by_side([_pretraining_spec(name, i) for i in range(n)], rng)) for name in RENDERINGS]
    specs = [[_downstream_spec(STYLE, row, i) for i in range(n)] for row in range(2)]
    own = [("shapes", _side_by_side(row, rng)) for row in specs]
    shifted = []
    for name, dataset in SHIFTED.items():
        styles = [dataset.styles[i % len(dataset.styles)] for i in range(n)]
        row = [_downstream_spec(style, 0, i) for i, style in enumerate(styles)]
        shifted.append((name, _side_by_side(row, rng)))
    return [pretraining, own, shifted]


def _side_by_side(specs: list[Spec], rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([draw(spec, rng) for spec in specs], axis=1)


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
