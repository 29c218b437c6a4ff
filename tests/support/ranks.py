"""Runs a function on several ranks: forked processes that find each other as those that torchrun starts do."""

import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

FORK = get_context("fork")  # spawned processes would import torch again


def run_ranks(n: int, work: Callable[[int], Any], folder: Path, *, time_s: float = 120) -> list[tuple[int | None, Any]]:
    """Calls work(rank) on n ranks; what each prints goes to folder/rankR.out and .err.

    Returns:
        For each rank its exit code and what it gave, None where it did not come to its end.
    """
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port.getsockname()[1]), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [FORK.Process(target=_be_rank, args=(r, n, work, folder, address)) for r in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(time_s)
        process.kill()
        process.join()
    files = [folder / f"rank{r}.pt" for r in range(n)]
    given = [torch.load(file, weights_only=False) if file.is_file() else None for file in files]
    return [(process.exitcode, value) for process, value in zip(processes, given, strict=True)]


def _be_rank(rank: int, n: int, work: Callable[[int], Any], folder: Path, address: dict[str, str]) -> None:
    torch.set_num_threads(1)  # the threads of the process that was forked are not here
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout, sys.stderr = (open(folder / f"rank{rank}.{name}", "w", buffering=1) for name in ("out", "err"))
    os.environ |= address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n)}
    torch.save(work(rank), folder / f"rank{rank}.pt")
