"""Several processes that fill one data set's folder: one at a time, and none waits for one that was killed."""

import multiprocessing
import os
import shutil
import threading

import pytest

from datasets import prepare
from datasets.fetch import folder_lock
from datasets.fetch.folder_lock import filling
from tests.robustness.small_disk import filled, read_only, small_disk

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def waiting(monkeypatch):
    """Set once this process has found the lock taken, after which it asks again."""
    found_taken, sleep = threading.Event(), folder_lock.time.sleep

    def told(time_s):
        found_taken.set()
        sleep(time_s)

    monkeypatch.setattr(folder_lock.time, "sleep", told)
    return found_taken


def hold(folder, connection):
    with filling(folder):
        connection.send("held")
        connection.recv()


@pytest.fixture
def holder(tmp_path):
    """Another process that fills tmp_path/data/dtd until it is sent a word."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(tmp_path / "data" / "dtd", theirs))
    process.start()
    assert ours.recv() == "held"
    process.end = lambda: ours.send("end")
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("end", ["end", "kill"])
def test_a_second_process_waits_says_for_whom_and_has_nothing_left_to_do(
    tmp_path, dtd, holder, waiting, end, caplog, capsys
):
    caplog.set_level("INFO")
    dtd.lay_out(tmp_path / "data")

    def end_it():
        assert waiting.wait(60)
        getattr(holder, end)()

    thread = threading.Thread(target=end_it)
    thread.start()
    assert prepare.main(["dtd", "--root", str(tmp_path / "data")]) == 0
    thread.join()
    message, *others = caplog.messages
    assert message.startswith(f"Waiting for process {holder.pid} on {os.uname().nodename} since 2")
    assert message.endswith(f", which fills {tmp_path}/data/dtd") and others == []
    assert "DescribableTextures in" in capsys.readouterr().out


def prepare_in_its_turn(root, start):
    start.wait()
    os._exit(prepare.main(["dtd", "--root", str(root)]))


def test_of_three_at_once_one_fetches(tmp_path, web, dtd):
    start = FORK.Event()
    processes = [FORK.Process(target=prepare_in_its_turn, args=(tmp_path / "data", start)) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [path.rpartition("/")[2] for path, _ in web.server.asked] == ["dtd-r1.0.1.tar.gz"]


def test_another_data_set_is_not_waited_for(tmp_path, holder):
    with filling(tmp_path / "data" / "eurosat"):
        assert sorted(os.listdir(tmp_path / "data")) == [".dtd.lock", ".eurosat.lock"]


@pytest.mark.parametrize("fault", [read_only, filled])
def test_a_complete_copy_on_a_disk_that_takes_nothing_needs_no_lock(dtd, fault):
    with small_disk("1m") as disk:
        dtd.lay_out(disk / "data")
        with fault(disk):
            assert prepare.main(["dtd", "--root", str(disk / "data")]) == 0


@pytest.mark.parametrize("is_there", [False, True])
def test_an_incomplete_one_on_a_disk_that_may_only_be_read_is_told(dtd, is_there, capsys):
    with small_disk("1m") as disk:
        if is_there:
            shutil.rmtree(dtd.lay_out(disk / "data") / "images")
        with read_only(disk):
            assert prepare.main(["dtd", "--root", str(disk / "data")]) == 1
        message = f"{disk}/data/dtd could not be written (Read-only file system). Change the permissions of its folder"
        assert capsys.readouterr().err.startswith(message)


def test_another_fault_is_told(tmp_path):
    (tmp_path / ".dtd.lock").mkdir()
    with pytest.raises(IsADirectoryError), filling(tmp_path / "dtd"):
        pytest.fail("it came in")
