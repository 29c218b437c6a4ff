"""A disk that is soon full, or that may only be read."""

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PAGE = 4096  # bytes, in which a small disk is given away


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


@contextlib.contextmanager
def filled(disk):
    """Leaves no room on a small disk, until its end."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(PAGE))
    yield
    filler.unlink()


@contextlib.contextmanager
def read_only(disk):
    """Lets nobody write to a small disk, root neither, until its end."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
