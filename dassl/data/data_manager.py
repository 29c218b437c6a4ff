"""From the config to batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.utils.data import DataLoader, Dataset

import engine
from engine import Datum
from engine.data.images import DatasetWrapper
from engine.data.manager import count_workers
from engine.interruption import leave_signals_to_parent

from .datasets import build_dataset
from .samplers import build_sampler
from .transforms import INTERPOLATION_MODES, build_transform


class DataManager(engine.DataManager):
    """The engine's; it has labelled training items only, and one domain."""

    train_loader_u = None
    num_source_domains = 0


def build_data_loader(
    cfg,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] = (),
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Callable | Sequence[Callable] | None = None,
    is_train: bool = True,
    dataset_wrapper: type[Dataset] | None = None,
) -> DataLoader:
    """Builds a loader of the method's own; in training a last, smaller batch is dropped unless it is the only one."""
    sampler = build_sampler(sampler_type, cfg, data_source, batch_size, n_domain, n_ins)
    sampler.dataset = (dataset_wrapper or DatasetWrapper)(cfg, data_source, transform=tfm, is_train=is_train)
    return DataLoader(
        sampler.dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=is_train and len(data_source) >= batch_size,
        num_workers=count_workers(cfg.DATALOADER.NUM_WORKERS),
        worker_init_fn=leave_signals_to_parent,
        pin_memory=cfg.USE_CUDA and torch.cuda.is_available(),
    )
