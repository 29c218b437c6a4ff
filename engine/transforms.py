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

from collections.abc import Callable, Iterable, Sequence

import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import functional as F

from .registry import near_name

INTERPOLATION_MODES = {
    "bilinear": T.InterpolationMode.BILINEAR,
    "bicubic": T.InterpolationMode.BICUBIC,
    "nearest": T.InterpolationMode.NEAREST,
}
N_MAGNITUDES = 31  # RandAugment's scale is 0 to 30
LONGEST = 16  # times the shorter edge


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


class ResizeShorterEdge(T.Resize):
    """Resizes the shorter edge to `size`; of an image more than LONGEST times as long as wide only the middle.

    A centre crop shows no more than that, to within rounding, and 30,000 x 10 pixels do not become 672,000 x 224.
    Whole multiples of the shorter edge are cut off, so that pixels lie where they would.
    """

    def forward(self, image: Image.Image) -> Image.Image:
        shorter, longer = sorted(image.size)
        n_cut = max((longer // shorter - LONGEST) // 2, 0)  # squares at each end
        height, width = (min(edge, longer - 2 * n_cut * shorter) for edge in (image.height, image.width))
        return super().forward(F.center_crop(image, [height, width]) if n_cut else image)


class RandomTranslation:
    """With probability p, enlarges to 9/8 of the size and crops the size at random; else resizes to it.

    Differs from the original: INPUT.INTERPOLATION is used, there it is always bilinear.
    """

    def __init__(self, size: Sequence[int], *, interpolation: T.InterpolationMode, p: float = 0.5) -> None:
        self.size, self.interpolation, self.p = list(size), interpolation, p
        self.crop = T.RandomCrop(self.size)

    def __call__(self, image: Image.Image) -> Image.Image:
        if torch.rand(()) >= self.p:
            return F.resize(image, self.size, self.interpolation)
        enlarged = [round(edge * 9 / 8) for edge in self.size]
        return self.crop(F.resize(image, enlarged, self.interpolation))


class RandomMagnitudeAugment:
    """Applies n operations of RandAugment in turn, each with probability p and a magnitude of its own.

    Differs from the original: torchvision's list and ranges of operations, 31 magnitudes instead of a continuous one.
    """

    def __init__(self, n_ops: int, *, p: float = 1.0) -> None:
        self.n_ops, self.p = n_ops, p
        self.augments = [T.RandAugment(num_ops=1, magnitude=magnitude) for magnitude in range(N_MAGNITUDES)]

    def __call__(self, image: Image.Image) -> Image.Image:
        for _ in range(self.n_ops):
            if torch.rand(()) < self.p:
                image = self.augments[int(torch.randint(N_MAGNITUDES, ()))](image)
        return image


class Cutout:
    """Sets squares at random centres to zero; what lies outside the image is cut off.

    Paper: Improved Regularization of Convolutional Neural Networks with Cutout, DeVries and Taylor, 2017,
    https://arxiv.org/abs/1708.04552
    """

    def __init__(self, n_holes: int, length: int) -> None:
        self.n_holes, self.length = n_holes, length

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        image = image.clone()
        height, width = image.shape[-2:]
        for _ in range(self.n_holes):
            top = int(torch.randint(height, ())) - self.length // 2
            left = int(torch.randint(width, ())) - self.length // 2
            image[..., max(top, 0) : max(top + self.length, 0), max(left, 0) : max(left + self.length, 0)] = 0
        return image


class GaussianNoise:
    """With probability p, adds noise from N(mean, std^2) to every value."""

    def __init__(self, mean: float, std: float, *, p: float = 0.5) -> None:
        self.mean, self.std, self.p = mean, std, p

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        if torch.rand(()) >= self.p:
            return image
        return image + self.mean + self.std * torch.randn_like(image)


class InstanceNormalization:
    """Gives every channel of an image mean 0 and standard deviation 1 (unbiased); a constant channel becomes 0."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        std, mean = torch.std_mean(image, dim=(-2, -1), keepdim=True)  # each (3, 1, 1)
        return (image - mean) / (std + 1e-8)


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
