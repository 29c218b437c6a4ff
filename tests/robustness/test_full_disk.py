"""Disks that are full or may only be read, at any moment of a run: one clear message, and nothing that was is lost."""

import errno
import itertools
import logging
import os
import re
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from datasets.splits.fewshot_file import write_fewshot
from datasets.splits.split_file import write_split
from engine import Datum, load_checkpoint, save_checkpoint
from engine.checkpoint import write_torch_file
from engine.features.cache import KEY, FeatureCache
from engine.files import UNFINISHED
from engine.log import ScalarWriter, close_logging, setup_logging
from engine.resume import RESUME
from engine.run.folder import write_config, write_results
from engine.run.lock import locked
from tests.robustness.small_disk import filled, read_only, small_disk
from tests.support.tiny_run import tiny_cfg, valid_cfg

logger = logging.getLogger("engine.test")


@contextmanager
def full_disk(tmp_path, monkeypatch):
    with small_disk("256k") as disk:
        yield disk, lambda: filled(disk), "No space left on device"


@contextmanager
def read_only_disk(tmp_path, monkeypatch):
    with small_disk("256k") as disk:
        yield disk, lambda: read_only(disk), "Read-only file system"


@contextmanager
def full_quota(tmp_path, monkeypatch):
    """Simulated, so that it takes place where nobody may mount a disk, too."""

    @contextmanager
    def fault():
        def fail(*_):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            yield

    yield tmp_path, fault, "Disk quota exceeded"


@pytest.fixture(params=[full_disk, read_only_disk, full_quota], ids=lambda kind: kind.__name__)
def faulty(request, tmp_path, monkeypatch):
    """A folder, how to bring on a fault of its disk, and what the system calls it."""
    with request.param(tmp_path, monkeypatch) as kind:
        yield kind


def cfg_of(folder):
    return valid_cfg(OUTPUT_DIR=str(folder))


def items(folder):
    return [Datum(str(folder / "images" / "1.jpg"), 0, classname="face")]


def checkpoint(version):
    return {"state_dict": {"ctx": torch.full((2048,), version)}, "epoch": 1}


MOMENTS = {  # what writes a file into a folder, in a version
    "a checkpoint": lambda folder, version: save_checkpoint(checkpoint(version), folder / "prompt_learner"),
    "the best model": lambda folder, version: save_checkpoint(checkpoint(version), folder, is_best=True),
    "a state to resume from": lambda folder, version: save_checkpoint(checkpoint(version), folder, file_name="resume"),
    "config.yaml": lambda folder, version: write_config(cfg_of(folder)),
    "results.json": lambda folder, version: write_results(cfg_of(folder), {"accuracy": version}),
    "the confusion matrix": lambda folder, version: write_torch_file(torch.full((9, 9), version), folder / "cmat.pt"),
    "a few-shot list": lambda folder, version: write_fewshot(folder / "a.jsonl", folder / "images", items(folder), []),
    "a split file": lambda folder, version: write_split(folder / "a.json", folder / "images", items(folder), [], []),
}


def tree(folder):
    """The bytes of every file below a folder; not the one that fills the disk."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "filler"}


class TestMoments:
    @pytest.mark.parametrize("moment", MOMENTS)
    def test_what_was_there_stays_and_it_goes_on_with_room(self, faulty, moment):
        (folder, fault, reason), write = faulty, MOMENTS[moment]
        message = rf"^{folder}/\S+ could not be written \({reason}\)\. .*, then repeat the command\.$"
        with fault(), pytest.raises(OSError, match=message):
            write(folder, 1.0)
        assert tree(folder) == {}  # nothing half is there
        write(folder, 1.0)
        before = tree(folder)
        with fault(), pytest.raises(OSError, match=message):
            write(folder, 2.0)
        assert tree(folder) == before
        write(folder, 2.0)
        assert tree(folder).keys() == before.keys()

    def test_a_disk_that_gets_full_in_the_midst_of_a_checkpoint(self):
        """Where torch writes past the file's buffer, and tells something else."""
        with small_disk("1m") as disk:
            save_checkpoint({"state_dict": {"ctx": torch.zeros(1000)}, "epoch": 1}, disk)
            before = tree(disk)
            large = {"state_dict": {name: torch.zeros(100_000) for name in "abcd"}, "epoch": 2}
            with pytest.raises(OSError, match=r"model\.pth\.tar-2 could not be written \(No space left on device\)"):
                save_checkpoint(large, disk)
            assert tree(disk) == before

    @pytest.mark.parametrize("kind", [full_disk, read_only_disk], ids=lambda kind: kind.__name__)
    def test_the_lock(self, kind):
        with kind(None, None) as (folder, fault, reason), fault():
            with pytest.raises(OSError, match=rf"/\.lock could not be written \({reason}\)\. "):
                with locked(folder):
                    pytest.fail("it came in")

    def test_a_read_only_log(self):
        with small_disk("64k") as disk, read_only(disk):
            with pytest.raises(OSError, match=r"log\.txt could not be written \(Read-only file system\)\. "):
                setup_logging(disk)

    def test_the_feature_cache_goes_on_in_memory(self, faulty, caplog):
        folder, fault, reason = faulty
        cache = FeatureCache(folder / "features", "space", max_bytes=10**6)
        keys, features = [b"a" * 32, b"b" * 32], np.ones((2, 4), np.float32)
        with fault():
            cache.add(keys, features)
            cache.add([b"c" * 32], features[:1])
        [message] = caplog.messages
        assert re.search(rf"features, which cannot be written \(.*\({reason}\).*\): this run keeps", message)
        assert np.array_equal(cache.lookup(keys), features) and np.array(keys, KEY).tolist() == keys
        assert tree(folder) == {}


class TestLog:
    """A full disk does not end a run because of a line of its log."""

    @pytest.fixture(autouse=True)
    def end_logging(self):
        yield
        close_logging()

    def test_one_warning_and_every_line_on_the_terminal(self, capsys):
        with small_disk("64k") as disk:
            setup_logging(disk)
            logger.info("before")
            with filled(disk):
                for i in range(50):
                    logger.info("line %d %s", i, "x" * 500)
            logger.info("after")
            close_logging()
            text = (disk / "log.txt").read_text()
        printed = capsys.readouterr()
        assert printed.err == ""
        lines = printed.out.splitlines()
        warnings = [line for line in lines if not line.startswith(("before", "line", "after"))]
        assert warnings == [
            f"{disk}/log.txt cannot be written (No space left on device): lines may be missing there. Free some room."
        ]
        assert len(lines) == 53
        assert text.startswith("before\n") and text.endswith("after\n")

    def test_it_ends_quietly_on_a_full_disk(self, capsys):
        with small_disk("64k") as disk:
            setup_logging(disk)
            with filled(disk):
                logger.info("lost")
                close_logging()
        printed = capsys.readouterr()
        assert printed.err == "" and printed.out.count("\n") == 2

    def test_another_fault_of_logging_is_not_hidden(self, tmp_path, capsys, monkeypatch):
        setup_logging(tmp_path)
        monkeypatch.setattr(logging.getLogger().handlers[-1], "format", None)
        logger.info("lost")
        assert "Logging error" in capsys.readouterr().err


class TestScalars:
    """Nor because of TensorBoard's file."""

    @pytest.fixture(autouse=True)
    def excepthook(self, monkeypatch):
        self.said = []
        monkeypatch.setattr(threading, "excepthook", self.said.append)

    def test_one_warning_and_no_traceback_of_its_thread(self, caplog):
        with small_disk("64k") as disk:
            writer = ScalarWriter(disk / "tensorboard")
            writer.add_scalar("train/loss", 1.0, 0)
            writer.flush()
            with filled(disk):
                for step in range(500):
                    writer.add_scalar("train/loss", 1.0, step)
                writer.flush()
            writer.add_scalar("train/loss", 1.0, 500)
            writer.close()
        assert caplog.messages == [
            f"{disk}/tensorboard cannot be written (No space left on device): TensorBoard's curves end here"
        ]
        assert self.said == []

    def test_a_folder_that_cannot_be_made(self, tmp_path, caplog):
        (tmp_path / "file").touch()
        writer = ScalarWriter(tmp_path / "file" / "tensorboard")
        writer.add_scalar("train/loss", 1.0, 0)
        writer.close()
        assert caplog.messages == [
            f"{tmp_path}/file/tensorboard cannot be written (Not a directory): TensorBoard's curves end here"
        ]

    def test_errors_of_other_threads_are_told(self, tmp_path):
        writer = ScalarWriter(tmp_path)
        thread = threading.Thread(target=lambda: Path("/none/at/all").read_bytes())
        thread.start()
        thread.join()
        writer.close()
        assert [type(raised.exc_value) for raised in self.said] == [FileNotFoundError]
        assert threading.excepthook == self.said.append


@pytest.fixture
def run(tiny_files, tmp_path, capsys):
    """Calls train.py for a tiny run in a folder; returns the exit code and standard error."""
    data, clips = tiny_files

    def call(folder):
        config = tmp_path / "tiny.yaml"
        config.write_text(tiny_cfg(data, clips["vit"], folder, "OPTIM.MAX_EPOCH", 1, "TEST.NO_TEST", True).dump())
        code = train.main(["--config-file", str(config)])
        return code, capsys.readouterr().err

    return call


class TestRun:
    def test_whichever_write_fails_the_same_command_goes_on(self, run, tmp_path, monkeypatch):
        fsync, written = os.fsync, []
        monkeypatch.setattr(os, "fsync", written.append)
        assert run(tmp_path / "whole")[0] == 0
        expected = context(tmp_path / "whole")
        for n in range(1, len(written) + 1, 2):  # of a file; the even ones are of its folder
            folder = tmp_path / str(n)
            monkeypatch.setattr(os, "fsync", full_at(n, fsync))
            code, said = run(folder)
            assert code == 1 and re.fullmatch(
                rf"Error: {folder}/\S+ could not be written \(No space left on device\)\. .* the command\.\n", said
            ), said
            monkeypatch.setattr(os, "fsync", fsync)
            assert run(folder)[0] == 0
            assert torch.equal(context(folder), expected)
            assert not [path for path in folder.rglob("*") if path.name.endswith(UNFINISHED)]

    def test_a_full_disk(self, run):
        with small_disk("2m") as disk:
            with filled(disk):
                code, said = run(disk / "run")
            assert code == 1 and said.startswith(f"Error: {disk}/run/") and said.count("\n") == 1
            assert run(disk / "run") == (0, "")

    def test_a_finished_run_that_may_only_be_read_is_done(self, run):
        with small_disk("2m") as disk:
            assert run(disk / "run")[0] == 0
            (disk / "run" / RESUME).touch()
            with read_only(disk):
                assert run(disk / "run") == (0, "")
                code, said = run(disk / "another")
        assert code == 1 and re.search(r"^Error: \S+ could not be written \(Read-only file system\)", said)


def full_at(n, fsync):
    """An fsync that fails once, the nth time."""
    times = itertools.count(1)

    def sync(descriptor):
        if next(times) == n:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    return sync


def context(folder):
    return load_checkpoint(folder / "prompt_learner" / "model.pth.tar-1")["state_dict"]["ctx"]
