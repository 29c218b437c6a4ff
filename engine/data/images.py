"""From one item to its part of a batch: the image file is read and its transform drawn from a seed of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from ..distributed import n_local_ranks
from .datum import Datum
from .image_io import read_image
from .samplers import mix_seeds
from .transforms import build_transform

GB = 1e9


class DatasetWrapper(Dataset):
    """Reads item `index` and returns its part of a batch.

    Args:
        cfg: The config.
        data_source: The items.
        transform: PIL image -> tensor (3, H, W); a list gives one view for each. Random ones draw from torch's
            generator, which is seeded for every item.
        is_train: Whether DATALOADER.K_TRANSFORMS views are made of each image, and images are kept for other epochs.
    """

    def __init__(
        self,
        cfg,
        data_source: Sequence[Datum],
        transform: Callable | Sequence[Callable] | None = None,
        is_train: bool = False,
    ):
        self.data_source = data_source
        self.seed = cfg.SEED
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared: workers that live on see changes
        self.images = ImageCache(cfg.DATALOADER.CACHE_GB * GB / n_local_ranks() if is_train else 0)
        transforms = list(transform) if isinstance(transform, (list, tuple)) else [transform]
        n_views = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        if n_views < 1:
            raise ValueError(f"DATALOADER.K_TRANSFORMS is {n_views}, expected 1 or more views of an image. Change it.")
        self.transforms = [transform for transform in transforms for _ in range(n_views)]
        # Differs from the original: img0 is the test transform's view, aspect ratio kept, not the squeezed image.
        self.img0_transform = build_transform(cfg, is_train=False) if cfg.DATALOADER.RETURN_IMG0 else None

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, index: int) -> dict:
        return self.in_epoch(index, int(self.epoch))

    def in_epoch(self, index: int, epoch: int) -> dict:
        """Returns an item's part of a batch as it is in an epoch."""
        item = self.data_source[index]
        image = self.images.read(item.impath)
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": index}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix_seeds(self.seed, epoch, index))
            for view, transform in enumerate(self.transforms, start=1):
                output["img" if view == 1 else f"img{view}"] = image if transform is None else transform(image)
        if self.img0_transform is not None:
            output["img0"] = self.img0_transform(image)
        return output


class Views(DatasetWrapper):
    """The items as they are in the first epochs, all views of an item one after another.

    Args:
        cfg: The config.
        data_source: The items.
        transform: PIL image -> tensor (3, H, W), a random one.
        n_views: Number of epochs.

    Attributes:
        places: For each view the index of its item, and its epoch.
    """

    def __init__(self, cfg, data_source: Sequence[Datum], transform: Callable, *, n_views: int):
        super().__init__(cfg, data_source, transform)
        self.places = [(index, epoch) for index in range(len(data_source)) for epoch in range(n_views)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> dict:
        return self.in_epoch(*self.places[number])


class ImageCache:
    """Decoded images in memory: the last one, and as many as fit, those read first. Nobody may change them.

    Args:
        max_bytes: Of all worker processes together: each has its own images, in an equal part.
    """

    def __init__(self, max_bytes: float):
        self.max_bytes, self.n_bytes = max_bytes, 0
        self.kept: dict[str, Image.Image] = {}
        self.last: tuple[str, Image.Image] | None = None  # and its path

    def read(self, path: str) -> Image.Image:
        """Returns the image file as RGB; raises what `read_image` does."""
        if path in self.kept:
            return self.kept[path]
        if self.last is not None and self.last[0] == path:
            return self.last[1]
        image = read_image(path)
        self.last = path, image
        n_bytes = 4 * image.width * image.height  # Pillow keeps a pixel in four
        worker = get_worker_info()
        if self.n_bytes + n_bytes <= self.max_bytes / (worker.num_workers if worker else 1):
            self.kept[path] = image
            self.n_bytes += n_bytes
        return image
