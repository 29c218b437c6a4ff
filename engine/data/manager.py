"""From the config to batches: data set -> sampler -> image file -> transform -> dict of tensors.

A batch holds `img` (B, 3, H, W) float32, normalised, in a test (B, ...) as the method's own `test_transform` gives it;
`label` (B,) int64; `domain`, `impath` and `index`; with DATALOADER.K_TRANSFORMS = k > 1 in training also `img2` ...
`imgk`, and with DATALOADER.RETURN_IMG0 also `img0`.

The order of the items depends only on (SEED, epoch), an item's augmentation only on (SEED, epoch, index). Neither the
number of workers nor an interruption changes them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial

import torch
from tabulate import tabulate
from torch.utils.data import BatchSampler, DataLoader, Dataset

from ..config.defaults import BEST_ON
from ..distributed import n_local_ranks, n_ranks
from ..interruption import leave_signals_to_parent
from ..registry import DATASET_REGISTRY
from ..run.cores import n_cores
from ..text import shorten
from .bad_images import leave_out_bad
from .datum import Datum, Listing, data_digests
from .images import DatasetWrapper
from .samplers import EpochSampler, RankBatchSampler, SequentialSampler, build_sampler, mix_seeds
from .transforms import build_transform

logger = logging.getLogger(__name__)


class DataManager:
    """The data set that DATASET.NAME names, and its loaders; a loader without items is None.

    Args:
        cfg: The frozen config.
        custom_tfm_train: Training transform instead of INPUT's, or a list of transforms (a view for each).
        custom_tfm_test: The same for validation and test.
        dataset_wrapper: Class instead of `DatasetWrapper`, called as (cfg, items, transform=..., is_train=...).

    Attributes:
        listing: What the data set lists, before anything is left out.
        has_own_transforms: Whether images go through what INPUT says, and nothing else.
        is_reduced: Whether JPEG files may be decoded at a reduced scale.
        skipped: Split -> paths of its images that could not be read and were left out.
    """

    def __init__(
        self,
        cfg,
        custom_tfm_train: Callable | Sequence[Callable] | None = None,
        custom_tfm_test: Callable | Sequence[Callable] | None = None,
        dataset_wrapper: type[Dataset] | None = None,
    ):
        self.dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
        self.listing = Listing(self.dataset)
        n_workers = count_workers(cfg.DATALOADER.NUM_WORKERS)
        self.skipped = leave_out_bad(cfg, self.dataset, n_threads=n_workers)
        tfm_train = custom_tfm_train or build_transform(cfg, is_train=True)
        tfm_test = custom_tfm_test or build_transform(cfg, is_train=False)
        self.is_reduced = cfg.INPUT.REDUCED_DECODING
        self.has_own_transforms = not (custom_tfm_train or custom_tfm_test or dataset_wrapper)
        wrapper = dataset_wrapper or DatasetWrapper
        if self.is_reduced and not issubclass(wrapper, DatasetWrapper):
            raise ValueError(
                f"INPUT.REDUCED_DECODING is True, but the method's own {wrapper.__name__} reads the images, which does "
                "not know it. Derive it from DatasetWrapper, or leave INPUT.REDUCED_DECODING out."
            )
        build = partial(build_data_loader, cfg, n_workers=n_workers, dataset_wrapper=wrapper)
        self.train_loader_x = build(self.dataset.train_x, tfm_train, is_train=True)
        self.best_on = BEST_ON.get(cfg.TEST.FINAL_MODEL)  # the split by which an epoch is chosen
        self.val_loader = build(self.dataset.val, tfm_test, is_train=False, is_reused=self.best_on == "val")
        self.test_loader = build(self.dataset.test, tfm_test, is_train=False, is_reused=self.best_on == "test")
        self.selection_loader = build(self.dataset.selection, tfm_test, is_train=False)
        self.said_left_out = False
        self.log_summary(cfg)

    @property
    def num_classes(self) -> int:
        return self.dataset.num_classes

    @property
    def lab2cname(self) -> dict[int, str]:
        return self.dataset.lab2cname

    @cached_property
    def learned_from(self) -> dict[str, str]:
        """The digests of the items that a run learns from, and of those by which it chooses an epoch."""
        return data_digests(self.dataset, ["train", *filter(None, [self.best_on])])

    @property
    def warnings(self) -> list[str]:
        """What makes results on these items doubtful, before anything is trained or tested."""
        found = list(self.dataset.warnings)
        if self.is_reduced:
            found.append(
                "INPUT.REDUCED_DECODING is True: large JPEG files are decoded at a reduced scale, which changes their "
                "pixels. Compare these results with those of such runs alone."
            )
        if self.num_classes == 1:
            found.append(
                f"There is a single class, {shorten(self.lab2cname[0])}: every answer is right, whatever is learned. "
                "Add another class, or leave DATASET.SUBSAMPLE_CLASSES at all."
            )
        return found

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Sets the epoch, from 0, which decides the order and the augmentation of the training items.

        After an interruption the epoch starts with `first_batch`; the images of earlier batches are not read.
        """
        if self.train_loader_x is not None and not self.said_left_out:
            self.said_left_out = True
            log_left_out(self.train_loader_x.batch_sampler)
        set_epoch(self.train_loader_x, epoch, first_batch)

    def can_skip(self, loader: DataLoader) -> bool:
        """Says whether `set_epoch` can begin this loader's epoch in its midst: it is this one, in an order of ours."""
        return loader is self.train_loader_x and _order(loader) is not None

    def log_summary(self, cfg) -> None:
        rows = [
            ("Dataset", cfg.DATASET.NAME),
            ("# classes", f"{self.num_classes:,}"),
            ("# train_x", f"{len(self.dataset.train_x):,}"),
            ("# val", f"{len(self.dataset.val):,}"),
            ("# test", f"{len(self.dataset.test):,}"),
        ]
        logger.info(tabulate(rows, disable_numparse=True))


def set_epoch(loader: DataLoader | None, epoch: int, first_batch: int = 0) -> None:
    """Sets the epoch of a loader's order and augmentation, as far as it has one: that of a method's own may not."""
    order, dataset = _order(loader), getattr(loader, "dataset", None)
    if order is not None:
        order.set_epoch(epoch, first_batch * loader.batch_sampler.batch_size)
    if hasattr(dataset, "set_epoch"):  # a custom dataset_wrapper may have none
        dataset.set_epoch(epoch)


def items_in_order(loader: DataLoader | None) -> list[Datum] | None:
    """Returns the items of all ranks' batches of a loader, in their order; None where this order is not ours."""
    order, items = _order(loader), getattr(getattr(loader, "dataset", None), "data_source", None)
    if order is None or items is None:
        return None
    order = order.sampler if isinstance(order, RankBatchSampler) else order
    return [items[index] for index in order.order()]


def _order(loader: DataLoader | None) -> EpochSampler | RankBatchSampler | None:
    samplers = (getattr(loader, name, None) for name in ("batch_sampler", "sampler"))
    return next((found for found in samplers if isinstance(found, (EpochSampler, RankBatchSampler))), None)


def build_data_loader(
    cfg,
    data_source: Sequence[Datum],
    transform: Callable | Sequence[Callable],
    *,
    is_train: bool,
    is_reused: bool = False,
    n_workers: int | None = None,
    dataset_wrapper: type[Dataset] = DatasetWrapper,
) -> DataLoader | None:
    """Builds the loader of a list of items from DATALOADER.TRAIN_X (training) or DATALOADER.TEST; None without items.

    In training a last, smaller batch is dropped unless it is the only one. The processes of a loader that is used in
    every epoch, in training or because it `is_reused`, live on until `ending_workers` ends them.

    Raises:
        ValueError: If the sampler is unknown or does not fit the items.
    """
    if not data_source:
        return None
    options = cfg.DATALOADER.TRAIN_X if is_train else cfg.DATALOADER.TEST
    if not is_train and options.SAMPLER == "RandomClassSampler":
        raise ValueError(
            "DATALOADER.TEST.SAMPLER is 'RandomClassSampler', which does not visit every item once. Use "
            "SequentialSampler or RandomSampler."
        )
    size, n_ins = options.BATCH_SIZE, options.N_INS if is_train else 1
    n_workers = count_workers(cfg.DATALOADER.NUM_WORKERS) if n_workers is None else n_workers
    sampler = build_sampler(options.SAMPLER, data_source, seed=cfg.SEED, batch_size=size, n_ins=n_ins)
    batches = {"sampler": sampler, "batch_size": size, "drop_last": is_train and len(data_source) >= size}
    if n_ranks() > 1:
        batches = {"batch_sampler": RankBatchSampler(**batches)}
        if is_train and n_ranks() > size:
            logger.info(f"DATALOADER.TRAIN_X.BATCH_SIZE is {size}: the other ranks have no work in a step")
    return DataLoader(
        dataset_wrapper(cfg, data_source, transform=transform, is_train=is_train),
        **batches,
        num_workers=n_workers,
        worker_init_fn=leave_signals_to_parent,
        pin_memory=cfg.USE_CUDA and torch.cuda.is_available(),
        persistent_workers=(is_train or is_reused) and n_workers > 0,
        generator=torch.Generator().manual_seed(mix_seeds(cfg.SEED)),  # the loader draws nothing from torch's own
    )


@contextmanager
def ending_workers(*owners: object) -> Iterator[None]:
    """Until its end, loaders may start processes; then those of the loaders that are attributes of `owners` end.

    The garbage collector ends them late, and may wait five seconds for each: it can break their queues before.
    """
    try:
        yield
    finally:
        loaders = {id(x): x for owner in owners for x in vars(owner).values() if isinstance(x, DataLoader)}
        for loader in loaders.values():
            iterator, loader._iterator = loader._iterator, None
            if iterator is not None:
                iterator._shutdown_workers()


def log_left_out(batches: BatchSampler | Iterable[list[int]] | None) -> None:
    """Says how many training images an epoch leaves out, because its last, smaller batch is dropped."""
    if not isinstance(batches, BatchSampler):
        return  # batches of a method's own
    n_items, n_used = len(batches.sampler), len(batches) * batches.batch_size
    if n_used < n_items:
        which = "always the same" if isinstance(batches.sampler, SequentialSampler) else "other ones each time"
        logger.info(
            f"Each epoch uses {n_used:,} of {n_items:,} training images, {which}: DATALOADER.TRAIN_X.BATCH_SIZE is "
            f"{batches.batch_size} and a last, smaller batch is dropped"
        )


def check_splits(cfg, *, train: DataLoader | None, val: DataLoader | None, test: DataLoader | None) -> None:
    """Raises ValueError for what the config asks for and the data set does not have; None: no such items."""
    name, wanted = cfg.DATASET.NAME, cfg.TEST.SPLIT
    tested = val if wanted == "val" else test
    if not cfg.TEST.NO_TEST:
        if tested is None:
            raise ValueError(f"TEST.SPLIT is {wanted}, but the data set {name} has no such items. Set TEST.SPLIT.")
        _check_ranks(tested, f"{wanted} items of {name}")
    if cfg.RUN.EVAL_ONLY:
        return
    if train is None:
        raise ValueError(
            f"The data set {name} has no training items. It is for testing: give --eval-only with --model-dir."
        )
    if cfg.TEST.FINAL_MODEL == "best_val" and val is None:
        raise ValueError(
            f"TEST.FINAL_MODEL is best_val, but the data set {name} has no validation items. Set it to last_step."
        )
    _check_ranks(train, f"training items of {name}")


def _check_ranks(loader: DataLoader, items: str) -> None:
    if n_ranks() > 1 and n_ranks() > len(loader.dataset):
        raise ValueError(
            f"The number of ranks is {n_ranks()}, but there are {len(loader.dataset)} {items}. Lower torchrun's "
            "--nproc_per_node or --nnodes."
        )


def count_workers(n_asked: int) -> int:
    """Returns the number of worker processes: `n_asked`, but at most this rank's part of the CPU cores."""
    n_most = max(1, n_cores() // n_local_ranks())
    if n_asked > n_most:
        logger.info(f"DATALOADER.NUM_WORKERS is {n_asked}, using {n_most}: one for each CPU core")
    return min(n_asked, n_most)
