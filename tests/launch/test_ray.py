"""launch/ray.py: jobs on a Ray cluster of two nodes, both on this machine; a lost worker; what is refused."""

import re
import shlex
import signal
import socket
import sys
from functools import partial

import pytest
import torch

import sweep
import train
from launch import ray as ray_jobs
from launch.workers import Job
from tests.launch.test_sweep import context, planned, tiny_pairs
from tests.support.script_calls import ROOT
from tests.support.tiny_run import repeatable

GRID = "--dataset folder --cfg tiny --shots 1 --seeds 1 2 --launcher ray"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_without_ray(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert sweep.main([*GRID.split(), "--output-dir", str(tmp_path)]) == 1
    assert capsys.readouterr() == (
        "",
        "Error: --launcher is ray, expected the package ray to be there. Run `pip install '.[ray]'`, or leave "
        "--launcher out.\n",
    )


@pytest.fixture
def port():
    """One that is taken and at which nobody listens."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        yield silent.getsockname()[1]


@pytest.mark.parametrize(
    "address, reason",
    [("nowhere", ""), ("127.0.0.1:{}", r".*Connection refused"), ("127.0.0.1:x", "Port .* 'x'")],
)
def test_without_a_cluster(monkeypatch, capsys, port, address, reason):
    pytest.importorskip("ray")
    address = address.format(port)
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert sweep.main(GRID.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: RAY_ADDRESS is {address}, expected the address of a Ray cluster that runs (")
    assert re.search(rf"runs \({reason}", error)
    assert error.endswith("). Start one with `ray start --head`, or leave --launcher out.\n")


@pytest.mark.parametrize("address", ["", "auto", "local", "ray://127.0.0.1:{}"])
def test_only_ray_knows_what_is_no_host_and_port(port, address):
    ray_jobs.knock(address.format(port))


def test_a_listener_is_found(port):
    with pytest.raises(ConnectionRefusedError):
        ray_jobs.knock(f"127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        ray_jobs.knock(f"localhost:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    "resources, gpus_per_run, n_runs",
    [
        ({"CPU": 8.0, "GPU": 2.0}, 0.25, 8),
        ({"CPU": 8.0, "GPU": 2.0}, 0.4, 4),
        ({"CPU": 8.0, "GPU": 2.0}, 1, 2),
        ({"CPU": 3.0, "GPU": 2.0}, 0.25, 3),
        ({"CPU": 6.0}, 0.25, 6),
        ({}, 0.25, 1),
    ],
)
def test_how_many_runs_have_room(resources, gpus_per_run, n_runs):
    assert ray_jobs.room(resources, gpus_per_run) == n_runs


PROGRAM = """
import os, pathlib, signal, sys
import ray
from engine.process_cache import shared
def main(argv):
    target, *what = argv
    with open(f"{target}.starts", "a") as file:
        file.write("started ")
    n_starts = len(pathlib.Path(f"{target}.starts").read_text().split())
    if "lost" in what and n_starts <= int(what[-1]):
        os.kill(os.getpid(), signal.SIGKILL)
    if "fail" in what:
        print("Error: it fails.", file=sys.stderr)
        return 1
    node, gpu = ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES")
    pathlib.Path(target).write_text(f"{node} {gpu} {os.getcwd()} {shared('made', 1, lambda: target)}")
    return 0
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes with a core and, they say, a GPU each; and a folder with a small program, which their workers find."""
    ray = pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "small_program.py").write_text(PROGRAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(folder))
        node = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80_000_000}
        cluster = pytest.importorskip("ray.cluster_utils").Cluster(
            initialize_head=True, head_node_args={**node, "include_dashboard": False}
        )
        try:
            cluster.add_node(**node)
            patch.setenv("RAY_ADDRESS", cluster.address)
            patch.chdir(ROOT)
            handler = signal.getsignal(signal.SIGTERM)
            assert ray_jobs.connect(0.5) == 2
            assert signal.getsignal(signal.SIGTERM) == handler
            yield folder
        finally:
            ray.shutdown()
            cluster.shutdown()


def finish(planned, n_workers=2):
    return {
        job.target.name: error for job, error, _ in ray_jobs.finish_on_cluster(planned, n_workers, gpus_per_run=0.5)
    }


@pytest.mark.slow
def test_jobs_on_two_nodes(cluster, tmp_path):
    def job(name, *what, needs=None):
        return Job("", "small_program", (str(tmp_path / name), *what), tmp_path / name, needs and tmp_path / needs)

    planned = [job("a"), job("b"), job("c", needs="a"), job("d", "fail"), job("e", needs="d")]
    assert finish(planned) == {
        **dict.fromkeys("abc", ""),
        "d": "Error: it fails.",
        "e": "Not run, because what it needs failed.",
    }
    said = {name: (tmp_path / name).read_text().split() for name in "abc"}
    assert len({node for node, *_ in said.values()}) == 2
    assert {(gpu, folder) for _, gpu, folder, _ in said.values()} == {("0", str(ROOT))}
    assert said["c"][3] in {str(tmp_path / name) for name in "ab"}, (
        "what one job of a worker made is there for the next"
    )


@pytest.mark.slow
def test_a_run_whose_worker_is_lost_is_done_again_and_not_for_ever(cluster, tmp_path, monkeypatch):
    def job(name, n_lost):
        return Job("", "small_program", (str(tmp_path / name), "lost", str(n_lost)), tmp_path / name)

    assert ray_jobs.MAX_RETRIES == 2
    monkeypatch.setattr(ray_jobs, "MAX_RETRIES", 1)  # each takes seconds
    errors = finish([job("once", 1), job("always", 9)])
    assert errors["once"] == ""
    assert errors["always"].startswith("The worker was lost 2 times, expected at most 1. Where memory is short, lower")
    starts = {name: (tmp_path / f"{name}.starts").read_text().count("started") for name in errors}
    assert starts == {"once": 2, "always": 2}


@pytest.mark.slow
def test_a_sweep_gives_what_train_gives(cluster, tiny_files, tmp_path, monkeypatch, capsys, request):
    data, clips = tiny_files
    monkeypatch.setattr(ray_jobs, "connect", lambda gpus_per_run: 2)  # this process is in the cluster already
    words = f"{GRID} --root {data} --nctx 2 --output-dir {tmp_path}/swept {tiny_pairs(clips['vit'])}"
    assert sweep.main(shlex.split(words)) == 0
    assert capsys.readouterr().out.startswith("2 of 2 runs are left; 2 side by side.")
    swept = planned(words)
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(1)  # as Ray has it for a worker with one core: sums in another order differ in the last bit
    for place, job in planned(words.replace("/swept", "/alone")).items():
        assert train.main(list(job.argv)) == 0
        assert repeatable(swept[place].target) == repeatable(job.target)
        assert torch.equal(context(swept[place].target), context(job.target))
