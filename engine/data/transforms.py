"""Which transforms INPUT names, and in which order: an RGB PIL image becomes a float32 tensor (3, H, W).

The order of the names in INPUT.TRANSFORMS does not matter:

| step | training: applied if named                     | keys of INPUT               | testing                 |
|------|------------------------------------------------|-----------------------------|-------------------------|
| 1    | bring to SIZE, unless step 3 or 4 is named:    | SIZE, INTERPOLATION, RESIZE | as RESIZE says          |
|      | resize, or as in testing with center_crop      |                             |                         |
| 2    | random_translation                             | SIZE, INTERPOLATION         |                         |
| 3    | random_crop                                    | SIZE, CROP_PADDING          |                         |
| 4    | random_resized_crop                            | RRCROP_SCALE, INTERPOLATION |                         |
| 5    | random_flip                                    |                             |                         |
| 6    | imagenet_policy, cifar10_policy, svhn_policy   |                             |                         |
| 7    | randaugment, randaugment_fixmatch, randaugment2| RANDAUGMENT_N, _M           |                         |
| 8    | colorjitter                                    | COLORJITTER_B, _C, _S, _H   |                         |
| 9    | randomgrayscale                                | RGS_P                       |                         |
| 10   | gaussian_blur                                  | GB_P, GB_K                  |                         |
| 11   | (always) to a tensor in [0, 1]                 |                             | the same                |
| 12   | cutout                                         | CUTOUT_N, CUTOUT_LEN        |                         |
| 13   | normalize                                      | PIXEL_MEAN, PIXEL_STD       | if named                |
| 14   | gaussian_noise                                 | GN_MEAN, GN_STD             |                         |
| 15   | instance_norm                                  |                             | if named                |

INPUT.RESIZE says how a test image comes to SIZE:

crop      shorter edge to max(SIZE), centre crop: CLIP's way
hf_crop   the same, but half a pixel of the crop is rounded down, as transformers does
squash    both edges to SIZE, whatever the image's shape; nothing is cropped

INPUT.NO_TRANSFORM keeps only steps 1 (resize to SIZE), 11 and 13, in training and in testing.
What is random is drawn from torch's global generator, so the seed of an item decides how it is transformed.

INPUT.REDUCED_DECODING decodes a JPEG file at the smallest of 1, 1/2, 1/4 and 1/8 of its edges that leaves the shorter
one enough pixels. It changes the pixels of large photographs, and where in them a random view lies. What is enough:

steps                  pixels of the shorter edge
to SIZE, as in tests   max(SIZE): nothing is enlarged that the whole image would not need
random_resized_crop    max(SIZE) sqrt(4 / (3 s)), s the smallest share in RRCROP_SCALE: the smallest crop, of edges
                       3 : 4, still has max(SIZE) pixels at its shorter edge; 915 for SIZE 224 and s = 0.08
random_crop            all: it takes pixels as they are
"""

import math
from collections.abc import Callable, Iterable

import torch
from PIL import Image
from torchvision import transforms as T

from ..registry import near_name
from ..text import shorten
from .augmentations import (
    N_MAGNITUDES,
    Cutout,
    FloorCenterCrop,
    GaussianNoise,
    InstanceNormalization,
    RandomMagnitudeAugment,
    RandomTranslation,
    ResizeShorterEdge,
)

IN_TESTS = ("normalize", "instance_norm")  # the names that count when testing, too
INTERPOLATION_MODES = {name: T.InterpolationMode(name) for name in ("bilinear", "bicubic", "nearest")}
RESIZES = {  # INPUT.RESIZE, see above
    "crop": lambda size, mode: [ResizeShorterEdge(max(size), interpolation=mode), T.CenterCrop(size)],
    "hf_crop": lambda size, mode: [ResizeShorterEdge(max(size), interpolation=mode), FloorCenterCrop(size)],
    "squash": lambda size, mode: [T.Resize(size, interpolation=mode)],
}


def build_transform(cfg, is_train: bool = True) -> Callable[[Image.Image], torch.Tensor]:
    """Composes the transform from an RGB PIL image to a float32 tensor (3, H, W), (H, W) = cfg.INPUT.SIZE.

    With INPUT.REDUCED_DECODING it says by `shorter_edge` how files are decoded for it.

    Raises:
        ValueError: If INPUT has a name or a value that is not allowed.
    """
    node = cfg.INPUT
    if errors := check_input(node):
        raise ValueError("\n".join(errors))
    names, resize = steps(node, is_train)
    on_image = RESIZES[resize](node.SIZE, INTERPOLATION_MODES[node.INTERPOLATION]) if resize else []
    on_image += [build(node) for name, build in ON_IMAGE.items() if name in names]
    on_tensor = [build(node) for name, build in ON_TENSOR.items() if name in names]
    composed = [*on_image, T.ToTensor(), *on_tensor]
    return OfReducedImages(composed, enough_pixels(node, names)) if node.REDUCED_DECODING else T.Compose(composed)


class OfReducedImages(T.Compose):
    """Transforms one after another, of images that are decoded for them at a reduced scale.

    Attributes:
        shorter_edge: Pixels that the shorter edge of a decoded image must have; 0: the whole image is needed.
    """

    def __init__(self, transforms: list[Callable], shorter_edge: int):
        super().__init__(transforms)
        self.shorter_edge = shorter_edge

    def __repr__(self) -> str:
        return f"{super().__repr__()} of JPEG files decoded for {self.shorter_edge or 'all'} pixels"


def enough_pixels(node, names: set[str]) -> int:
    """Returns how many pixels of the shorter edge the steps need, see above; 0: all."""
    if "random_crop" in names:
        return 0
    if "random_resized_crop" in names:
        return math.ceil(max(node.SIZE) * math.sqrt(4 / (3 * node.RRCROP_SCALE[0])))
    return max(node.SIZE)


def needed_edge(cfg, transforms: Iterable[Callable | None]) -> int:
    """Returns the `shorter_edge` for which image files are decoded that go through all these transforms; 0: whole.

    Raises:
        ValueError: If INPUT.REDUCED_DECODING is set and a transform has no such attribute.
    """
    if not cfg.INPUT.REDUCED_DECODING:
        return 0
    edges = [getattr(transform, "shorter_edge", None) for transform in transforms]
    if None in edges:
        raise ValueError(
            "INPUT.REDUCED_DECODING is True, but a transform of the method's own does not say how many pixels it "
            "needs. Give it an attribute `shorter_edge`, 0 for whole images, or leave INPUT.REDUCED_DECODING out."
        )
    return max(edges) if all(edges) else 0


def steps(node, is_train: bool) -> tuple[set[str], str]:
    """Returns the names of INPUT.TRANSFORMS that are applied, and how an image comes to SIZE before; "": by them."""
    names = set(node.TRANSFORMS)
    if node.NO_TRANSFORM:
        names &= {"normalize"}
    elif not is_train:
        names = names & {*IN_TESTS} | {"center_crop"}
    if names & {"random_crop", "random_resized_crop"}:
        return names, ""
    # Differs from the original: there center_crop does nothing in training.
    return names, node.RESIZE if "center_crop" in names else "squash"


def describe_transform(cfg, *, is_train: bool) -> list:
    """Returns what decides a transform, and nothing else, as plain values: equal ones, the same transform."""
    node = cfg.INPUT
    names, resize = steps(node, is_train)
    used = [(resize, ("SIZE", "INTERPOLATION"))] if resize else []
    used += [(name, KEYS.get(name, ())) for name in (*ON_IMAGE, *ON_TENSOR) if name in names]
    views = [["views", node.VIEWS, cfg.DATALOADER.K_TRANSFORMS]] if is_train else []
    views += [["decoded for", enough_pixels(node, names)]] if node.REDUCED_DECODING else []
    return [[name, *(_plain(node[key]) for key in keys)] for name, keys in used] + views


def _plain(value):
    """Returns a value of INPUT in one form: 1 and 1.0, (1, 1) and [1, 1] are the same."""
    return value if isinstance(value, str) else list(map(_plain, value)) if hasattr(value, "__iter__") else float(value)


# Differs from the original: AutoAugment and RandAugment are torchvision's, with other ranges; random_crop pads images
# that are smaller than SIZE, where the original fails.
ON_IMAGE = {
    "random_translation": lambda c: RandomTranslation(c.SIZE, interpolation=INTERPOLATION_MODES[c.INTERPOLATION]),
    "random_crop": lambda c: T.RandomCrop(c.SIZE, padding=c.CROP_PADDING, pad_if_needed=True),
    "random_resized_crop": lambda c: T.RandomResizedCrop(
        c.SIZE, scale=c.RRCROP_SCALE, interpolation=INTERPOLATION_MODES[c.INTERPOLATION]
    ),
    "random_flip": lambda c: T.RandomHorizontalFlip(),
    "imagenet_policy": lambda c: T.AutoAugment(T.AutoAugmentPolicy.IMAGENET),
    "cifar10_policy": lambda c: T.AutoAugment(T.AutoAugmentPolicy.CIFAR10),
    "svhn_policy": lambda c: T.AutoAugment(T.AutoAugmentPolicy.SVHN),
    "randaugment": lambda c: T.RandAugment(num_ops=c.RANDAUGMENT_N, magnitude=c.RANDAUGMENT_M),
    "randaugment_fixmatch": lambda c: RandomMagnitudeAugment(c.RANDAUGMENT_N),
    "randaugment2": lambda c: RandomMagnitudeAugment(c.RANDAUGMENT_N, p=0.6),
    "colorjitter": lambda c: T.ColorJitter(c.COLORJITTER_B, c.COLORJITTER_C, c.COLORJITTER_S, c.COLORJITTER_H),
    "randomgrayscale": lambda c: T.RandomGrayscale(p=c.RGS_P),
    "gaussian_blur": lambda c: T.RandomApply([T.GaussianBlur(c.GB_K)], p=c.GB_P),
}
ON_TENSOR = {
    "cutout": lambda c: Cutout(c.CUTOUT_N, c.CUTOUT_LEN),
    "normalize": lambda c: T.Normalize(c.PIXEL_MEAN, c.PIXEL_STD),
    "gaussian_noise": lambda c: GaussianNoise(c.GN_MEAN, c.GN_STD),
    "instance_norm": lambda c: InstanceNormalization(),
}
KEYS = {  # of INPUT, which the transforms above read
    "random_translation": ("SIZE", "INTERPOLATION"),
    "random_crop": ("SIZE", "CROP_PADDING"),
    "random_resized_crop": ("SIZE", "RRCROP_SCALE", "INTERPOLATION"),
    "randaugment": ("RANDAUGMENT_N", "RANDAUGMENT_M"),
    "randaugment_fixmatch": ("RANDAUGMENT_N",),
    "randaugment2": ("RANDAUGMENT_N",),
    "colorjitter": ("COLORJITTER_B", "COLORJITTER_C", "COLORJITTER_S", "COLORJITTER_H"),
    "randomgrayscale": ("RGS_P",),
    "gaussian_blur": ("GB_P", "GB_K"),
    "cutout": ("CUTOUT_N", "CUTOUT_LEN"),
    "normalize": ("PIXEL_MEAN", "PIXEL_STD"),
    "gaussian_noise": ("GN_MEAN", "GN_STD"),
}
TRANSFORM_NAMES = ("center_crop", *ON_IMAGE, *ON_TENSOR)
RULES = {  # what the value of a key must be
    "INTERPOLATION": f"one of: {', '.join(INTERPOLATION_MODES)}",
    "RESIZE": f"one of: {', '.join(RESIZES)}",
    "SIZE": "(height, width) in pixels, such as (224, 224)",
    "RRCROP_SCALE": "(smallest, largest) share of the area, above 0 and at most 1, such as (0.08, 1.0)",
    "PIXEL_MEAN": "three numbers, of R, G and B",
    "PIXEL_STD": "three numbers above 0, of R, G and B",
    "RANDAUGMENT_M": f"a whole number from 0 to {N_MAGNITUDES - 1}",
    "GB_K": "an odd number of pixels above 0",
}


def check_transforms(names: Iterable[str]) -> list[str]:
    """Returns an error for every name that is not a transform."""
    if isinstance(names, str):
        return [f"INPUT.TRANSFORMS is {shorten(names)}; it must be a list of names. Write [{shorten(names)}]."]
    return [
        f"INPUT.TRANSFORMS has {shorten(name)}, expected some of: {', '.join(TRANSFORM_NAMES)}."
        f"{near_name(str(name), TRANSFORM_NAMES)}"
        for name in names
        if name not in TRANSFORM_NAMES
    ]


def check_input(node) -> list[str]:
    """Returns an error for every value of `node`, cfg.INPUT, that its transforms cannot use."""
    names, size, scale, mean, std = node.TRANSFORMS, node.SIZE, node.RRCROP_SCALE, node.PIXEL_MEAN, node.PIXEL_STD
    is_right = {
        "INTERPOLATION": node.INTERPOLATION in INTERPOLATION_MODES,
        "RESIZE": node.RESIZE in RESIZES,
        "SIZE": _are_numbers(size, 2, int) and min(size) > 0,
        "RRCROP_SCALE": _are_numbers(scale, 2) and 0 < scale[0] <= scale[1] <= 1,
        "PIXEL_MEAN": _are_numbers(mean, 3),
        "PIXEL_STD": _are_numbers(std, 3) and min(std) > 0,
        "RANDAUGMENT_M": "randaugment" not in names or node.RANDAUGMENT_M in range(N_MAGNITUDES),
        "GB_K": "gaussian_blur" not in names or (node.GB_K > 0 and node.GB_K % 2),
    }
    wrong = [f"INPUT.{key} is {shorten(node[key])}; it must be {RULES[key]}." for key in RULES if not is_right[key]]
    return check_transforms(names) + wrong


def _are_numbers(values, length: int, *types: type) -> bool:
    return len(values) == length and all(type(value) in (types or (int, float)) for value in values)
