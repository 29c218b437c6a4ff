"""launch/workers.py and launch/plan.py: the order of jobs, what a failure stops, GPUs, interrupts."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import wait
from unittest.mock import Mock

import pytest
import torch

import reproduce
from engine.run import startup
from launch import plan, workers
from launch.workers import Job, Worker, finish_all
from reports.tables import catalogue
from tests.support.small_program import seen


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes jobs of the small program, in forked processes: they have no torch to import."""
    monkeypatch.setattr(workers, "CONTEXT", multiprocessing.get_context("fork"))

    def job(name, *what, needs=None):
        target = tmp_path / name
        return Job("", "tests.support.small_program", (str(target), *what), target, needs and tmp_path / needs)

    return job


@pytest.fixture
def started(monkeypatch):
    """The workers that were given a job, in their order."""
    workers, start = [], Worker.start
    monkeypatch.setattr(Worker, "start", lambda worker, job: workers.append(worker) or start(worker, job))
    return workers


def errors(jobs, n_workers=2):
    """The error of each job by its name."""
    return {job.target.name: error for job, error, _ in finish_all(jobs, n_workers)}


def test_each_after_the_one_that_it_needs_whatever_their_order(make, tmp_path):
    jobs = [make("c", needs="b"), make("b", needs="a"), make("d", needs="not a job"), make("a")]
    assert errors(jobs) == dict.fromkeys("abcd", "")
    times = [seen(tmp_path / name)["time"] for name in "abc"]
    assert times == sorted(times)


def test_a_process_does_many_and_there_are_no_more_than_asked_for(make, tmp_path):
    errors([make(f"job{i}") for i in range(6)])
    found = [seen(tmp_path / f"job{i}") for i in range(6)]
    assert len({each["process"] for each in found}) <= 2
    assert len({each["made"] for each in found}) <= 2, "what one job of a worker made is there for the next"


def test_a_process_without_a_job_ends(make):
    """Another job may wait for what it holds."""
    assert errors([make("a"), make("b", "alone")]) == {"a": "", "b": ""}


def test_the_processes_of_a_program_start_as_outside_of_a_worker(make, tmp_path):
    """A spawned process would spawn its loaders' processes too, which import torch in every epoch."""
    multiprocessing.set_start_method("spawn", force=True)
    try:
        errors([make("a")])
    finally:
        multiprocessing.set_start_method(None, force=True)
    assert seen(tmp_path / "a")["start_method"] is None


class TestGpus:
    def test_processes_take_them_in_turn(self, make, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,4")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert [error for _, error, _ in plan.finish_here([make("a"), make("b"), make("c")], 3)] == [""] * 3
        assert [seen(tmp_path / name)["gpu"] for name in "abc"] == ["7", "4", "7"]

    def test_only_those_that_may_be_used(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert plan.gpus() == ["0", "1"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5f,3,9")
        assert plan.gpus() == ["GPU-5f", "3"]

    def test_jobs_side_by_side(self, monkeypatch):
        monkeypatch.setattr(plan, "n_physical_cores", lambda: 16)
        for n_gpus, n_jobs in ((0, 4), (1, 1), (3, 3)):
            monkeypatch.setattr(torch.cuda, "device_count", lambda n=n_gpus: n)
            assert plan.default_jobs() == n_jobs


@pytest.mark.parametrize(
    ("users", "n_workers", "expected"),
    [((None, None), 2, ["8", "PASSIVE"]), ((None, None), 40, ["1", "PASSIVE"]), (("3", "ACTIVE"), 2, ["3", "ACTIVE"])],
)
def test_processes_share_the_cores_and_their_threads_sleep_unless_the_user_says_otherwise(
    make, tmp_path, monkeypatch, users, n_workers, expected
):
    for name, value in zip(("OMP_NUM_THREADS", "OMP_WAIT_POLICY"), users, strict=True):
        monkeypatch.setenv(name, value or "")  # so that it is put back
        if value is None:
            monkeypatch.delenv(name)
    monkeypatch.setattr(startup, "n_physical_cores", lambda: 16)
    assert [error for _, error, _ in plan.finish_here([make("a")], n_workers)] == [""]
    assert seen(tmp_path / "a")["threads"] == expected


class TestFailures:
    def test_one_is_reported_and_stops_only_what_needs_it(self, make, capfd):
        jobs = [make("a", "fail"), make("b", needs="a"), make("c", needs="b"), make("d", "raise"), make("e")]
        found = errors(jobs)
        assert found["a"] == "Error: it fails.\nFor good."
        assert found["b"] == found["c"] == "Not run, because what it needs failed."
        assert found["d"].startswith("Traceback") and found["d"].endswith("RuntimeError: unexpected")
        assert found["e"] == ""
        assert capfd.readouterr() == ("", "")

    def test_a_process_that_is_killed_fails_its_job_alone(self, make):
        assert errors([make("a", "die"), make("b"), make("c")], n_workers=1) == {
            "a": "The process was ended from outside (exit code 9). If memory is short, lower --jobs.",
            "b": "",
            "c": "",
        }

    @pytest.mark.parametrize("has_read", [False, True])
    def test_a_process_that_is_killed_before_or_after_it_has_read_its_job(self, make, monkeypatch, has_read):
        start = Worker.start

        def die(pipe, gpu):
            time.sleep(0.3 * has_read)
            os._exit(9)

        def start_late(worker, job):
            if not has_read:
                worker.process.join()
            start(worker, job)

        monkeypatch.setattr(workers, "work", die)
        monkeypatch.setattr(Worker, "start", start_late)
        assert errors([make("a")])["a"].startswith("The process was ended from outside (exit code 9).")

    def test_those_of_one_reason_are_listed_together(self, make, tmp_path, capsys):
        (tmp_path / "a").mkdir()
        (tmp_path / "a/log.txt").touch()
        plan.print_failures({make("a"): "Error: x", make("b"): "Error: x"})
        assert capsys.readouterr().err.splitlines() == [
            "",
            "Error: x",
            f"Failed: {tmp_path}/a (its log: {tmp_path}/a/log.txt)",
            f"Failed: {tmp_path}/b",
            "First do what the errors say. What is done is kept: the same command does only what is left.",
        ]


class TestInterrupts:
    def test_one_while_a_job_ends(self, make, monkeypatch, started):
        monkeypatch.setattr(Worker, "outcome", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            errors([make("a")])
        assert not started[0].process.is_alive()

    def test_one_ends_every_process(self, make, monkeypatch, capsys, started):
        monkeypatch.setattr(catalogue, "commands", lambda name: [])
        monkeypatch.setattr(reproduce, "plan", lambda *_: [make("a"), make("b", "interrupt"), make("c", needs="b")])
        handler = signal.getsignal(signal.SIGINT)
        assert reproduce.main(["t", "--jobs", "2"]) == 130
        assert signal.getsignal(signal.SIGINT) == handler
        # Not is_alive(): it is wrong for good where the interrupt came between waitpid and what notes its answer.
        ends = {worker.process.sentinel for worker in started}
        assert set(wait(ends, timeout=0)) == ends
        assert "Interrupted. What is done is kept: the same command does only what is left." in capsys.readouterr().err
