"""The classes, styles, seeds and files of the `shapes` data sets: what is drawn, and where it is kept.

Classes: 12 shapes x 8 pairs of texture and colour. Labels run so that the first half (the base classes) has four
shapes of its own, the second half (the new classes) four others; the four shapes in between are shared, with plain and
striped ones in the first half, dotted and checkered ones in the second.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from engine import Datum
from engine.data.datum import SPLITS as SPLIT_NAMES

from ..splits.split_file import read_split, write_split
from ..verify.wrong_files import find_unusable
from .shapes_drawing import Spec, draw
from .shapes_masks import SHAPES

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
STYLE = Spec("", "", "", "photo", "rough", "warm", cast=1.4, clutter=5, blur=1, noise=14, size=(0.5, 0.8))

Plan = list[tuple[Datum, tuple[Spec, int, int, int]]]  # a split's items, each with the arguments of `draw_image`


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


def draw_files(
    image_dir: Path,
    split_path: Path,
    styles: Sequence[Spec],
    splits: dict[str, tuple[int, int]],
    labels: Sequence[int] | None = None,
) -> None:
    """Draws a data set's images and writes its split file, unless just these are there.

    The split file comes last, so an interrupted drawing never counts as complete; every file appears whole, so several
    processes may draw the same set at once.

    Args:
        image_dir: Where the images shall lie; made if missing.
        split_path: The split file.
        styles: Image i of a class takes style i modulo their number.
        splits: Number of images of a class, and seed, of "train", "val" and "test".
        labels: The classes that are drawn, as labels among the 96, renumbered from 0 in this order; None: all.
    """
    plans = {name: _plan_split(image_dir / name, styles, labels, n, seed) for name, (n, seed) in splits.items()}
    if _is_drawn(image_dir, split_path, plans, len(styles)):
        return
    image_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=image_dir, prefix=".unfinished-") as folder:
        unfinished = Path(folder) / "image.png"
        for item, image_arguments in chain(*plans.values()):
            Path(item.impath).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_image(*image_arguments)).save(unfinished, compress_level=1)
            unfinished.replace(item.impath)
    write_split(split_path, image_dir, *([item for item, _ in plans.get(name, [])] for name in SPLIT_NAMES))


def _plan_split(folder: Path, styles: Sequence[Spec], labels: Sequence[int] | None, n: int, seed: int) -> Plan:
    in_styles, names = [class_specs(style) for style in styles], class_names()
    plan = []
    for label, source_label in enumerate(range(len(names)) if labels is None else labels):
        class_name = names[source_label]
        for number in range(n):
            path = folder / class_name.replace(" ", "_") / f"{number:02d}.png"
            spec = in_styles[number % len(in_styles)][source_label]
            plan.append((Datum(str(path), label, classname=class_name), (spec, seed, label, number)))
    return plan


def _is_drawn(image_dir: Path, split_path: Path, plans: dict[str, Plan], n_styles: int) -> bool:
    """Whether all files are there, and the first of each split and style are what this code draws, not older ones."""
    if not split_path.exists():
        return False
    listed = dict(zip(SPLIT_NAMES, read_split(split_path, image_dir), strict=True))
    if any(listed[name] != [item for item, _ in plans.get(name, [])] for name in SPLIT_NAMES):
        return False
    missing, _ = find_unusable(*listed.values())
    return not missing and all(
        np.array_equal(np.asarray(Image.open(item.impath)), draw_image(*image_arguments))
        for plan in plans.values()
        for item, image_arguments in plan[:n_styles]
    )
