"""The order of a loader of the method's own. The data manager's is a function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from engine import Datum
from engine.data import samplers


def build_sampler(
    sampler_type: str,
    cfg=None,
    data_source: Sequence[Datum] = (),
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Sampler:
    """Builds the sampler of this name; those that draw by domains are not here."""
    return EachPass(samplers.build_sampler(sampler_type, data_source, batch_size=batch_size, n_ins=n_ins))


class EachPass(Sampler):
    """Another order in every pass, drawn by torch's generator, whose state goes on where a run was interrupted."""

    def __init__(self, sampler: samplers.EpochSampler):
        self.sampler = sampler
        self.dataset = None  # the augmentations of which change with it

    def __iter__(self) -> Iterator[int]:
        drawn = int(torch.randint(2**31, ()))
        self.sampler.set_epoch(drawn)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(drawn)
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)
