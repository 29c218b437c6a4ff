"""The lock of a run's folder, against processes that lock the file by themselves."""

import errno
import fcntl
import os
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest

import engine.run.run
import train
from engine.files import UNFINISHED
from engine.run import lock as run_lock
from engine.run.lock import LOCK, locked
from tests.support.tiny_run import tiny_cfg

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.truncate(0)
file.write(sys.argv[2])
file.flush()
print("held", flush=True)
time.sleep(float(sys.argv[3]))
"""
TRY = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


@contextmanager
def holder(folder, says="", time_s=60.0):
    """Another process that holds the folder's lock for a time."""
    argv = [sys.executable, "-c", HOLD, folder / LOCK, says, str(time_s)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def is_free(folder):
    """Whether another process could take the folder's lock now."""
    return subprocess.run([sys.executable, "-c", TRY, folder / LOCK], stderr=subprocess.DEVNULL).returncode == 0


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setattr(run_lock, "PATIENCE_S", 0.3)


class TestLock:
    def test_it_is_held_until_the_end_and_says_by_whom(self, tmp_path):
        with locked(tmp_path / "new"):
            said = (tmp_path / "new" / LOCK).read_text()
        with pytest.raises(ValueError), locked(tmp_path):
            assert not is_free(tmp_path)
            raise ValueError
        assert is_free(tmp_path)
        time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"
        assert re.fullmatch(rf"{os.getpid()} {re.escape(os.uname().nodename)} {time}\n", said)

    def test_a_second_process_refuses_and_says_who_has_it(self, tmp_path):
        with (
            holder(tmp_path, "4711 node7 2026-01-31T12:00:00+0100"),
            pytest.raises(BlockingIOError) as caught,
            locked(tmp_path),
        ):
            pytest.fail("it came in")
        assert str(caught.value) == (
            f"The folder {tmp_path} is in use by process 4711 on node7 since 2026-01-31T12:00:00+0100. Wait "
            "until that run ends, or choose another --output-dir."
        )

    @pytest.mark.parametrize("says", ["", "cut", "\x1b[2J a b"])
    def test_what_the_file_says_is_not_trusted(self, tmp_path, says):
        with holder(tmp_path, says), pytest.raises(BlockingIOError) as caught, locked(tmp_path):
            pytest.fail("it came in")
        assert "in use by another process. Wait" in str(caught.value) or r"\x1b[2J" in str(caught.value)

    def test_it_waits_for_one_that_ends(self, tmp_path, monkeypatch):
        monkeypatch.setattr(run_lock, "PATIENCE_S", 60)
        with holder(tmp_path, time_s=0.3), locked(tmp_path):
            assert (tmp_path / LOCK).read_text().startswith(f"{os.getpid()} ")

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_loaders_process_does_not_inherit_it(self, tmp_path):
        reads, writes = os.pipe()
        with locked(tmp_path):
            child = os.fork()
            if child == 0:
                os.close(writes)
                os.read(reads, 1)  # until the parent closes its end
                os._exit(0)
        try:
            assert is_free(tmp_path)
        finally:
            os.close(writes)
            os.waitpid(child, 0)
            os.close(reads)

    def test_what_killed_runs_left_is_removed(self, tmp_path):
        left = tmp_path / "prompt_learner" / f".model.pth.tar-3.1.2{UNFINISHED}"
        left.parent.mkdir()
        left.touch()
        with locked(tmp_path):
            assert not left.exists()


class TestWithoutLocks:
    def test_a_file_system_that_has_none_is_told(self, tmp_path, monkeypatch, caplog):
        def fail(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "lockf", fail)
        with locked(tmp_path):
            pass
        assert caplog.messages == [
            f"{tmp_path}/.lock cannot be locked (No locks available): see that no other process works in its folder"
        ]

    def test_windows_has_none(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "fcntl", None)
        with holder(tmp_path), locked(tmp_path):
            pass


class TestRun:
    @pytest.fixture
    def run(self, tiny_files, tmp_path, capsys):
        """Calls train.py for a run in tmp_path/run; returns the exit code, standard output and error."""
        data, clips = tiny_files
        cfg = tiny_cfg(data, clips["vit"], tmp_path / "run", "TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True)
        (tmp_path / "tiny.yaml").write_text(cfg.dump())
        (tmp_path / "run").mkdir()
        return lambda: (train.main(["--config-file", str(tmp_path / "tiny.yaml")]), *capsys.readouterr())

    def test_it_refuses_a_folder_in_use_and_goes_on_afterwards(self, run, tmp_path):
        with holder(tmp_path / "run", "4711 node7 noon"):
            code, _, error = run()
            assert code == 1
            assert error.startswith(f"Error: The folder {tmp_path}/run is in use by process 4711 on node7 since noon. ")
            assert os.listdir(tmp_path / "run") == [LOCK]
        assert run()[0] == 0
        assert is_free(tmp_path / "run")
        with holder(tmp_path / "run"):
            assert run() == (0, f"Done already: {tmp_path}/run holds the results of this run.\n", "")

    def test_what_another_process_has_done_meanwhile_is_not_done_again(self, run, tmp_path, monkeypatch):
        answers = iter([False, True])
        monkeypatch.setattr(engine.run.run, "is_done", lambda cfg: next(answers))
        assert run() == (0, f"Done already: {tmp_path}/run holds the results of this run.\n", "")
        assert os.listdir(tmp_path / "run") == [LOCK]
