"""From an item to its part of a batch: the image file is read, and transformed with a seed of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from ..distributed import n_local_ranks
from .datum import Datum
from .image_io import read_image
from .samplers import mix_seeds
from .transforms import build_transform, needed_edge

GB = 1e9


class DatasetWrapper(Dataset):
    """Reads item `index` and returns its part of a batch.

    Args:
        cfg: The config.
        data_source: The items.
        transform: PIL image -> tensor (3, H, W); a list gives a view for each.
        is_train: Whether DATALOADER.K_TRANSFORMS views are made, and images kept in memory for the next epochs.

    Raises:
        ValueError: If INPUT.REDUCED_DECODING is set and a transform does not say what it needs, see `needed_edge`.
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
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared, so that workers see a new epoch
        transforms = list(transform) if isinstance(transform, (list, tuple)) else [transform]
        n_views = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.transforms = [transform for transform in transforms for _ in range(n_views)]
        # Differs from the original: img0 keeps the aspect ratio, as in testing; there it is squeezed to SIZE.
        self.img0_transform = build_transform(cfg, is_train=False) if cfg.DATALOADER.RETURN_IMG0 else None
        used = [*self.transforms, *filter(None, [self.img0_transform])]
        max_bytes = cfg.DATALOADER.CACHE_GB * GB / n_local_ranks() if is_train else 0
        self.images = ImageCache(max_bytes, shorter_edge=needed_edge(cfg, used))

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, index: int | tuple[int, int]) -> dict:
        """Returns an item's part of a batch in this epoch, or in that of (index, epoch): they seed its transforms."""
        index, epoch = index if isinstance(index, tuple) else (index, int(self.epoch))
        return self.part(self.data_source[index], index, epoch)

    def part(self, item: Datum, index: int, epoch: int) -> dict:
        """Returns the part of a batch of any item: its index and the epoch seed the transforms."""
        image = self.images.read(item.impath)
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": index}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix_seeds(self.seed, epoch, index))
            for view, transform in enumerate(self.transforms, start=1):
                output["img" if view == 1 else f"img{view}"] = image if transform is None else transform(image)
        if self.img0_transform is not None:
            output["img0"] = self.img0_transform(image)
        return output


class ImageCache:
    """Decoded images in memory: the last one read, and the first ones read, as many as fit. They must not be changed.

    All worker processes together have `max_bytes`; each keeps its own images in an equal part. All images are decoded
    for one `shorter_edge`, see `read_image`.
    """

    def __init__(self, max_bytes: float, *, shorter_edge: int = 0):
        self.max_bytes, self.n_bytes, self.shorter_edge = max_bytes, 0, shorter_edge
        self.kept: dict[str, Image.Image] = {}
        self.last: tuple[str, Image.Image] | None = None  # path, image

    def read(self, path: str) -> Image.Image:
        """Returns the image file as RGB, or raises what `read_image` raises."""
        if path in self.kept:
            return self.kept[path]
        if self.last is not None and self.last[0] == path:
            return self.last[1]
        self.last = None  # else an error would leave it beside what a subclass keeps of another file
        image = self.decode(path)
        self.last = path, image
        n_bytes = 4 * image.width * image.height  # Pillow uses four for a pixel
        worker = get_worker_info()
        if self.n_bytes + n_bytes <= self.max_bytes / (worker.num_workers if worker else 1):
            self.kept[path] = image
            self.n_bytes += n_bytes
        return image

    def decode(self, path: str) -> Image.Image:
        """Returns the image file as RGB, whatever is in memory."""
        return read_image(path, shorter_edge=self.shorter_edge)
