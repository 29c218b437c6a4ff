"""Four shifted test sets of `shapes`, in the spirit of ImageNet-V2, -Sketch, -A and -R; drawn on first use.

What was learned on `shapes` is tested on them: nothing is trained or chosen here. ShapesA and ShapesR have half of the
96 classes each, every other shape in all its textures and colours. docs/SHAPES.md describes them.
"""

from dataclasses import replace
from pathlib import Path

from .base import DATASET_REGISTRY, FewShotDataset
from .drawing.shapes_drawing import Spec
from .drawing.shapes_masks import SHAPES
from .drawing.shapes_scenes import STYLE, class_specs, draw_files


def labels_of(shapes: tuple[str, ...]) -> tuple[int, ...]:
    """The labels, among the 96, of all classes of these shapes."""
    return tuple(label for label, spec in enumerate(class_specs()) if spec.shape in shapes)


class ShiftedShapes(FewShotDataset):
    """A test-only set of drawn images.

    Attributes:
        styles: The styles of its images, which take turns within a class.
        n_images: Images of a class.
        seed: Used for this set and for nothing else.
        source_labels: The labels of its classes among the 96 of `shapes`; None: all, in the same order.
    """

    image_dir = "images"
    split_file = "split_shapes.json"
    default_root = "data"
    prepare_on_first_use = True
    styles: tuple[Spec, ...] = ()
    n_images = 0
    seed = 0

    @classmethod
    def prepare(cls, root: Path, *, source: str = "") -> None:
        """Draws the images in a few seconds, unless all of them are there."""
        folder, splits = root / cls.dataset_dir, {"test": (cls.n_images, cls.seed)}
        draw_files(folder / cls.image_dir, folder / cls.split_file, cls.styles, splits, cls.source_labels)


@DATASET_REGISTRY.register()
class ShapesV2(ShiftedShapes):
    """As ImageNet-V2: the same kind of image, collected anew; here a little smaller, warmer and more cluttered."""

    dataset_dir = "shapes_v2"
    styles = (replace(STYLE, cast=1.45, clutter=6, size=(0.42, 0.72), shift=0.2),)
    n_images, seed = 10, 1201
    n_classes, n_items = 96, (0, 0, 960)


@DATASET_REGISTRY.register()
class ShapesSketch(ShiftedShapes):
    """As ImageNet-Sketch: outlines and pale hatching on paper."""

    dataset_dir = "shapes_sketch"
    styles = (replace(STYLE, rendering="sketch"),)
    n_images, seed = 10, 1202
    n_classes, n_items = 96, (0, 0, 960)


@DATASET_REGISTRY.register()
class ShapesA(ShiftedShapes):
    """As ImageNet-A: hard images of some of the classes; here the shape is small among twelve pieces of clutter."""

    dataset_dir = "shapes_a"
    styles = (replace(STYLE, clutter=12, size=(0.45, 0.7)),)
    n_images, seed = 20, 1203
    source_labels = labels_of(SHAPES[::2])
    n_classes, n_items = 48, (0, 0, 960)


@DATASET_REGISTRY.register()
class ShapesR(ShiftedShapes):
    """As ImageNet-R: several renditions of some of the classes; here drawing, neon and painting in cold light."""

    dataset_dir = "shapes_r"
    styles = (
        replace(STYLE, rendering="drawing"),
        replace(STYLE, rendering="neon"),
        replace(STYLE, rendering="painting", light="cold"),
    )
    n_images, seed = 21, 1204
    source_labels = labels_of(SHAPES[1::2])
    n_classes, n_items = 48, (0, 0, 1008)
