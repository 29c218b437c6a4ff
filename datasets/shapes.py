"""Shapes: drawn images of compositional classes such as "striped pink star"; needs no network.

A miniature for first runs and tests, with a CLIP of its own ("ViT-T/8-shapes"): its numbers say nothing about
photographs and are never mixed with the papers'. docs/SHAPES.md describes it.
"""

from pathlib import Path

from .base import DATASET_REGISTRY, FewShotDataset
from .drawing.shapes_scenes import SPLITS, STYLE, draw_files


@DATASET_REGISTRY.register()
class Shapes(FewShotDataset):
    """96 classes; 20 images each to train on, 8 for validation, 20 to test on; drawn on first use."""

    dataset_dir = "shapes"
    image_dir = "images"
    split_file = "split_shapes.json"
    n_classes = 96
    n_items = (1920, 768, 1920)
    default_root = "data"
    prepare_on_first_use = True

    @classmethod
    def prepare(cls, root: Path, *, source: str = "") -> None:
        """Draws the images in about ten seconds, unless all of them are there."""
        folder = root / cls.dataset_dir
        draw_files(folder / cls.image_dir, folder / cls.split_file, (STYLE,), SPLITS)
