"""Image transforms that torchvision does not have; transforms.py has the names and the order of all.

What is random is drawn from torch's global generator. The repr of a transform shows every parameter: it is part of the
key of a cached feature.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import functional as F

N_MAGNITUDES = 31  # RandAugment's scale is 0 to 30
MAX_RATIO = 16  # of an image's longer to its shorter edge


class ResizeShorterEdge(T.Resize):
    """Resizes the shorter edge to `size`; of an image beyond MAX_RATIO only the middle, all that a centre crop shows.

    Both ends lose whole multiples of the shorter edge, so the pixels that are left keep their positions.
    """

    def forward(self, image: Image.Image) -> Image.Image:
        shorter, longer = sorted(image.size)
        n_cut = max((longer // shorter - MAX_RATIO) // 2, 0)  # squares at each end
        height, width = (min(edge, longer - 2 * n_cut * shorter) for edge in (image.height, image.width))
        return super().forward(F.center_crop(image, [height, width]) if n_cut else image)


class FloorCenterCrop(T.CenterCrop):
    """Crops the middle of an image that is large enough; of an odd number of pixels too many, the last one more goes.

    torchvision rounds half a pixel to an even number; transformers rounds it down.
    """

    def forward(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        return F.crop(image, (image.height - height) // 2, (image.width - width) // 2, height, width)


@dataclass(frozen=True)
class RandomTranslation:
    """With probability p, enlarges to 9/8 of the size and takes a random crop of that size; else resizes to it."""

    # Differs from the original: INPUT.INTERPOLATION is used; there it is always bilinear.
    size: Sequence[int]
    _: KW_ONLY
    interpolation: T.InterpolationMode
    p: float = 0.5

    def __call__(self, image: Image.Image) -> Image.Image:
        if torch.rand(()) >= self.p:
            return F.resize(image, list(self.size), self.interpolation)
        enlarged = [round(edge * 9 / 8) for edge in self.size]
        return T.RandomCrop(self.size)(F.resize(image, enlarged, self.interpolation))


@dataclass(frozen=True)
class RandomMagnitudeAugment:
    """Applies n operations of RandAugment in turn, each with probability p and a random magnitude."""

    # Differs from the original: the operations and their ranges are torchvision's, and there are 31 magnitudes.
    n_ops: int
    _: KW_ONLY
    p: float = 1.0

    def __call__(self, image: Image.Image) -> Image.Image:
        for _ in range(self.n_ops):
            if torch.rand(()) < self.p:
                image = T.RandAugment(num_ops=1, magnitude=int(torch.randint(N_MAGNITUDES, ())))(image)
        return image


@dataclass(frozen=True)
class Cutout:
    """Sets squares at random centres to zero; the part of a square outside the image is ignored.

    Paper: Improved Regularization of Convolutional Neural Networks with Cutout, DeVries and Taylor, 2017,
    https://arxiv.org/abs/1708.04552
    """

    n_holes: int
    length: int

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        image = image.clone()
        height, width = image.shape[-2:]
        for _ in range(self.n_holes):
            top = int(torch.randint(height, ())) - self.length // 2
            left = int(torch.randint(width, ())) - self.length // 2
            image[..., max(top, 0) : max(top + self.length, 0), max(left, 0) : max(left + self.length, 0)] = 0
        return image


@dataclass(frozen=True)
class GaussianNoise:
    """With probability p, adds noise from N(mean, std^2) to every value."""

    mean: float
    std: float
    _: KW_ONLY
    p: float = 0.5

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        if torch.rand(()) >= self.p:
            return image
        return image + self.mean + self.std * torch.randn_like(image)


@dataclass(frozen=True)
class InstanceNormalization:
    """Gives every channel of an image mean 0 and standard deviation 1 (unbiased); a constant channel becomes 0."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        std, mean = torch.std_mean(image, dim=(-2, -1), keepdim=True)  # each (3, 1, 1)
        return (image - mean) / (std + 1e-8)
