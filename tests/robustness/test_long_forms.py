"""The long forms, as their commands run them; minutes each. Only `bash scripts/test.sh robust` runs them."""

import subprocess
import sys

import pytest

from tests.support.script_calls import ROOT

COMMANDS = (
    "tests.resume.kills --kills 60",
    "tests.robustness.dirty_runs",
    "tests.robustness.hostile_files",
    "tests.robustness.fuzz --inputs 200000",
)


@pytest.mark.robust
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("command", COMMANDS)
def test_long_form(command):
    assert subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT).returncode == 0
