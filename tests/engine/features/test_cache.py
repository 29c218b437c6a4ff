"""Features on disk: shards that processes share, broken ones, what makes room, and the command."""

import errno
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.features import __main__ as features
from engine.features import shards
from engine.features.cache import FeatureCache
from engine.features.digests import FileDigests
from engine.features.shards import shards_of
from tests.support.script_calls import ROOT


def keys_of(*names):
    return [f"{name:0>32}".encode() for name in names]


def filled(folder, *names, space="space", max_bytes=10**9):
    cache = FeatureCache(folder, space, max_bytes=max_bytes)
    rows = np.array([[float(ord(name)), 0.5] for name in names], dtype=np.float32)
    cache.add(keys_of(*names), rows)
    return cache


def found(cache, *names):
    return [None if row is None else row.tolist() for row in cache.lookup(keys_of(*names))]


def test_processes_side_by_side_see_what_the_others_have_written(tmp_path):
    reading = FeatureCache(tmp_path, "space", max_bytes=10**9)
    assert found(reading, "a") == [None]
    filled(tmp_path, "a", "b")
    filled(tmp_path, "b", "c")
    assert found(reading, "a", "b", "c", "d") == [[97, 0.5], [98, 0.5], [99, 0.5], None]
    assert found(FeatureCache(tmp_path, "other", max_bytes=10**9), "a") == [None]


@pytest.mark.parametrize("how", ["cut", "altered", "empty"])
def test_a_broken_file_is_removed_and_made_again(tmp_path, how, caplog):
    filled(tmp_path, "a")
    [(_, _, shard)] = shards_of(tmp_path)
    content = shard.read_bytes()
    shard.write_bytes({"cut": content[:-7], "altered": content[:-7] + b"7654321", "empty": b""}[how])
    cache = FeatureCache(tmp_path, "space", max_bytes=10**9)
    assert found(cache, "a") == [None]
    assert f"The cache's file {shard} is broken: it is removed" in caplog.text and not shard.exists()
    filled(tmp_path, "a")
    assert found(cache, "a") == [[97, 0.5]]


def test_a_broken_file_that_may_not_be_removed_is_read_once(tmp_path, monkeypatch, caplog):
    """As another user's in a cache that several share."""
    filled(tmp_path, "a")
    [(_, _, shard)] = shards_of(tmp_path)
    shard.write_bytes(b"")

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(shards, "remove", refuse)
    cache = FeatureCache(tmp_path, "space", max_bytes=10**9)
    assert found(cache, "a") == found(cache, "a") == [None]
    assert caplog.text.count("is broken") == 1


@pytest.mark.parametrize(
    "arrays",
    [
        {"keys": np.array([{}]), "features": np.zeros((1, 4), np.float32)},  # needs a pickle
        {"keys": np.zeros(2, "S32"), "features": np.zeros((1, 4), np.float32)},
        {"keys": np.zeros(1, "S32"), "features": np.zeros(1, np.float32)},
        {"keys": np.zeros(1, "S32"), "features": np.zeros((1, 4), np.int64)},
        {"keys": np.zeros(1, int), "features": np.zeros((1, 4), np.float32)},
        {"keys": np.zeros(1, "S32")},
    ],
)
def test_a_file_of_something_else_is_removed_too(tmp_path, arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    shard = tmp_path / "space" / f"{hashlib.sha256(file.getvalue()).hexdigest()}.npz"
    shard.parent.mkdir()
    shard.write_bytes(file.getvalue())
    assert found(FeatureCache(tmp_path, "space", max_bytes=10**9), "a") == [None]
    assert not shard.exists()


def test_what_was_used_longest_ago_makes_room(tmp_path):
    for number, name in enumerate("abc"):
        filled(tmp_path, name, space=name)
        os.utime(next((tmp_path / name).iterdir()), (number, number))
    size = shards_of(tmp_path)[0][1]
    found(FeatureCache(tmp_path, "a", max_bytes=10**9), "a")  # used now
    filled(tmp_path, "d", space="d", max_bytes=3 * size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "d"]


def test_the_command_says_what_the_cache_holds_and_empties_it(tmp_path, capsys):
    filled(tmp_path, "a")
    filled(tmp_path, "b", space="other")
    (tmp_path / "mine.txt").touch()
    assert features.main(["info", "--dir", str(tmp_path)]) == 0
    assert features.main(["clear", "--dir", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path} holds 2 file(s) of 2 tower(s) and data sets, 0.00 GB"
    assert second.startswith(f"{tmp_path} held, now removed: 2 file(s)")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_digests_of_files_are_of_no_tower_and_go_with_the_features(tmp_path, capsys):
    filled(tmp_path, "a")
    FileDigests(tmp_path, max_bytes=10**9).add([(b"a" * 32, b"b" * 32)])
    for command in ("info", "clear"):
        assert features.main([command, "--dir", str(tmp_path)]) == 0
        assert " 2 file(s) of 1 tower(s) and data sets, " in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_was_writing_is_removed_and_not_what_a_running_one_writes(tmp_path):
    wait = "import sys, time; from pathlib import Path; from engine.files import write_atomically\n"
    wait += "write_atomically(Path(sys.argv[1]), lambda path: (path.touch(), print(path, flush=True), time.sleep(60)))"
    space, processes = tmp_path / "space", []
    for name in "ab":
        command = [sys.executable, "-c", wait, str(space / f"{name}.npz")]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    killed, running = (Path(process.stdout.readline().strip()) for process in processes)
    processes[0].kill()
    processes[0].wait()
    try:
        assert killed.exists() and found(FeatureCache(tmp_path, "space", max_bytes=10**9), "a") == [None]
        assert running.exists() and not killed.exists()
    finally:
        processes[1].kill()
        processes[1].wait()
