"""The order in which items are drawn: a function of the seed and the epoch alone, so that a run can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import BatchSampler, DataLoader, Sampler

from ..distributed import gather_rows, n_ranks, share
from .datum import Datum


def mix_seeds(*numbers: int) -> int:
    """Returns a seed in [0, 2^63) that depends on every number and on their order.

    It is the start of BLAKE2b over the decimal digits, so it is the same on every machine, and neighbouring inputs give
    unrelated seeds; sums and products of them would not.
    """
    digest = hashlib.blake2b(",".join(str(number) for number in numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def build_sampler(
    name: str, data_source: Sequence[Datum], *, seed: int = 0, batch_size: int = 32, n_ins: int = 16
) -> EpochSampler:
    """Builds the sampler that a config names; only RandomClassSampler reads `batch_size` and `n_ins`.

    Raises:
        ValueError: If the name is unknown, or if batch_size, n_ins and the number of classes do not fit.
    """
    match name:
        case "SequentialSampler":
            return SequentialSampler(data_source, seed)
        case "RandomSampler":
            return RandomSampler(data_source, seed)
        case "RandomClassSampler":
            return RandomClassSampler(data_source, seed, batch_size=batch_size, n_ins=n_ins)
    raise ValueError(
        f"The sampler is {name!r}, expected one of: RandomSampler, SequentialSampler, RandomClassSampler. "
        "Change DATALOADER.TRAIN_X.SAMPLER or DATALOADER.TEST.SAMPLER."
    )


class EpochSampler(Sampler):
    """Yields indices of `data_source`; call `set_epoch` before each epoch. A sampler defines `order`."""

    def __init__(self, data_source: Sequence[Datum], seed: int = 0):
        self.data_source = data_source
        self.seed = seed
        self.epoch = self.n_skipped = 0

    def set_epoch(self, epoch: int, n_skipped: int = 0) -> None:
        """Sets the epoch that is drawn next, without its first indices, which an interrupted run has already had."""
        self.epoch, self.n_skipped = epoch, n_skipped

    def order(self) -> Sequence[int]:
        """Returns the indices of the whole epoch."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter(self.order()[self.n_skipped :])

    def __len__(self) -> int:
        """Returns the number of indices of the whole epoch."""
        return len(self.data_source)

    def epoch_generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(mix_seeds(self.seed, self.epoch))


class SequentialSampler(EpochSampler):
    """All items, in their order."""

    def order(self) -> Sequence[int]:
        return range(len(self.data_source))


class RandomSampler(EpochSampler):
    """All items, shuffled in every epoch."""

    def order(self) -> Sequence[int]:
        return torch.randperm(len(self.data_source), generator=self.epoch_generator()).tolist()


class RandomClassSampler(EpochSampler):
    """Batches of `batch_size / n_ins` classes with `n_ins` images of each.

    A class's images are shuffled and cut into groups of n_ins. Images that do not fill a group are not drawn in this
    epoch; a class with fewer than n_ins images repeats some. A batch takes the classes with the most groups left, ties
    in random order, so every epoch has the same number of batches.
    """

    def __init__(self, data_source: Sequence[Datum], seed: int = 0, *, batch_size: int, n_ins: int):
        super().__init__(data_source, seed)
        self.indices_by_class: dict[int, list[int]] = {}
        for index, item in enumerate(data_source):
            self.indices_by_class.setdefault(item.label, []).append(index)
        if n_ins < 1 or batch_size % n_ins:
            raise ValueError(
                f"DATALOADER.TRAIN_X.BATCH_SIZE is {batch_size}; for RandomClassSampler it must be a multiple of "
                f"N_INS = {n_ins}. Change BATCH_SIZE or N_INS."
            )
        self.n_ins, self.n_classes_per_batch = n_ins, batch_size // n_ins
        if self.n_classes_per_batch > len(self.indices_by_class):
            raise ValueError(
                f"DATALOADER.TRAIN_X.BATCH_SIZE / N_INS is {self.n_classes_per_batch} classes, but the training items "
                f"have only {len(self.indices_by_class)}. Lower BATCH_SIZE or raise N_INS."
            )
        self.n_indices = len(self.order())

    def __len__(self) -> int:
        return self.n_indices

    def order(self) -> Sequence[int]:
        generator = self.epoch_generator()
        groups = {label: self._group(indices, generator) for label, indices in self.indices_by_class.items()}
        drawn: list[int] = []
        while len(groups) >= self.n_classes_per_batch:
            labels = shuffled(list(groups), generator)
            fullest = sorted(labels, key=lambda label: -len(groups[label]))[: self.n_classes_per_batch]
            for label in fullest:
                drawn.extend(groups[label].pop())
            groups = {label: left for label, left in groups.items() if left}
        return drawn

    def _group(self, indices: list[int], generator: torch.Generator) -> list[list[int]]:
        """Returns a class's indices, shuffled, in groups of n_ins."""
        order = shuffled(indices, generator)
        if len(order) < self.n_ins:
            repeats = torch.randint(len(order), (self.n_ins - len(order),), generator=generator).tolist()
            order += [order[i] for i in repeats]
        return [order[i : i + self.n_ins] for i in range(0, len(order) - self.n_ins + 1, self.n_ins)]


def shuffled(values: list[int], generator: torch.Generator) -> list[int]:
    """Returns the values in random order."""
    return [values[i] for i in torch.randperm(len(values), generator=generator).tolist()]


class RankBatchSampler(BatchSampler):
    """This rank's share of every batch; if that is empty the batch's first index, whose result is not used."""

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield batch[share(len(batch))] or batch[:1]

    def set_epoch(self, epoch: int, n_skipped: int = 0) -> None:
        self.sampler.set_epoch(epoch, n_skipped)

    def n_items(self, i: int) -> int:
        """Returns the number of items of batch i, of all ranks together."""
        return min(self.batch_size, len(self.sampler) - i * self.batch_size)


def batch_share(loader: DataLoader) -> float:
    """Returns this rank's part of a training batch, in [0, 1]; 1 / ranks if each rank has the whole batch."""
    sampler = getattr(loader, "batch_sampler", None)
    if not isinstance(sampler, RankBatchSampler):
        return 1 / n_ranks()
    own = share(sampler.n_items(0))  # all batches are equally large: a smaller last one is dropped
    return (own.stop - own.start) / sampler.n_items(0)


def gather_batch(loader: DataLoader, i: int, *rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Returns for each tensor of this rank's rows of the loader's batch i the rows of the whole batch, in order."""
    sampler = loader.batch_sampler
    return tuple(gather_rows(r, sampler.n_items(i)) for r in rows) if isinstance(sampler, RankBatchSampler) else rows
