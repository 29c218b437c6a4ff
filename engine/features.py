"""Features of images by a frozen tower: each image, or each random view of it, is encoded once.

A feature is found again by what decides it: the tower's weights, precision and device, the transform, the file's path,
size and time of change, and for a random view what seeded it. engine/feature_cache.py says how it is kept.

Run: python -m engine.features info
     python -m engine.features clear
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from .config import get_cfg_default
from .data import count_workers
from .datum import Datum
from .distributed import any_rank, gather_rows, local_rank, share
from .feature_cache import FeatureCache, remove, shards_of
from .images import DatasetWrapper
from .interruption import leave_signals_to_parent
from .log import progress
from .samplers import mix_seeds
from .sharing import shared
from .transforms import build_transform

GB = 1e9
CPU_BATCH = 32  # images encoded at once on a CPU: more take longer each, and the next are read meanwhile
N_SHARED = 4  # caches that runs in one process share: of training and test transforms, of two data sets


class FeatureReader:
    """Gives the features of items, from the cache or from the tower.

    Args:
        cfg: The config: FEATURES, INPUT, DATALOADER, DATASET.NAME and SEED are read.
        tower: The frozen module whose weights decide the features.
        encode: Images (B, 3, H, W) on the tower's device -> features (B, E) float32.
    """

    def __init__(self, cfg, tower: nn.Module, encode: Callable[[Tensor], Tensor]):
        self.cfg, self.encode = cfg, encode
        self.device = next(tower.parameters()).device
        asked = cfg.DATALOADER.TEST.BATCH_SIZE
        self.batch_size = min(asked, CPU_BATCH) if self.device.type == "cpu" else asked
        digest = shared("digest", tower, partial(weights_digest, tower))
        self.space = f"{digest} {self.device.type} {cfg.DATASET.NAME}"
        self.caches: dict[str, FeatureCache] = {}

    @torch.no_grad()
    def read(self, items: Sequence[Datum], *, transform: Callable | None = None, view: int | None = None) -> Tensor:
        """Returns the features (N, E) float32 of items, in their order, on the CPU.

        Args:
            items: The images.
            transform: PIL image -> (3, H, W); None takes the test transform, or with `view` that of training.
            view: Number of a random view: what a run on these items sees in its epoch of this number.
        """
        transform = transform or build_transform(self.cfg, is_train=view is not None)
        cache = self._open_cache(repr(transform))
        seeds = () if view is None else (self.cfg.SEED, view)
        keys = [item_key(item, *seeds, *([index] if seeds else [])) for index, item in enumerate(items)]
        rows = cache.lookup(keys)
        # Machines have caches of their own: what one rank lacks, all ranks encode together.
        missing = [index for index, lacks in enumerate(any_rank([row is None for row in rows])) if lacks]
        if missing:
            own = missing[share(len(missing))] or missing[:1]
            features = torch.cat([self.encode(images) for images in self._images(items, own, transform, view or 0)])
            features = gather_rows(features, len(missing)).cpu().numpy()
            cache.add([keys[index] for index in missing], features, write=local_rank() == 0)
            rows = cache.lookup(keys)
        return torch.from_numpy(np.stack(rows))

    def _images(
        self, items: Sequence[Datum], indices: Sequence[int], transform: Callable, view: int
    ) -> Iterator[Tensor]:
        """Yields batches of images (B, 3, H, W) on the tower's device."""
        dataset = DatasetWrapper(self.cfg, items, transform=transform)
        dataset.set_epoch(view)
        loader = DataLoader(
            Subset(dataset, indices),
            batch_size=self.batch_size,
            num_workers=count_workers(self.cfg.DATALOADER.NUM_WORKERS),
            worker_init_fn=leave_signals_to_parent,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # so that it draws nothing from torch's own
        )
        for batch in progress(loader, "features"):
            yield batch["img"].to(self.device, non_blocking=True)

    def _open_cache(self, transform: str) -> FeatureCache:
        space = hashlib.sha256(f"{self.space} {transform}".encode()).hexdigest()[:32]
        if space not in self.caches:
            node = self.cfg.FEATURES
            folder = Path(node.DIR).expanduser() if node.DIR else None
            make = partial(FeatureCache, folder, space, max_bytes=int(node.MAX_GB * GB))
            self.caches[space] = shared("features", (folder, space), make, keep=N_SHARED)
        return self.caches[space]


class ViewBatches:
    """The batches of a training loader with features in place of images, of VIEWS random views of each item.

    Epoch e takes view e of every item while there are new ones, so a run of at most VIEWS epochs sees what one with
    fresh views sees; later it takes for each item one of the VIEWS, drawn by (SEED, e, index).

    Args:
        reader: Gives the features.
        loader: The training loader; its sampler decides the order.
        n_views: INPUT.VIEWS.
    """

    def __init__(self, reader: FeatureReader, loader: DataLoader, n_views: int):
        self.reader, self.loader, self.n_views = reader, loader, n_views
        self.items, self.batch_sampler = loader.dataset.data_source, loader.batch_sampler
        self.labels = torch.tensor([item.label for item in self.items])
        self.views: list[Tensor] = []  # (N, E) each

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch = int(self.loader.dataset.epoch)
        while len(self.views) < min(epoch + 1, self.n_views):
            self.views.append(self.reader.read(self.items, view=len(self.views)))
        return self._batches(epoch)

    def _batches(self, epoch: int) -> Iterator[dict[str, Any]]:
        seed = self.reader.cfg.SEED
        for indices in self.batch_sampler:
            fresh = epoch < self.n_views
            chosen = [epoch if fresh else mix_seeds(seed, epoch, index) % self.n_views for index in indices]
            features = torch.stack([self.views[view][index] for view, index in zip(chosen, indices)])
            yield {"features": features, "label": self.labels[indices], "index": torch.tensor(indices)}


def item_key(item: Datum, *seeds: int) -> bytes:
    """Returns what names an image as it is now, and the seeds of its view, as 32 hexadecimal digits.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    status = os.stat(item.impath)
    parts = (os.path.abspath(item.impath), status.st_size, status.st_mtime_ns, *seeds)
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32].encode()


def weights_digest(module: nn.Module) -> str:
    """Returns a sha256 over what a module is, and over the name, dtype, shape, strides and bytes of each tensor.

    Strides are the memory format, which decides how the machine computes and so the last digits.
    """
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Says what the cache holds, or empties it."""
    parser = argparse.ArgumentParser(prog="python -m engine.features", description="The cache of image features.")
    parser.add_argument("command", choices=("info", "clear"))
    parser.add_argument("--dir", default=get_cfg_default().FEATURES.DIR, help="its folder (default: %(default)s)")
    args = parser.parse_args(argv)
    folder = Path(args.dir).expanduser()
    shards = shards_of(folder)
    n_bytes, spaces = sum(size for _, size, _ in shards), {shard.parent for *_, shard in shards}
    if args.command == "clear":
        for *_, shard in shards:
            remove(shard)
    verb = "holds" if args.command == "info" else "held, now removed:"
    print(f"{folder} {verb} {len(shards):,} file(s) of {len(spaces):,} tower(s) and data sets, {n_bytes / GB:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
