"""Runs start at the repository's root, as the scripts do; with one thread, so that they do not wait for each other."""

import pytest

from tests.support.script_calls import ROOT


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
