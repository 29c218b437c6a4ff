"""Features of images by a frozen tower: each image, or each random view of it, is encoded once.

A feature is found again by what decides it: the tower's weights, precision and device, the transform, the bytes of the
file, and for a random view what seeded it. engine/features/cache.py says how it is kept, engine/features/digests.py why
a later test reads no image.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data.datum import Datum
from ..data.image_io import read_image
from ..data.images import DatasetWrapper, ImageCache
from ..data.manager import count_workers, ending_workers
from ..data.samplers import gather_batch, mix_seeds
from ..data.transforms import build_transform
from ..distributed import any_rank, gather_objects, gather_rows, local_rank, n_ranks, share
from ..interruption import leave_signals_to_parent, raise_if_asked
from ..log import progress
from ..process_cache import shared
from .cache import FeatureCache
from .digests import FileDigests, Row, read_file, short_digest

Index = tuple[int, int]  # of an item, and of its view, that of an epoch
Wanted = tuple[str, int, int]  # the path of an item, and its Index
Seeds = tuple[int, ...]  # of a random view; none of the one view under the test transform
GB = 1e9
CPU_BATCH = 32  # images encoded at once on a CPU: more take longer each, and the next are read meanwhile
KNOWN_CODE = ("clip", "torch", "torchvision")  # packages whose modules are told by their repr
N_BATCHES = 4  # each rank encodes so many, then they are written: it is what a kill loses
N_SHARED = 4  # caches that runs in one process share: of training and test transforms, of two data sets


class FeatureReader:
    """Gives the features of items, from the cache or from the tower.

    Args:
        cfg: The config.
        tower: The frozen module whose weights decide the features, from images (B, 3, H, W) to (B, E).
        prepare: Returns what computes the same features sooner; FEATURES.PREPARED says whether it is asked.
    """

    def __init__(self, cfg, tower: nn.Module, prepare: Callable[[nn.Module], nn.Module] | None = None):
        self.cfg, self.plain_tower, self.prepare = cfg, tower, prepare
        self.device = next(tower.parameters()).device
        asked = cfg.DATALOADER.TEST.BATCH_SIZE
        self.batch_size = min(asked, CPU_BATCH) if self.device.type == "cpu" else asked
        self.kept_transforms = {repr(build_transform(cfg, is_train)) for is_train in (True, False)}
        self.caches: dict[str, FeatureCache] = {}
        self.digests = open_digests(cfg)
        self.contents: dict[str, bytes] = {}  # path -> key of the bytes that its features were made of
        self.loader: DataLoader | None = None  # whose processes live on, within `loading`
        self.loading_thread: int | None = None  # which alone uses them

    @cached_property
    def tower(self) -> nn.Module:
        """What computes the features; runs of one process share what was prepared of a tower that they share."""
        if self.prepare is None or not self.cfg.FEATURES.PREPARED:
            return self.plain_tower
        return shared("prepared tower", self.plain_tower, partial(self.prepare, self.plain_tower))

    def encode(self, images: Tensor) -> Tensor:
        """Returns the features (B, E) float32 of images (B, 3, H, W) on the device."""
        return self.tower(images).float()

    @cached_property
    def space(self) -> str:
        """What decides a feature besides the image and its transform; a few images in memory need no digest."""
        digest = shared("digest", self.tower, partial(weights_digest, self.tower))
        return f"{digest} {self.device.type} {self.cfg.DATASET.NAME}"

    def read(self, items: Sequence[Datum], *, transform: Callable | None = None) -> Tensor:
        """Returns the features (N, E) float32 of items, on the CPU; by default under the test transform."""
        transform = transform or build_transform(self.cfg, is_train=False)
        return self._read(items, transform, {(index, 0): () for index in range(len(items))})

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
        views = itertools.product(range(len(items)), range(n_views))
        seeds = {(index, epoch): (self.cfg.SEED, epoch, index) for index, epoch in views}
        return self._read(items, transform, seeds).unflatten(0, (len(items), n_views))

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Until its end, the processes that load images for this thread live on from one `read` to the next.

        They are those of one transform, one of the config's. Within another such block this one changes nothing.
        """
        if self.loading_thread is not None:
            yield
            return
        self.loading_thread = threading.get_ident()
        try:
            with ending_workers(self):
                yield
        finally:
            self.loader = self.loading_thread = None

    @torch.no_grad()
    def _read(self, items: Sequence[Datum], transform: Callable, seeds: dict[Index, Seeds]) -> Tensor:
        """Returns the features (N, E) of images under a transform; `seeds` has those of the view of each index."""
        cache = self._open_cache(transform)
        contents = self._find_contents(items, cache)
        keys = {index: feature_key(contents[index[0]], own) for index, own in seeds.items()}
        rows = dict(zip(keys, cache.lookup(list(keys.values()))))
        # Machines have caches of their own: what one rank lacks, all ranks encode together.
        missing = [index for index, lacks in zip(rows, any_rank([row is None for row in rows.values()])) if lacks]
        files: list[Row] = []
        try:
            for indices, features, read in self._encode(items, transform, missing):
                made = [feature_key(content, seeds[index]) for index, (_, content) in zip(indices, read)]
                cache.add(made, features, write=local_rank() == 0)
                for index, feature, (_, content) in zip(indices, features, read):
                    rows[index], contents[index[0]] = feature, content
                files += read
                raise_if_asked()  # what is encoded is kept
        finally:
            self.digests.add(files, write=local_rank() == 0)
        self.contents.update((item.impath, content) for item, content in zip(items, contents))
        return torch.from_numpy(np.stack(list(rows.values())))

    def _find_contents(self, items: Sequence[Datum], cache: FeatureCache) -> list[bytes | None]:
        """Returns the key of the bytes of each item's file, None where it is only known when the image is read.

        Raises:
            MissingImageError: If a file is not there.
        """
        paths = [item.impath for item in items]
        try:
            if cache.is_empty():  # nothing could be found by the bytes
                return self.digests.lookup(paths)
            return self.digests.read(paths, count_workers(self.cfg.DATALOADER.NUM_WORKERS))
        except (FileNotFoundError, NotADirectoryError) as error:
            read_image(error.filename)  # raises it
            raise

    def _encode(
        self, items: Sequence[Datum], transform: Callable, indices: list[Index]
    ) -> Iterator[tuple[list[Index], np.ndarray, list[Row]]]:
        """Yields the indices in pieces, of which every rank encodes a share; with the features (n, E), and the files.

        What is hashed is what was decoded.
        """
        if not indices:
            return
        pieces = in_batches(indices, N_BATCHES * self.batch_size * n_ranks())
        batches_of = [in_batches(piece[share(len(piece))] or piece[:1], self.batch_size) for piece in pieces]
        loader = self._open_loader(transform)
        loader.batch_sampler[:] = [[(items[i].impath, i, view) for i, view in batch] for batch in sum(batches_of, [])]
        batches = iter(progress(loader, "features"))
        for piece, own in zip(pieces, batches_of):
            features, read = [], []
            for _ in own:
                batch = next(batches)
                features.append(self.encode(batch["img"].to(self.device, non_blocking=True)))
                read += zip(*batch["file"])
            n_own = len(piece[share(len(piece))])
            read = sum(gather_objects(read[:n_own]), [])
            yield piece, gather_rows(torch.cat(features), len(piece)).cpu().numpy(), read

    def _open_loader(self, transform: Callable) -> DataLoader:
        """Returns a loader of any items; its batches are what its `batch_sampler`, a list, holds when it begins."""
        is_own = self.loading_thread == threading.get_ident() and repr(transform) in self.kept_transforms
        if is_own and self.loader is not None and repr(self.loader.dataset.transforms[0]) == repr(transform):
            return self.loader
        n_workers = count_workers(self.cfg.DATALOADER.NUM_WORKERS)
        lives_on = is_own and n_workers > 0 and self.loader is None
        loader = DataLoader(
            HashedItems(self.cfg, transform),
            batch_sampler=[],
            num_workers=n_workers,
            worker_init_fn=leave_signals_to_parent,
            persistent_workers=lives_on,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # so that it draws nothing from torch's own
        )
        self.loader = loader if lives_on else self.loader
        return loader

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


class HashedItems(DatasetWrapper):
    """Any items, with `file`, the keys of each image's file and of the bytes that it was decoded from."""

    def __init__(self, cfg, transform: Callable):
        super().__init__(cfg, (), transform)
        self.images = HashedImages(0, shorter_edge=self.images.shorter_edge)

    def __getitem__(self, wanted: Wanted) -> dict[str, Any]:
        path, index, view = wanted
        return {**self.part(Datum(path), index, view), "file": self.images.row}


class HashedImages(ImageCache):
    """Reads images, and keeps the keys of the last one."""

    row: Row = (b"", b"")

    def decode(self, path: str) -> Image.Image:
        return read_image(path, self._open, shorter_edge=self.shorter_edge)

    def _open(self, path: str) -> io.BytesIO:
        content, self.row = read_file(path)
        return FileContent(content, path)


class FileContent(io.BytesIO):
    """A file's bytes, for Pillow, whose messages then name the file."""

    def __init__(self, content: bytes, path: str):
        super().__init__(content)
        self.path = path

    def __repr__(self) -> str:
        return repr(self.path)


def open_digests(cfg) -> FileDigests:
    """Returns the digests of files that FEATURES.DIR remembers; runs in one process share them."""
    folder = Path(cfg.FEATURES.DIR).expanduser() if cfg.FEATURES.DIR else None
    return shared("digests", folder, partial(FileDigests, folder, max_bytes=int(cfg.FEATURES.MAX_GB * GB)))


def feature_key(content: bytes | None, seeds: Seeds) -> bytes | None:
    """Returns what names the feature of an image by the key of its bytes, and the seeds of its view."""
    if content is None or not seeds:
        return content
    return short_digest("\n".join([content.decode(), *map(str, seeds)]).encode())


def in_batches(indices: list[Index], batch_size: int) -> list[list[Index]]:
    """Returns the indices in batches, the last of which may be smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def weights_digest(module: nn.Module) -> str:
    """Returns a sha256 over what a module is, and over the name, dtype, shape, strides and bytes of each tensor.

    Of a method's own module, neither these nor its repr tell what it computes: the files of its classes count, too.
    """
    digest = hashlib.sha256(repr(module).encode())
    names = {cls.__module__ for part in module.modules() for cls in type(part).__mro__}
    own = (sys.modules.get(name) for name in sorted(names) if name.split(".")[0] not in KNOWN_CODE)
    for path in filter(None, (getattr(code, "__file__", None) for code in own)):
        digest.update(Path(path).read_bytes())
    for name, tensor in module.state_dict().items():  # strides: the memory format decides the last digits
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
