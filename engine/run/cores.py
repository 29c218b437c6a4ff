"""The CPU cores that this process may use, by its affinity and by the quota of its container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")  # Linux, as the next two
OWN_GROUPS = Path("/proc/self/cgroup")  # a line for each hierarchy of control groups: number:controllers:path
GROUPS = Path("/sys/fs/cgroup")


def n_cores() -> int:
    """Returns how many processes can compute at once; two threads of one core count as two."""
    return _within_quota(len(_usable()))


def n_physical_cores() -> int:
    """Returns how many threads one computation is worth; two threads of one core, as Linux names them, count as one."""
    return _within_quota(len({_core(cpu) for cpu in _usable()}))


def _core(cpu: int) -> str:
    """The CPUs of the core that a CPU is a thread of; the CPU itself where the system does not say."""
    try:
        return (TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _usable() -> set[int]:
    """The numbers of the CPUs, as Linux counts them, on which this process may run."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _within_quota(n: int) -> int:
    """At most as many whole cores as the control groups around this process leave it, and one at least."""
    return max(1, int(min([n, *map(_quota, _own_groups())])))


def _own_groups() -> Iterator[Path]:
    """The folders of the control groups around this process that may bound its time."""
    try:
        lines = os.fsdecode(OWN_GROUPS.read_bytes()).split("\n")  # a name may hold any byte but this
    except OSError:  # another system, or it may not be read
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if ".." in path.split("/"):  # outside this process's namespace: no folder that is visible here is around it
            continue
        if not controllers or "cpu" in controllers.split(","):  # version 2, or 1
            root = GROUPS / "cpu" if controllers else GROUPS
            folder = root / path.strip("/")  # in a container it may be the host's name for it; then the root is ours
            yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(root)))


def _quota(group: Path) -> float:
    """How many cores' worth of time a control group may take; without a quota that can be read, any number."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
            return math.inf if quota in ("max", "-1") else int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # no such file, or another form: a start must not fail here
            continue
    return math.inf
