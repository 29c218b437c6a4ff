"""Features of images by a frozen tower: each image, or each random view of it, is encoded once.

A feature is found again by what decides it: the tower's weights, precision and device, the transform, the file's path,
size and time of change, and for a random view what seeded it. engine/features/cache.py says how it is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data.datum import Datum
from ..data.images import DatasetWrapper
from ..data.manager import count_workers
from ..data.samplers import gather_batch, mix_seeds
from ..data.transforms import build_transform
from ..distributed import any_rank, gather_rows, local_rank, n_ranks, share
from ..interruption import leave_signals_to_parent, raise_if_asked
from ..log import progress
from ..process_cache import shared
from .cache import FeatureCache

Index = int | tuple[int, int]  # of an item, or of it and an epoch
GB = 1e9
CPU_BATCH = 32  # images encoded at once on a CPU: more take longer each, and the next are read meanwhile
N_BATCHES = 4  # each rank encodes so many, then they are written: it is what a kill loses
N_SHARED = 4  # caches that runs in one process share: of training and test transforms, of two data sets


class FeatureReader:
    """Gives the features of items, from the cache or from the tower.

    Args:
        cfg: The config.
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
        self.kept_transforms = {repr(build_transform(cfg, is_train)) for is_train in (True, False)}
        self.caches: dict[str, FeatureCache] = {}

    def read(self, items: Sequence[Datum], *, transform: Callable | None = None) -> Tensor:
        """Returns the features (N, E) float32 of items, on the CPU; by default under the test transform."""
        transform = transform or build_transform(self.cfg, is_train=False)
        return self._read(items, transform, {index: item_key(item) for index, item in enumerate(items)})

    def predictions(
        self, loader: DataLoader, classify: Callable[[Tensor], Tensor], label: str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the logits (B, C) and labels (B,) of a loader's batches, of images under one transform.

        Images are only read where their features are not kept. `classify` makes logits of features (B, E) on the
        device; the progress bar says `label`.
        """
        items = loader.dataset.data_source
        features = self.read(items, transform=loader.dataset.transforms[0])
        labels = torch.tensor([item.label for item in items])
        for i, indices in enumerate(progress(list(loader.batch_sampler), label)):
            logits = classify(features[indices].to(self.device))
            yield gather_batch(loader, i, logits, labels[indices].to(self.device))

    def read_views(self, items: Sequence[Datum], transform: Callable, n_views: int) -> Tensor:
        """Returns the features (N, V, E) float32 of V random views of each item: those of a run's first V epochs."""
        views = [(index, epoch) for index in range(len(items)) for epoch in range(n_views)]
        keys = {(index, epoch): item_key(items[index], self.cfg.SEED, epoch, index) for index, epoch in views}
        return self._read(items, transform, keys).unflatten(0, (len(items), n_views))

    @torch.no_grad()
    def _read(self, items: Sequence[Datum], transform: Callable, keys: dict[Index, bytes]) -> Tensor:
        """Returns the features (N, E) of images under a transform; `keys` has the key of each index."""
        cache = self._open_cache(transform)
        rows = cache.lookup(list(keys.values()))
        # Machines have caches of their own: what one rank lacks, all ranks encode together.
        missing = [index for index, lacks in zip(keys, any_rank([row is None for row in rows])) if lacks]
        if missing:
            for indices, features in self._encode(DatasetWrapper(self.cfg, items, transform), missing):
                cache.add([keys[index] for index in indices], features, write=local_rank() == 0)
                raise_if_asked()  # what is encoded is kept
            rows = cache.lookup(list(keys.values()))
        return torch.from_numpy(np.stack(rows))

    def _encode(self, dataset: DatasetWrapper, indices: list[Index]) -> Iterator[tuple[list[Index], np.ndarray]]:
        """Yields the indices in pieces, each with its features (n, E), of which every rank encodes a share."""
        pieces = in_batches(indices, N_BATCHES * self.batch_size * n_ranks())
        batches_of = [in_batches(piece[share(len(piece))] or piece[:1], self.batch_size) for piece in pieces]
        loader = DataLoader(
            dataset,
            batch_sampler=sum(batches_of, []),
            num_workers=count_workers(self.cfg.DATALOADER.NUM_WORKERS),
            worker_init_fn=leave_signals_to_parent,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # so that it draws nothing from torch's own
        )
        images = (batch["img"].to(self.device, non_blocking=True) for batch in progress(loader, "features"))
        for piece, batches in zip(pieces, batches_of):
            features = torch.cat([self.encode(next(images)) for _ in batches])
            yield piece, gather_rows(features, len(piece)).cpu().numpy()

    def _open_cache(self, transform: Callable) -> FeatureCache:
        """Returns where features under a transform are kept: for good if it is the config's, whose repr says it all."""
        node = self.cfg.FEATURES
        max_bytes = int(node.MAX_GB * GB)
        if repr(transform) not in self.kept_transforms:
            return FeatureCache(None, "", max_bytes=max_bytes)
        space = hashlib.sha256(f"{self.space} {transform!r}".encode()).hexdigest()[:32]
        if space not in self.caches:
            folder = Path(node.DIR).expanduser() if node.DIR else None
            make = partial(FeatureCache, folder, space, max_bytes=max_bytes)
            self.caches[space] = shared("features", (folder, space), make, keep=N_SHARED)
        return self.caches[space]


class ViewBatches:
    """The batches of a training loader with features in place of images, of VIEWS random views of each item.

    Epoch e takes view e of every item while there are new ones, so a run of at most VIEWS epochs sees what one with
    fresh views sees; later it takes for each item one of the VIEWS, drawn by (SEED, e, index). All of them are read
    before the first batch, in one pass: it starts the workers once and decodes each file once.
    """

    def __init__(self, reader: FeatureReader, loader: DataLoader, n_views: int):
        self.reader, self.loader, self.n_views = reader, loader, n_views
        self.items, self.batch_sampler = loader.dataset.data_source, loader.batch_sampler
        self.labels = torch.tensor([item.label for item in self.items])
        self.views: Tensor | None = None  # (N, V, E)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.views is None:
            self.views = self.reader.read_views(self.items, self.loader.dataset.transforms[0], self.n_views)
        return self._batches(int(self.loader.dataset.epoch))

    def _batches(self, epoch: int) -> Iterator[dict[str, Any]]:
        seed = self.reader.cfg.SEED
        for indices in self.batch_sampler:
            fresh = epoch < self.n_views
            chosen = [epoch if fresh else mix_seeds(seed, epoch, index) % self.n_views for index in indices]
            features = self.views[indices, chosen]
            yield {"features": features, "label": self.labels[indices], "index": torch.tensor(indices)}


def item_key(item: Datum, *seeds: int) -> bytes:
    """Returns what names an image as it is now, and the seeds of its view, as 32 hexadecimal digits."""
    status = os.stat(item.impath)
    parts = (os.path.abspath(item.impath), status.st_size, status.st_mtime_ns, *seeds)
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32].encode()


def in_batches(indices: list[Index], batch_size: int) -> list[list[Index]]:
    """Returns the indices in batches, the last of which may be smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def weights_digest(module: nn.Module) -> str:
    """Returns a sha256 over what a module is, and over the name, dtype, shape, strides and bytes of each tensor."""
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():  # strides: the memory format decides the last digits
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
