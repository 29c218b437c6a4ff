"""Disks that are full or may only be read, at any moment of a run: one clear message, and nothing that was is lost."""

import errno
import itertools
import logging
import os
import re
from contextlib import contextmanager, nullcontext
from functools import partial

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
from engine.log import close_logging, setup_logging
from engine.resume import RESUME
from engine.run.folder import write_config, write_results
from engine.run.lock import locked
from engine.trackers import ScalarsFile, TensorBoard, Trackers
from tests.robustness.small_disk import filled, read_only, small_disk
from tests.support.tiny_run import tiny_cfg, valid_cfg

logger = logging.getLogger("engine.test")


@contextmanager
def full_disk(folder):
    with filled(folder):
        yield "No space left on device"


@contextmanager
def read_only_disk(folder):
    with read_only(folder):
        yield "Read-only file system"


@contextmanager
def full_quota(folder):
    """Simulated, so that it takes place where nobody may mount a disk, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full_at(1, None, errno.EDQUOT))
        yield "Disk quota exceeded"


@pytest.fixture(params=[full_disk, read_only_disk, full_quota], ids=lambda fault: fault.__name__)
def faulty(request, tmp_path):
    """A folder, and how to bring on a fault of its disk, which gives what the system calls it."""
    with nullcontext(tmp_path) if request.param is full_quota else small_disk("256k") as folder:
        yield folder, partial(request.param, folder)


def checkpoint(version):
    return {"state_dict": {"ctx": torch.full((2048,), version)}, "epoch": 1}


MOMENTS = {  # what writes a file into a folder, in a version
    "a checkpoint": lambda folder, version: save_checkpoint(checkpoint(version), folder / "prompt_learner"),
    "the best model": lambda folder, version: save_checkpoint(checkpoint(version), folder, is_best=True),
    "a state to resume from": lambda folder, version: save_checkpoint(checkpoint(version), folder, file_name="resume"),
    "config.yaml": lambda folder, version: write_config(valid_cfg(OUTPUT_DIR=str(folder))),
    "results.json": lambda folder, version: write_results(valid_cfg(OUTPUT_DIR=str(folder)), {"accuracy": version}),
    "the confusion matrix": lambda folder, version: write_torch_file(torch.full((9, 9), version), folder / "cmat.pt"),
    "a few-shot list": lambda folder, version: write_fewshot(folder / "a.jsonl", folder, [Datum(folder / "1.jpg")], []),
    "a split file": lambda folder, version: write_split(folder / "a.json", folder, [Datum(folder / "1.jpg")], [], []),
}


def tree(folder):
    """The bytes of every file below a folder; not the one that fills the disk."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "filler"}


class TestMoments:
    @pytest.mark.parametrize("moment", MOMENTS)
    def test_what_was_there_stays_and_it_goes_on_with_room(self, faulty, moment):
        (folder, fault), write, before = faulty, MOMENTS[moment], {}
        for version in (1.0, 2.0):  # nothing is there, then the first version
            with fault() as reason, pytest.raises(OSError) as error:
                write(folder, version)
            assert error.match(rf"^{folder}/\S+ could not be written \({reason}\)\. .*, then repeat the command\.$")
            assert tree(folder) == before
            write(folder, version)
            assert not before or tree(folder).keys() == before.keys()
            before = tree(folder)

    def test_a_disk_that_gets_full_in_the_midst_of_a_checkpoint(self):
        """Where torch writes past the file's buffer, and tells something else."""
        with small_disk("1m") as disk:
            save_checkpoint({"state_dict": {"ctx": torch.zeros(1000)}, "epoch": 1}, disk)
            before = tree(disk)
            large = {"state_dict": {name: torch.zeros(100_000) for name in "abcd"}, "epoch": 2}
            with pytest.raises(OSError, match=r"model\.pth\.tar-2 could not be written \(No space left on device\)"):
                save_checkpoint(large, disk)
            assert tree(disk) == before

    def test_the_lock(self):
        with small_disk("64k") as disk, filled(disk):
            with pytest.raises(OSError, match=r"/\.lock could not be written \(No space left on device\)\. "):
                with locked(disk):
                    pytest.fail("it came in")

    def test_a_read_only_log(self):
        with small_disk("64k") as disk, read_only(disk):
            with pytest.raises(OSError, match=r"log\.txt could not be written \(Read-only file system\)\. "):
                setup_logging(disk)

    def test_the_feature_cache_goes_on_in_memory(self, faulty, caplog):
        folder, fault = faulty
        cache = FeatureCache(folder / "features", "space", max_bytes=10**6)
        keys, features = [b"a" * 32, b"b" * 32], np.ones((2, 4), np.float32)
        with fault() as reason:
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
            setup_logging(disk / "again")
            with filled(disk):
                logger.info("lost")
                close_logging()  # quietly
        printed = capsys.readouterr()
        assert printed.err == ""
        lines = printed.out.splitlines()
        warnings = [line for line in lines if not line.startswith(("before", "line", "after", "lost"))]
        reason = "cannot be written (No space left on device): lines may be missing there. Free some room."
        assert warnings == [f"{folder}/log.txt {reason}" for folder in (disk, disk / "again")] and len(lines) == 55
        assert text.startswith("before\n") and text.endswith("after\n")

    def test_another_fault_of_logging_is_not_hidden(self, tmp_path, capsys, monkeypatch):
        setup_logging(tmp_path)
        monkeypatch.setattr(logging.getLogger().handlers[-1], "format", None)
        logger.info("lost")
        assert "Logging error" in capsys.readouterr().err


class TestTrackers:
    """Nor because of its curves."""

    PLACES = {
        "tensorboard": (TensorBoard, "TensorBoard's curves end here"),
        "scalars.csv": (ScalarsFile, "its curves end here"),
    }

    @pytest.mark.parametrize("name", PLACES)
    def test_one_warning_and_the_others_go_on(self, tmp_path, caplog, name):
        (kind, what), trackers = self.PLACES[name], Trackers()
        with small_disk("64k") as disk:
            trackers.open([kind(disk / name), ScalarsFile(tmp_path / "other.csv")])
            trackers.add_scalar("train/loss", 1.0, 0)
            trackers.flush()
            with filled(disk):
                for step in range(1, 500):
                    trackers.add_scalar("train/loss", 1.0, step)
                trackers.flush()
            trackers.add_scalar("train/loss", 1.0, 500)
            trackers.close()
        assert caplog.messages == [f"{disk}/{name} cannot be written (No space left on device): {what}"]
        assert len((tmp_path / "other.csv").read_text().splitlines()) == 502

    @pytest.mark.parametrize("name", PLACES)
    def test_a_folder_that_cannot_be_made(self, tmp_path, caplog, name):
        (kind, what), trackers = self.PLACES[name], Trackers()
        (tmp_path / "file").touch()
        trackers.open([kind(tmp_path / "file" / "run" / name)])
        trackers.add_scalar("train/loss", 1.0, 0)
        trackers.close()
        assert caplog.messages == [f"{tmp_path}/file/run/{name} cannot be written (Not a directory): {what}"]


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


def full_at(n, fsync, number=errno.ENOSPC):
    """An fsync that fails once, the nth time; without fsync, always."""
    times = itertools.count(1)

    def sync(descriptor):
        if fsync is None or next(times) == n:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    return sync


def context(folder):
    return load_checkpoint(folder / "prompt_learner" / "model.pth.tar-1")["state_dict"]["ctx"]
