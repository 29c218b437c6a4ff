"""The classes, styles, seeds and files of the `shapes` data sets: what is drawn, and where it is kept.

Classes: 12 shapes x 8 pairs of texture and colour. Labels run so that the first half (the base classes) has four
shapes of its own, the second half (the new classes) four others; the four shapes in between are shared, with plain and
striped ones in the first half, dotted and checkered ones in the second.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from engine import Datum

from .shapes_drawing import Spec, draw
from .shapes_masks import SHAPES
from .split import SPLITS as SPLIT_NAMES
from .split import missing_files, read_split, write_split

# Two colours to a texture, chosen so that warm light brings them closer together.
PAIRS = (
    ("plain", "gray"),
    ("plain", "blue"),
    ("striped", "pink"),
    ("striped", "orange"),
    ("dotted", "purple"),
    ("dotted", "brown"),
    ("checkered", "yellow"),
    ("checkered", "green"),
)
BASE_SHAPES, SHARED_SHAPES, NEW_SHAPES = SHAPES[:4], SHAPES[4:8], SHAPES[8:]

# Images of a class, and the seed that is used for this split and for nothing else.
SPLITS = {"train": (20, 1101), "val": (8, 1102), "test": (20, 1103)}

# Warm light beyond any in pretraining (cast 1.4, there at most 1); what is drawn is filled in by `class_specs`.
STYLE = Spec(
    shape="",
    colour="",
    texture="",
    rendering="photo",
    background="rough",
    light="warm",
    cast=1.4,
    clutter=5,
    blur=1,
    noise=14,
    size=(0.5, 0.8),
)


def class_specs(style: Spec = STYLE) -> list[Spec]:
    """The 96 classes as specs in the given style; the index is the label."""
    plans = [(BASE_SHAPES, PAIRS), (SHARED_SHAPES, PAIRS[:4]), (SHARED_SHAPES, PAIRS[4:]), (NEW_SHAPES, PAIRS)]
    return [
        replace(style, shape=shape, colour=colour, texture=texture)
        for shapes, pairs in plans
        for shape in shapes
        for texture, colour in pairs
    ]


def class_names() -> list[str]:
    """The 96 class names, such as "striped pink star"; the index is the label."""
    return [f"{spec.texture} {spec.colour} {spec.shape}" for spec in class_specs()]


def draw_image(spec: Spec, seed: int, label: int, number: int) -> np.ndarray:
    """One image of a split: uint8 (48, 48, 3), a function of the arguments alone."""
    return draw(spec, np.random.Generator(np.random.PCG64([seed, label, number])))


def draw_files(image_dir: Path, split_path: Path, style: Spec, splits: dict[str, tuple[int, int]]) -> None:
    """Draws a data set's images and writes its split file, unless just these are there.

    The split file comes last, so an interrupted drawing never counts as complete; every file appears whole, so several
    processes may draw the same set at once.

    Args:
        image_dir: where the images shall lie; made if missing.
        split_path: the split file, beside image_dir or elsewhere.
        style: the style of all images.
        splits: number of images of a class, and seed, of "train", "val" and "test".
    """
    if _is_drawn(image_dir, split_path, style, splits):
        return
    image_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=image_dir, prefix=".unfinished-") as unfinished:
        items = {
            name: _draw_split(image_dir / name, style, n, seed, Path(unfinished) / "image.png")
            for name, (n, seed) in splits.items()
        }
    write_split(split_path, image_dir, *(items.get(name, []) for name in SPLIT_NAMES))


def _is_drawn(image_dir: Path, split_path: Path, style: Spec, splits: dict[str, tuple[int, int]]) -> bool:
    """Whether all files are there, and the first image of each split is what this code draws, not an older one."""
    if not split_path.exists():
        return False
    listed = read_split(split_path, image_dir)
    if missing_files(*listed):
        return False
    first_spec, firsts = class_specs(style)[0], {name: items[0] for name, items in zip(SPLIT_NAMES, listed) if items}
    return firsts.keys() == splits.keys() and all(
        np.array_equal(np.asarray(Image.open(item.impath)), draw_image(first_spec, splits[name][1], 0, 0))
        for name, item in firsts.items()
    )


def _draw_split(folder: Path, style: Spec, n: int, seed: int, unfinished: Path) -> list[Datum]:
    items = []
    for label, (spec, class_name) in enumerate(zip(class_specs(style), class_names(), strict=True)):
        class_folder = folder / class_name.replace(" ", "_")
        class_folder.mkdir(parents=True, exist_ok=True)
        for number in range(n):
            path = class_folder / f"{number:02d}.png"
            Image.fromarray(draw_image(spec, seed, label, number)).save(unfinished, compress_level=1)
            unfinished.replace(path)
            items.append(Datum(str(path), label, classname=class_name))
    return items
