"""engine/run/provenance.py and what results.json says of its origin, against git, sha256, the system's own counts."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import clip.clip
from clip.clip import weights_sha256
from clip.download import sha256
from engine import DatasetBase, Datum, get_cfg_default
from engine.data.datum import data_digests
from engine.device import keep_freed_memory
from engine.log import Clock
from engine.run import provenance
from tests.support.tiny_run import CLASSES, run_train, tiny_cfg

CPU = torch.device("cpu")
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")

needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="needs Linux's /proc")


def status_gb(key):
    """VmRSS, what this process holds, or VmHWM, the most that it held."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1]) * 1024 / 1e9


def git(folder, *words):
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@b.c", *words]
    return subprocess.run(command, env=own, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def clone(tmp_path):
    """A git clone with one commit, one file, and one pattern of ignored files."""
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "train.py").write_text("pass\n")
    (folder / ".gitignore").write_text("output/\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


@needs_git
class TestCode:
    @pytest.mark.parametrize(
        ("name", "changed"), [("output/log.txt", False), ("train.py", True), ("trainers/mine.py", True)]
    )
    def test_what_differs_from_the_commit_counts_and_not_what_is_ignored(self, clone, name, changed):
        (clone / name).parent.mkdir(exist_ok=True)
        (clone / name).write_text("print()\n")
        version = provenance.code_version(clone)
        assert (version["commit"], version["changed"]) == (git(clone, "rev-parse", "HEAD"), changed)

    def test_an_installed_copy_in_somebodys_repository_has_no_commit(self, clone):
        (clone / "site-packages").mkdir()
        version = provenance.code_version(clone / "site-packages")
        assert (version["commit"], version["changed"]) == (None, None)

    def test_variables_of_a_hook_lead_nowhere_else(self, clone, monkeypatch, tmp_path):
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))
        assert provenance.code_version(clone)["commit"] == git(clone, "rev-parse", "HEAD")
        monkeypatch.setenv("PATH", "")  # without git nothing is known
        assert provenance.code_version(clone)["commit"] is None

    def test_the_clone_is_only_read(self, clone):
        """Git would write what it finds to the index, and lock out whoever commits meanwhile."""
        os.utime(clone / "train.py", (0, 0))
        before = (clone / ".git" / "index").read_bytes()
        assert provenance.code_version(clone)["changed"] is False
        assert (clone / ".git" / "index").read_bytes() == before


def test_the_version_is_the_installed_packages(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(provenance.metadata, "version", {provenance.PACKAGE: "1.2.3"}.__getitem__)
        assert provenance.code_version()["version"] == "1.2.3"
    monkeypatch.setattr(provenance, "PACKAGE", "a package that nobody has")
    assert provenance.code_version()["version"] is None


def test_versions_are_those_that_are_installed():
    found = provenance.library_versions(CPU)
    assert found.pop("python") == ".".join(map(str, os.sys.version_info[:3]))
    assert set(found) == {"torch", "torchvision", "numpy", "pillow", "scikit-learn"}
    assert all(found[name].split("+")[0] == metadata.version(name).split("+")[0] for name in found)


@needs_proc
def test_peak_memory_is_the_systems_count():
    block = np.ones(20_000_000)  # 160 MB
    found = provenance.peak_memory_gb(CPU)
    del block
    assert found == {
        "peak_memory_gb": pytest.approx(status_gb("VmHWM"), rel=0.02),
        "peak_gpu_memory_gb": None,
    }


@needs_proc
def test_a_run_has_a_peak_of_its_own(tiny_files, tmp_path):
    """Not that of what its process did before, whose freed memory it has kept."""
    keep_freed_memory()
    block = np.ones(100_000_000)  # 800 MB, more than the run takes
    before_gb = status_gb("VmHWM")
    del block
    assert results_of_run(tiny_files, tmp_path / "run")["cost"]["peak_memory_gb"] < before_gb - 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    device = torch.device("cuda")
    block = torch.ones(50_000_000, device=device)  # 200 MB
    assert provenance.peak_memory_gb(device)["peak_gpu_memory_gb"] >= 0.2
    del block
    provenance.forget_peak_memory(device)
    assert provenance.peak_memory_gb(device)["peak_gpu_memory_gb"] < 0.2
    assert provenance.device_name(device) == torch.cuda.get_device_properties(0).name
    assert {"cuda", "cudnn"} <= provenance.library_versions(device).keys()


@pytest.mark.parametrize(
    ("eval_only", "clock_s", "training_s", "testing_s"),
    [
        (False, {"testing_s": 2.0}, 8.0, 2.0),  # training is what is not testing
        (False, {"earlier_s": 30.0, "testing_s": 5.0}, 35.0, 5.0),  # the parts of an interrupted run add up
        (True, {"testing_s": 2.0}, None, 2.0),
    ],
)
def test_seconds_of_training_and_of_tests_ten_seconds_after_the_start(
    monkeypatch, eval_only, clock_s, training_s, testing_s
):
    cfg, clock = get_cfg_default(), Clock()
    cfg.RUN.EVAL_ONLY = eval_only
    vars(clock).update(clock_s)
    monkeypatch.setattr(time, "monotonic", lambda: clock.start_s + 10.0)
    found = provenance.cost(SimpleNamespace(cfg=cfg, clock=clock, device=CPU))
    assert (found["training_s"], found["testing_s"]) == (training_s, testing_s)


class TestData:
    def dataset(self, root, names=CLASSES):
        items = {s: [Datum(f"{root}/{s}/{n}/0.png", c, classname=n) for c, n in enumerate(names)] for s in ("a", "b")}
        return DatasetBase(items["a"], test=items["b"])

    def test_by_hand(self):
        content = '[[["face/0.png",0,"face"],["leopard/0.png",1,"leopard"],["wine_bottle/0.png",2,"wine_bottle"]]]'
        digest = hashlib.sha256(content.encode()).hexdigest()
        for root in ("/images", "b/c"):
            assert data_digests(self.dataset(root)) == {"train": digest, "test": digest}
        dataset = DatasetBase(test=[Datum("/images/face/0.png", 0, classname="face")])
        assert data_digests(dataset) == {"test": hashlib.sha256(b'[[["0.png",0,"face"]]]').hexdigest()}

    def test_another_list_has_another_digest(self):
        changes = (lambda items: items[::-1], lambda items: items[:2], lambda items: [*items[:2], items[1]])
        whole = data_digests(self.dataset("/images"))
        for change in changes:
            other = self.dataset("/images")
            other.test = change(other.test)
            digests = data_digests(other)
            assert digests["train"] == whole["train"] and digests["test"] != whole["test"]
        renamed = self.dataset("/images", ("face", "Leopard", "wine_bottle"))
        assert data_digests(renamed, ["test"])["test"] != whole["test"]


class TestWeights:
    def test_the_same_file_is_read_once_in_a_process_and_again_when_it_has_changed(self, tmp_path, monkeypatch):
        path, read = tmp_path / "weights.pt", []
        monkeypatch.setattr(clip.clip, "sha256", lambda path: read.append(path) or sha256(path))
        for content in (b"one", b"other"):
            path.write_bytes(content)
            for _ in range(2):
                assert weights_sha256(str(path)) == hashlib.sha256(content).hexdigest()
        os.utime(path, (0, 0))
        assert weights_sha256(str(path)) == hashlib.sha256(b"other").hexdigest()
        assert len(read) == 3

    def test_of_a_published_model_of_the_one_that_comes_along_and_of_nothing(self):
        assert weights_sha256("RN50") == "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"
        path = Path(__file__).parents[3] / "clip" / "shapes.npz"
        assert weights_sha256("ViT-T/8-shapes") == hashlib.sha256(path.read_bytes()).hexdigest()
        assert weights_sha256("no/such/file.pt") is None


def results_of_run(tiny_files, folder, *pairs):
    data, clips = tiny_files
    return run_train(tiny_cfg(data, clips["vit"], folder, "OPTIM.MAX_EPOCH", 1, *pairs))


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestResults:
    def test_a_run_says_where_it_comes_from_and_what_it_cost_which_alone_differs(self, tiny_files, tmp_path):
        results = results_of_run(tiny_files, tmp_path / "run")
        origin = results["provenance"]
        assert set(origin) == {
            *("code", "libraries", "device", "threads", "ranks", "precision", "deterministic"),
            *("weights_sha256", "model_sha256", "data_sha256", "listed_sha256", "images_sha256"),
        }
        assert (origin["threads"], origin["ranks"], origin["precision"]) == (torch.get_num_threads(), 1, "fp32")
        assert origin["device"].startswith("cpu (") and origin["deterministic"] is False
        assert origin["model_sha256"] == sha256_of(tmp_path / "run/prompt_learner/model.pth.tar-1")
        assert origin["weights_sha256"] == weights_sha256(tiny_files[1]["vit"])
        assert set(origin["data_sha256"]) == {"train", "val", "test"}
        assert results["cost"]["training_s"] > 0 and results["cost"]["testing_s"] > 0
        assert set(results["cost"]) == {"training_s", "testing_s", "peak_memory_gb", "peak_gpu_memory_gb"}
        text = json.dumps([results["provenance"], results["cost"]])
        assert str(tiny_files[0].parent) not in text and str(tmp_path) not in text and str(Path.home()) not in text
        other = results_of_run(tiny_files, tmp_path / "other")
        other["provenance"]["model_sha256"] = origin["model_sha256"]  # a checkpoint holds times
        assert {**other, "cost": None} == {**results, "cost": None}

    def test_only_what_is_tested_on_counts_where_nothing_is_trained(self, tiny_files, tmp_path):
        pairs = ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True)
        results = results_of_run(tiny_files, tmp_path / "run", *pairs)
        assert set(results["provenance"]["data_sha256"]) == {"test"}
        assert results["provenance"]["precision"] == "fp32" and results["cost"]["training_s"] is None

    def test_the_digest_of_images_is_that_of_their_bytes_in_order(self, tiny_files, tmp_path):
        results = results_of_run(tiny_files, tmp_path / "run", "TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True)
        paths = [tiny_files[0] / "test" / name / f"{i}.png" for name in CLASSES for i in range(3)]
        content = "\n".join(sha256_of(path)[:32] for path in paths)
        assert results["provenance"]["images_sha256"] == hashlib.sha256(content.encode()).hexdigest()

    def test_the_best_model_is_the_one_that_was_tested(self, tiny_files, tmp_path):
        origin = results_of_run(tiny_files, tmp_path / "run", "TEST.FINAL_MODEL", "best_val")["provenance"]
        assert origin["model_sha256"] == sha256_of(tmp_path / "run/prompt_learner/model-best.pth.tar")

    def test_a_training_that_tests_nothing_has_tested_no_model(self, tiny_files, tmp_path):
        origin = results_of_run(tiny_files, tmp_path / "run", "TEST.NO_TEST", True)["provenance"]
        assert origin["model_sha256"] is None and origin["images_sha256"] is None
