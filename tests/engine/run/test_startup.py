"""engine/run/startup.py: how many cores there are to share."""

import os

import pytest

from engine.run import startup


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
def test_threads_of_one_core_count_once_and_only_what_the_process_may_use(
    cpus, siblings, expected, tmp_path, monkeypatch
):
    for cpu, text in enumerate(siblings):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(f"{text}\n")
    monkeypatch.setattr(startup, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus, raising=False)
    assert startup.n_physical_cores() == expected
