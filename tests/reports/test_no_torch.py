"""The commands that only read results start without torch, which takes seconds to import."""

import subprocess
import sys

import pytest

from reports.experiments import coop
from tests.support.made_up_results import write_results
from tests.support.script_calls import ROOT

RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not {"torch", "matplotlib.pyplot"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    "command",
    [
        "report.py --output-dir {}",
        "report.py --format html --output-dir {}",
        "report.py shapes_few_shot --ci --baseline CoOp --output-dir {}",
        "draw_curves.py --out {}/a.svg --output-dir {}",
    ]
    + [f"report.py --format html --run {{}}/{coop('shapes', 'tiny').folder}/seed1"]
    + [f"parse_test_res.py {{}}/{coop('shapes', 'tiny').folder}"],
)
def test_command_needs_no_torch(tmp_path, command):
    for shots in (8, 16):
        write_results(tmp_path, coop("shapes", "tiny", shots=shots).folder, {1: 60.0})
    words = command.replace("{}", str(tmp_path)).split()
    result = subprocess.run([sys.executable, "-c", RUN, *words], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_what_launches_runs_needs_none_before_it_plans():
    code = "import launch.plan, launch.ray, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
