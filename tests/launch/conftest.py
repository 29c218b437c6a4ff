"""Runs start at the repository's root, as the scripts do; with one thread, so that they do not wait for each other."""

import pytest

import sweep
from engine.process_cache import sharing
from launch import workers as jobs
from tests.support.script_calls import ROOT


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def sweep_here(monkeypatch):
    """sweep.py does its runs one after another in this process."""

    def here(left, n_workers):
        with sharing():
            for job in left:
                yield job, jobs.call(job.program, job.argv), 1.0

    monkeypatch.setattr(sweep, "launcher", lambda args: (1, here))
