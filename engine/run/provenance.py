"""Where a result comes from and what it cost: code, libraries, machine, time, memory. Nothing here names a path."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy
import PIL
import torch
import torchvision

from ..device import return_freed_memory
from ..distributed import n_ranks
from .inputs import inputs_before

PACKAGE = "prompt-learning-clip"  # in setup.py
SOURCES = Path(__file__).resolve().parents[2]
GIT_SECONDS = 10  # in which git has to answer
GB = 1e9


def provenance(trainer, weights_sha256: str | None) -> dict[str, Any]:
    """Returns what a run computes with: code, libraries, machine, weights, and the items it trains and tests on.

    Args:
        trainer: Built, and not yet trained.
        weights_sha256: Of the file of CLIP's weights; None where it is not known.
    """
    cfg = trainer.cfg
    return {
        "code": code_version(),
        "libraries": library_versions(trainer.device),
        "device": device_name(trainer.device),
        "threads": torch.get_num_threads(),
        "ranks": n_ranks(),
        "precision": trainer.precision,
        "deterministic": cfg.RUN.DETERMINISTIC,
        **({"backbone": facts} if (facts := trainer.backbone_fields(trainer.cfg).get("library")) else {}),
        **inputs_before(trainer, weights_sha256),
    }


def cost(trainer) -> dict[str, float | None]:
    """Returns the seconds that training and tests took, those of an interrupted run's parts together, and the memory.

    Args:
        trainer: After its test.
    """
    times = trainer.clock.times()
    training_s = None if trainer.cfg.RUN.EVAL_ONLY else round(times["time_s"] - times["testing_s"], 3)
    return {"training_s": training_s, "testing_s": round(times["testing_s"], 3), **peak_memory_gb(trainer.device)}


def code_version(folder: Path = SOURCES) -> dict[str, Any]:
    """Returns the package's version, and of a git clone its commit and whether files differ from it.

    A file that git neither knows nor ignores counts too: a trainer is one new file. What is not known is None.
    """
    status = _git_status(folder)
    commits = [line.split()[-1] for line in status if line.startswith("# branch.oid")]
    return {
        "version": _installed_version(),
        "commit": commits[0] if commits else None,
        "changed": any(not line.startswith("#") for line in status) if status else None,
    }


def library_versions(device: torch.device) -> dict[str, str]:
    """Returns the versions of all that decides a result's last digits; of CUDA's libraries on a GPU alone."""
    modules = {"torch": torch, "torchvision": torchvision, "numpy": numpy, "pillow": PIL}
    versions = {"python": platform.python_version()}
    versions |= {name: module.__version__ for name, module in modules.items()}
    versions["scikit-learn"] = metadata.version("scikit-learn")  # imported only where something is fitted
    if device.type == "cuda":
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return versions


def device_name(device: torch.device) -> str:
    """Returns the GPU's name, or "cpu" with the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({_processor_name()})"


def forget_peak_memory(device: torch.device) -> None:
    """Lets `peak_memory_gb` count from now on: a worker does several runs, and each has its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return_freed_memory()
    with suppress(OSError):  # not on Linux, or not allowed: then the process's count goes on
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_gb(device: torch.device) -> dict[str, float | None]:
    """Returns the most memory, in GB, that this process has held, and that its tensors have held on the GPU.

    Both count from `forget_peak_memory`; the process's from its start on systems other than Linux. Processes that load
    images are not counted.
    """
    on_gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {
        "peak_memory_gb": _in_gb(_peak_resident_bytes()),
        "peak_gpu_memory_gb": _in_gb(on_gpu),
    }


def _git_status(folder: Path) -> list[str]:
    """Returns the lines of `git status`, those on the commit marked by #; none outside of a git clone."""
    if not (folder / ".git").exists():  # the folder may lie in somebody else's repository
        return []
    command = ["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain=v2", "--branch"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook's are another's
    try:
        answer = subprocess.run(command, env=own, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or a repository that git does not open
        return []
    return answer.stdout.splitlines()


def _installed_version() -> str | None:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _peak_resident_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _in_gb(n_bytes: int | None) -> float | None:
    return None if n_bytes is None else round(n_bytes / GB, 3)
