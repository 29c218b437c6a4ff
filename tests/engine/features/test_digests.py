"""Which bytes a file holds: remembered until it may have changed, for all processes; answers follow the images."""

import hashlib
import io
import os
import time

import numpy as np
import pytest
from PIL import Image

from engine.features import digests
from engine.features.digests import SETTLED_NS, SPACE, FileDigests
from engine.features.shards import shards_of
from tests.support.tiny_run import CLASSES, run_train

LONG_AGO_NS = 1_600_000_000 * 10**9


@pytest.fixture
def later(monkeypatch):
    """The files that a test has just written have lain there for a while."""
    now = time.time_ns
    monkeypatch.setattr(digests.time, "time_ns", lambda: now() + 2 * SETTLED_NS)


@pytest.fixture
def files(tmp_path, later):
    """Two files of one size and time; returns their paths."""
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / "folder" / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return list(map(str, paths))


def remembering(folder):
    return FileDigests(folder / "cache", max_bytes=10**9)


def contents(files):
    """The first 32 digits of each file's sha256."""
    return [hashlib.sha256(open(path, "rb").read()).hexdigest()[:32].encode() for path in files]


def test_each_process_reads_a_file_that_another_has_read_no_more(tmp_path, files):
    waiting = remembering(tmp_path)
    assert waiting.lookup(files) == [None, None]
    assert remembering(tmp_path).read(files, 2) == contents(files)
    assert waiting.lookup(files) == remembering(tmp_path).lookup(files) == contents(files)


def swap(one, other):
    os.rename(one, f"{one}-")
    os.rename(other, one)
    os.rename(f"{one}-", other)


def swap_files(one, other):
    swap(one, other)


def rewrite_in_place(one, other):
    for path, content in zip((one, other), [open(path, "rb").read() for path in (other, one)]):
        open(path, "wb").write(content)


def swap_folders(one, other):
    """Each file keeps its inode and all its times."""
    folder = os.path.dirname(one)
    os.mkdir(f"{folder}2")
    os.rename(one, f"{folder}2/b")
    os.rename(other, f"{folder}2/a")
    swap(folder, f"{folder}2")


@pytest.mark.parametrize("change", [swap_files, rewrite_in_place, swap_folders])
def test_files_that_swap_places_are_read_again(tmp_path, files, change):
    first = contents(files)
    remembering(tmp_path).read(files, 1)
    change(*files)
    for path in files:
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    for found in (remembering(tmp_path).lookup(files), remembering(tmp_path).read(files, 1)):
        assert found in ([None, None], contents(files)), change
    assert contents(files) == first[::-1]


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path):
    """Its next change could bear the same time."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert remembering(tmp_path).read([str(path)], 1) == contents([path])
    assert remembering(tmp_path).lookup([str(path)]) == [None]


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, files, monkeypatch):
    class Overtaken(io.FileIO):
        def read(self):
            with open(self.name, "ab") as other:
                other.write(b"more")
            return super().read()

    monkeypatch.setattr(digests, "open", Overtaken, raising=False)
    remembering(tmp_path).read(files, 1)
    assert remembering(tmp_path).lookup(files) == [None, None]


def test_a_file_that_may_not_be_read_has_no_content(tmp_path, files):
    assert remembering(tmp_path).read([*files, str(tmp_path)], 1) == [*contents(files), None]


@pytest.mark.parametrize("rows", [np.array([{}]), np.zeros(2), np.zeros((2, 2), digests.KEY)], ids=str)
def test_a_file_of_something_else_is_removed(tmp_path, files, rows):
    file = io.BytesIO()
    np.save(file, rows)
    shard = tmp_path / "cache" / SPACE / f"{hashlib.sha256(file.getvalue()).hexdigest()}.npy"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(file.getvalue())
    assert remembering(tmp_path).lookup(files) == [None, None]
    assert not shard.exists()


def test_it_makes_room_as_features_do(tmp_path, files):
    for path in files:
        FileDigests(tmp_path / "cache", max_bytes=250).read([path], 1)
    [(_, size, _)] = shards_of(tmp_path / "cache")
    assert size == 128 + 64  # numpy's head, and a row


def test_the_answers_follow_images_that_swap_places(cfg, tmp_path):
    """Of one size and time: the faces and the leopards of the test set, each under the other's name.

    A linear probe tells the three colours apart without an error.
    """
    data = tmp_path / "data"
    for split in ("train", "test"):
        for c, name in enumerate(CLASSES):
            (data / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (40, 36), tuple(60 * i + 100 * (c == k) for k in range(3))).save(
                    data / split / name / f"{i}.bmp"
                )
    for path in data.rglob("*.bmp"):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))

    def correct(name):
        return run_train(cfg("DATASET.ROOT", str(data), "TRAINER.NAME", "LinearProbe", name=name))["correct"]

    assert correct("before") == correct("again") == 9
    for i in range(3):
        swap(*(data / "test" / name / f"{i}.bmp" for name in CLASSES[:2]))
    assert correct("after") == 3
