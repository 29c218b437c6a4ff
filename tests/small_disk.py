"""A disk that is soon full."""

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(size):
    """Mounts a disk of a size such as "256k" and gives its folder; skips the test where that is not allowed."""
    with tempfile.TemporaryDirectory() as path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user may not mount a tmpfs")
        try:
            yield Path(path)
        finally:
            subprocess.run(["umount", path], check=True)
