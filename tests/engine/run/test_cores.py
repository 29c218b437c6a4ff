"""engine/run/cores.py: how many cores there are to share."""

import gc
import os
from pathlib import Path

import pytest

from engine.run import cores, startup


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes a machine of files, from their texts by path, on which the process may use some CPUs."""

    def make(cpus, files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(f"{text}\n"))
        for name, path in {"TOPOLOGY": "cpu", "OWN_GROUPS": "cgroup", "GROUPS": "fs"}.items():
            monkeypatch.setattr(cores, name, tmp_path / path)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus, raising=False)

    return make


@pytest.mark.parametrize(
    ("cpus", "siblings", "expected"),
    [
        ({0, 1, 2, 3}, ["0,2", "1,3", "0,2", "1,3"], 2),  # two cores of two threads each
        ({0, 2}, ["0,2", "1,3", "0,2", "1,3"], 1),
        ({0, 1}, ["0-1", "0-1", "2-3", "2-3"], 1),
        ({1, 3}, ["0", "1", "2", "3"], 2),
        ({0, 1, 2}, [], 3),  # a system that does not say
    ],
)
def test_threads_of_one_core_count_once_and_only_what_the_process_may_use(cpus, siblings, expected, machine):
    machine(cpus, {f"cpu/cpu{cpu}/topology/thread_siblings_list": text for cpu, text in enumerate(siblings)})
    assert (cores.n_physical_cores(), cores.n_cores()) == (expected, len(cpus))


UNBOUND = {"cgroup": "0::/", "fs/cpu.max": "max 100000"}
QUOTAS = {
    "none": (UNBOUND, 8),
    "of a container": ({"cgroup": "0::/", "fs/cpu.max": "300000 100000"}, 3),
    "whole cores of it": ({"cgroup": "0::/", "fs/cpu.max": "250000 100000"}, 2),
    "one core at least": ({"cgroup": "0::/", "fs/cpu.max": "50000 100000"}, 1),
    "more than there is": ({"cgroup": "0::/", "fs/cpu.max": "1600000 100000"}, 8),
    "of a group around it": (
        {"cgroup": "0::/jobs/7", "fs/jobs/7/cpu.max": "max 100000", "fs/jobs/cpu.max": "400000 100000"},
        4,
    ),
    "of another group": ({"cgroup": "0::/jobs/7", "fs/jobs/8/cpu.max": "100000 100000"}, 8),
    "version 1": (
        {
            "cgroup": "4:memory:/m\n3:cpu,cpuacct:/a:b\n0::/",
            "fs/cpu/a:b/cpu.cfs_quota_us": "200000",
            "fs/cpu/a:b/cpu.cfs_period_us": "50000",
        },
        4,
    ),
    "version 1, none": (
        {"cgroup": "1:cpu:/", "fs/cpu/cpu.cfs_quota_us": "-1", "fs/cpu/cpu.cfs_period_us": "100000"},
        8,
    ),
    "version 1, the host's name for the group": (
        {"cgroup": "1:cpu:/docker/1f", "fs/cpu/cpu.cfs_quota_us": "500000", "fs/cpu/cpu.cfs_period_us": "100000"},
        5,
    ),
    "outside what the namespace shows": (
        {"cgroup": "0::/../../fs/7", "fs/cpu.max": "100000 100000", "fs/7/cpu.max": "200000 100000"},
        8,
    ),
    "of a group that was removed": ({"cgroup": "0::/jobs/7 (deleted)", "fs/jobs/cpu.max": "300000 100000"}, 3),
    "with any byte in its name": ({"cgroup": "0::/a\x0cb\udcff:c", "fs/a\x0cb\udcff:c/cpu.max": "300000 100000"}, 3),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_a_quota_bounds_both(name, machine):
    """The files of control groups as https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1 have them."""
    files, expected = QUOTAS[name]
    machine(set(range(8)), files)
    assert cores.n_physical_cores() == cores.n_cores() == expected


@pytest.mark.parametrize("text", ["", "max", "x 100000", "100000 0", "100000 100000 1", "\udcff 1"])
def test_a_group_that_says_something_else_bounds_nothing(text, machine):
    machine(set(range(8)), {"cgroup": "0::/7", "fs/7/cpu.max": text, "fs/cpu.max": "400000 100000"})
    assert cores.n_cores() == 4
    machine(set(range(8)), {"fs/cpu.max": text})
    assert cores.n_cores() == 8


@pytest.mark.parametrize("text", ["", "x", "0:", f"0::/{'x' * 5000}", "0::/\0"])
def test_a_list_of_groups_of_another_form_stops_nothing(text, machine):
    machine(
        set(range(8)), {"cgroup": f"{text}\n1:cpu:/", "fs/cpu/cpu.cfs_quota_us": "2", "fs/cpu/cpu.cfs_period_us": "1"}
    )
    assert cores.n_cores() == 2


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), OSError(19, "No such device")])
def test_files_that_vanish_or_may_not_be_read_stop_nothing(error, machine, monkeypatch):
    def refuse(*args, **kwargs):
        raise error

    machine({0, 1}, {"cgroup": "0::/", "fs/cpu.max": "100000 100000", "cpu/cpu0/topology/thread_siblings_list": "0-1"})
    for name in ("open", "stat"):
        monkeypatch.setattr(Path, name, refuse)
    counted = cores.n_physical_cores(), cores.n_cores()
    monkeypatch.undo()
    assert counted == (2, 2)


@pytest.mark.parametrize(("users", "expected"), [(None, "3"), ("5", "5")])
def test_a_run_starts_as_many_threads_unless_the_user_says_otherwise(users, expected, machine, monkeypatch):
    for name, value in (("OMP_NUM_THREADS", users), ("OMP_WAIT_POLICY", "PASSIVE")):
        monkeypatch.setenv(name, value or "")  # so that it is put back
        if value is None:
            monkeypatch.delenv(name)
    machine(set(range(8)), QUOTAS["of a container"][0])
    try:
        startup.before_imports()
        assert os.environ["OMP_NUM_THREADS"] == expected
    finally:
        gc.enable()
