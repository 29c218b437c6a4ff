"""Whether tests see kept features of images or their pixels: decided once for a method, when its trainer is built."""

from __future__ import annotations

import logging

from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..data.images import DatasetWrapper

logger = logging.getLogger(__name__)

# Methods of a trainer that see the pixels. Where a subclass of the class that defines image_tower redefines one of
# them, features may not stand for the pixels.
PIXELS_IN_TESTS = ("model_inference", "parse_batch_test")
PIXELS_IN_TRAINING = ("forward_backward", "parse_batch_train")


def why_pixels(cls: type, tower: nn.Module | None, methods: tuple[str, ...]) -> str:
    """Returns why a trainer has to see the pixels; "" where the features of its tower stand for them."""
    if tower is None:
        return f"{cls.__name__} has no frozen part from images to features"
    if any(parameter.requires_grad for parameter in tower.parameters()):
        return f"{cls.__name__} trains its image tower"
    for name in methods:
        if not issubclass(definer(cls, "image_tower"), definer(cls, name)):
            return f"{definer(cls, name).__name__} redefines {name}"
    return ""


def choose_path(cls: type, tower: nn.Module | None, loader: DataLoader | None, n_views: int) -> str:
    """Returns, and logs, why a trainer's tests have to see the pixels; "" where features stand for them.

    Args:
        cls: The trainer's class.
        tower: The module from images to features; None where the method has no such part.
        loader: Of the training items; None where there are none.
        n_views: INPUT.VIEWS.

    Raises:
        ValueError: If the method encodes in a way of its own, or INPUT.VIEWS is set and it needs the pixels.
    """
    if tower is not None and sum("encode_images" in vars(base) for base in cls.__mro__) > 1:
        raise ValueError(
            f"{cls.__name__} redefines encode_images, but features are kept by the weights of image_tower. Let "
            "image_tower return a module that does it all, or redefine model_inference."
        )
    why = why_pixels(cls, tower, PIXELS_IN_TESTS)
    why_no_views = why or why_pixels(cls, tower, PIXELS_IN_TRAINING)
    if not why_no_views and not (loader is None or is_plain(loader.dataset)):
        why_no_views = f"the training loader of {cls.__name__} gives more than one view of an image"
    if why_no_views:
        require_no_views(n_views, why_no_views)
    how = f"read as pixels, since {why}" if why else "encoded once, their features are kept"
    logger.info("Test images: %s", how)
    return why


def require_no_views(n_views: int, why: str) -> None:
    """Raises ValueError if INPUT.VIEWS is set where training needs the pixels; `why` says why it does."""
    if n_views:
        raise ValueError(f"INPUT.VIEWS is {n_views}, which needs features: {why}. Leave INPUT.VIEWS out.")


def require_choice(uses_features: bool, tower: nn.Module | None, n_views: int, name: str) -> None:
    """Raises ValueError if the method `name` cannot have its features kept, or cannot have its pixels."""
    if uses_features and tower is None:
        raise ValueError(f"{name} has no image_tower, so there are no features to keep.")
    if not uses_features:
        require_no_views(n_views, f"{name} asks for the pixels")


def definer(cls: type, name: str) -> type:
    """Returns the class that defines a method of `cls`."""
    return next(base for base in cls.__mro__ if name in vars(base))


def is_plain(dataset: Dataset) -> bool:
    """Says whether an item is one image under one transform, as a feature stands for it."""
    return type(dataset) is DatasetWrapper and len(dataset.transforms) == 1
