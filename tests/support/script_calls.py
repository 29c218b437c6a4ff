"""Calling the scripts of scripts/: a dry run's commands as words, and an interpreter that only pretends."""

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN_ENVIRONMENT = (
    "DATA", "SEEDS", "OUTPUT", "TRAINER", "SOURCE", "SHOTS", "NCTX", "CSC", "CTP", "SUBSAMPLE", "JOBS", "PLUGIN",
    "PLUGIN_CONFIG", "TRAINER_NODE", "COOP_DATA",
)  # fmt: skip


def call(script, arguments="", *, cwd=ROOT, python="python", **environment):
    """Runs a script with nothing of the caller's environment that it reads."""
    env = {name: value for name, value in os.environ.items() if name not in OWN_ENVIRONMENT}
    env |= {"DRY_RUN": "1", "PYTHON": python, **environment}
    command = ["bash", os.path.relpath(ROOT / "scripts" / script, cwd), *shlex.split(arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def commands(result):
    """The commands that a dry run printed, as lists of words."""
    assert result.returncode == 0, result.stderr
    return [shlex.split(line) for line in result.stdout.splitlines()]


def words(template, *more, **values):
    """A command as such a list."""
    return ["python", *template.format(**values).split(), *more]


def fake_python(folder, body):
    """Writes an interpreter that runs `body`, a bash script, and returns its path."""
    path = folder / "python"
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return str(path)
