"""Image transforms by name: an RGB PIL image becomes a float32 tensor (3, H, W).

The order is fixed, whatever the order of the names in INPUT.TRANSFORMS:

| step | training: applied if named                     | keys of INPUT               | testing                 |
|------|------------------------------------------------|-----------------------------|-------------------------|
| 1    | bring to SIZE, unless step 3 or 4 is named:    | SIZE, INTERPOLATION         | shorter edge to         |
|      | resize, or as in testing with center_crop      |                             | max(SIZE), centre crop  |
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

INPUT.NO_TRANSFORM leaves steps 1 (resize to SIZE), 11 and 13, in training and in testing.
Everything random draws from torch's global generator, so the seed of an item decides its transform.
"""

from collections.abc import Callable, Iterable

import torch
from PIL import Image
from torchvision import transforms as T

from ..registry import near_name
from .augmentations import (
    N_MAGNITUDES,
    Cutout,
    GaussianNoise,
    InstanceNormalization,
    RandomMagnitudeAugment,
    RandomTranslation,
    ResizeShorterEdge,
)

INTERPOLATION_MODES = {
    "bilinear": T.InterpolationMode.BILINEAR,
    "bicubic": T.InterpolationMode.BICUBIC,
    "nearest": T.InterpolationMode.NEAREST,
}


def build_transform(cfg, is_train: bool = True) -> Callable[[Image.Image], torch.Tensor]:
    """Composes the transform of a split.

    Args:
        cfg: The configuration; its node INPUT is read.
        is_train: Whether to augment.

    Returns:
        A callable from an RGB PIL image to a float32 tensor (3, H, W), (H, W) = cfg.INPUT.SIZE.

    Raises:
        ValueError: A name or a value of cfg.INPUT that is not allowed.
    """
    node = cfg.INPUT
    if errors := check_input(node):
        raise ValueError("\n".join(errors))
    names = set(node.TRANSFORMS)
    if node.NO_TRANSFORM:
        is_train, names = True, names & {"normalize"}

    if is_train:
        on_image = _fit_to_size(node, names) + [build(node) for name, build in ON_IMAGE.items() if name in names]
    else:
        on_image, names = _shorter_edge_and_center_crop(node), names & {"normalize", "instance_norm"}
    on_tensor = [build(node) for name, build in ON_TENSOR.items() if name in names]
    return T.Compose([*on_image, T.ToTensor(), *on_tensor])


def _fit_to_size(node, names: set[str]) -> list[Callable]:
    if names & {"random_crop", "random_resized_crop"}:
        return []
    # Differs from the original: there center_crop is accepted in training and does nothing.
    if "center_crop" in names:
        return _shorter_edge_and_center_crop(node)
    return [T.Resize(node.SIZE, interpolation=INTERPOLATION_MODES[node.INTERPOLATION])]


def _shorter_edge_and_center_crop(node) -> list[Callable]:
    resize = ResizeShorterEdge(max(node.SIZE), interpolation=INTERPOLATION_MODES[node.INTERPOLATION])
    return [resize, T.CenterCrop(node.SIZE)]


# Differs from the original: torchvision's AutoAugment and RandAugment, whose ranges are not those of the original's
# copies; random_crop pads images that are smaller than SIZE, which stopped the original.
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
TRANSFORM_NAMES = ("center_crop", *ON_IMAGE, *ON_TENSOR)


def check_transforms(names: Iterable[str]) -> list[str]:
    """Returns an error for every name that is not a transform."""
    if isinstance(names, str):
        return [f'INPUT.TRANSFORMS is "{names}", expected a list of names. Write ["{names}"].']
    return [
        f'INPUT.TRANSFORMS has "{name}", expected names of: {", ".join(TRANSFORM_NAMES)}.'
        f"{near_name(str(name), TRANSFORM_NAMES) or ' Correct or remove the name.'}"
        for name in names
        if name not in TRANSFORM_NAMES
    ]


def check_input(node) -> list[str]:
    """Returns an error for every value of `node`, cfg.INPUT, that its transforms cannot use."""
    names = node.TRANSFORMS
    errors = check_transforms(names)
    if node.INTERPOLATION not in INTERPOLATION_MODES:
        options = ", ".join(INTERPOLATION_MODES)
        errors.append(f'INPUT.INTERPOLATION is "{node.INTERPOLATION}", expected one of: {options}. Change the key.')
    if not (_are_numbers(node.SIZE, 2, int) and min(node.SIZE) > 0):
        errors.append(
            f"INPUT.SIZE is {node.SIZE}, expected (height, width), two whole numbers above 0. Write (224, 224)."
        )
    if not (_are_numbers(node.RRCROP_SCALE, 2) and 0 < node.RRCROP_SCALE[0] <= node.RRCROP_SCALE[1] <= 1):
        allowed = "(smallest, largest), two shares of the area above 0 and at most 1"
        errors.append(f"INPUT.RRCROP_SCALE is {node.RRCROP_SCALE}, expected {allowed}. Write (0.08, 1.0).")
    if not _are_numbers(node.PIXEL_MEAN, 3):
        errors.append(f"INPUT.PIXEL_MEAN is {node.PIXEL_MEAN}, expected three numbers, of R, G and B. Change the key.")
    if not (_are_numbers(node.PIXEL_STD, 3) and min(node.PIXEL_STD) > 0):
        allowed = "three numbers above 0, of R, G and B"
        errors.append(f"INPUT.PIXEL_STD is {node.PIXEL_STD}, expected {allowed}. Change the key.")
    if "randaugment" in names and node.RANDAUGMENT_M not in range(N_MAGNITUDES):
        allowed = f"a whole number from 0 to {N_MAGNITUDES - 1}"
        errors.append(f"INPUT.RANDAUGMENT_M is {node.RANDAUGMENT_M}, expected {allowed}. Change the key.")
    if "gaussian_blur" in names and not (node.GB_K > 0 and node.GB_K % 2 == 1):
        errors.append(f"INPUT.GB_K is {node.GB_K}, expected an odd number of pixels above 0. Change the key.")
    return errors


def _are_numbers(values, length: int, *types: type) -> bool:
    return len(values) == length and all(type(value) in (types or (int, float)) for value in values)
