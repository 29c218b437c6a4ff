"""One run in several processes, the ranks that torchrun starts: what each takes of the work, what they tell each other.

Each rank has its share of every batch, so that together they compute what one process computes:

    gradient = sum_r share_r gradient_r          share_r: the part of the batch's items that is rank r's

Whatever is written, rank 0 writes. Without torchrun there is one rank, and all of this changes nothing.

Run: torchrun --nproc_per_node 4 train.py ...
     torchrun --nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint HOST:29400 train.py ...  on each machine
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # of a rank that neither answers nor ends; one that ends is noticed at once
TORCHRUN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}  # what it sets in the environment


def launched() -> bool:
    """Says whether torchrun has started this process as one of several."""
    return TORCHRUN <= os.environ.keys() and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def process_group(*, use_cuda: bool) -> Iterator[None]:
    """Until its end, this process is one of the ranks that torchrun has started; each has a GPU of its own."""
    if not launched():
        yield
        return
    backend = "gloo"
    if use_cuda and torch.cuda.is_available():
        if local_rank() >= (n_gpus := torch.cuda.device_count()):
            raise ValueError(
                f"--nproc_per_node is {n_local_ranks()}, but this machine has {n_gpus} GPUs. Lower it, or set USE_CUDA "
                "False."
            )
        torch.cuda.set_device(local_rank())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=TIMEOUT)
    yield
    wait_for_all()
    dist.destroy_process_group()


def n_ranks() -> int:
    """Returns the number of processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Returns this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Returns this process's number among those on its machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def n_local_ranks() -> int:
    """Returns the number of this run's processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if launched() else 1


def is_first_rank() -> bool:
    """Says whether this is the process that writes."""
    return rank() == 0


def share(n_items: int, of_rank: int | None = None) -> slice:
    """Returns which of `n_items` are this rank's, or `of_rank`'s: their counts differ by 1 at most."""
    r, n = rank() if of_rank is None else of_rank, n_ranks()
    return slice(n_items * r // n, n_items * (r + 1) // n)


def on_first_rank(make: Callable[[], T]) -> T:
    """Returns, or raises, on every rank what `make` gives on rank 0; it is not called on the others."""
    if n_ranks() == 1:
        return make()
    outcome: list[Any] = [None, None]
    if is_first_rank():
        try:
            outcome = [make(), None]
        except Exception as error:
            outcome = [None, error]
    with _others_answer():
        dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextmanager
def first_on_machine() -> Iterator[None]:
    """The first rank of each machine does this before the others do: they find what it has downloaded."""
    if local_rank() > 0:
        wait_for_all()
    yield
    if local_rank() == 0:
        wait_for_all()


def wait_for_all() -> None:
    """Returns when every rank has come here."""
    sum_over_ranks(torch.zeros(1))


def any_rank(flags: Sequence[bool]) -> list[bool]:
    """Returns for each flag whether it is set on any rank."""
    if n_ranks() == 1:
        return list(flags)
    return (sum_over_ranks(torch.tensor(flags, dtype=torch.int32)) > 0).tolist()


def gather_objects(own: T) -> list[T]:
    """Returns each rank's value, in their order, on every rank."""
    if n_ranks() == 1:
        return [own]
    values: list[Any] = [None] * n_ranks()
    with _others_answer():
        dist.all_gather_object(values, own)
    return values


def sum_over_ranks(values: Tensor) -> Tensor:
    """Returns the sum of all ranks' values, the same on each; without gradient."""
    if n_ranks() == 1:
        return values
    total = values.detach().clone(memory_format=torch.contiguous_format)
    with _others_answer():
        dist.all_reduce(total)
    return total


def mean_over_ranks(values: dict[str, Any], share_of_batch: float, device: torch.device) -> dict[str, Any]:
    """Returns the means over a whole batch from those over this rank's share of it, a part in [0, 1] of the batch."""
    if n_ranks() == 1:
        return values
    own = [torch.as_tensor(value, dtype=torch.float32, device=device).reshape(()) for value in values.values()]
    return dict(zip(values, sum_over_ranks(torch.stack(own) * share_of_batch)))


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces the gradients of parameters, float32 and the same on every rank, by their sums over the ranks."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if n_ranks() == 1 or not gradients:
        return
    totals = sum_over_ranks(torch.cat([gradient.flatten() for gradient in gradients]))  # one message for all
    for gradient, total in zip(gradients, totals.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(total.view_as(gradient))


def gather_rows(own: Tensor, n_rows: int) -> Tensor:
    """Returns the rows (N, ...) of all ranks in order, with gradients: each rank's loss may depend on the rows of all.

    `own` are this rank's `share` of the N rows, (n, ...); where it has none, one that is left out.
    """
    return own if n_ranks() == 1 else _GatherRows.apply(own, n_rows)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own: Tensor, n_rows: int) -> Tensor:
        shares = [share(n_rows, of_rank=r) for r in range(n_ranks())]
        lengths = [part.stop - part.start for part in shares]
        ctx.own, ctx.is_counted = shares[rank()], lengths[rank()] > 0
        padded = own.new_zeros(max(lengths), *own.shape[1:])  # messages are equally long
        padded[: lengths[rank()]] = own[: lengths[rank()]]
        parts = [torch.empty_like(padded) for _ in shares]
        with _others_answer():
            dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        total = sum_over_ranks(gradient)
        return (total[ctx.own] if ctx.is_counted else torch.zeros_like(total[:1])), None


@contextmanager
def _others_answer() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # each backend has its own
        reason = str(error).split("\n")[0].split(". ")[0]
        raise ConnectionError(
            f"Rank {rank()} has lost another of the {n_ranks()} ranks ({reason}). See what that one said; the same "
            "command goes on from the last checkpoint."
        ) from error
