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
    files = {cpu: TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list" for cpu in _usable()}
    return _within_quota(len({path.read_text() if path.is_file() else cpu for cpu, path in files.items()}))


def _usable() -> set[int]:
    """The numbers of the CPUs, as Linux counts them, on which this process may run."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _within_quota(n: int) -> int:
    """At most as many whole cores as the control groups around this process leave it, and one at least."""
    return max(1, int(min([n, *map(_quota, _own_groups())])))


def _own_groups() -> Iterator[Path]:
    """The folders of the control groups around this process that may bound its time."""
    lines = OWN_GROUPS.read_text().splitlines() if OWN_GROUPS.is_file() else ()
    for controllers, path in (line.split(":", 2)[1:] for line in lines):
        if not controllers or "cpu" in controllers.split(","):  # version 2, or 1
            root = GROUPS / "cpu" if controllers else GROUPS
            folder = root / path.strip("/")  # in a container it may be the host's name for it; then the root is ours
            yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(root)))


def _quota(group: Path) -> float:
    """How many cores' worth of time a control group may take."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        if all((group / name).is_file() for name in names):
            quota, period = " ".join((group / name).read_text() for name in names).split()
            return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    return math.inf
