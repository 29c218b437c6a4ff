"""Runs that earlier code wrote are those of today's code: done, resumed, loaded, read; features are made again.

tests/golden/earlier.tar.xz holds them; tests/golden/README.md says how they were made. Not among them: a backbone that
is a path, as torch writes other bytes in other versions, and a run of several ranks.
"""

import json
import tarfile

import pytest
import torch

import parse_test_res
import train
from tests.support import earlier
from tests.support.script_calls import ROOT


def lay_out(folder):
    """Writes what the calls were made with, and what they left, into a folder: images, configs, runs, features."""
    earlier.write_experiment(folder)
    with tarfile.open(ROOT / "tests/golden/earlier.tar.xz") as archive:
        archive.extractall(folder, filter="data")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder that the calls are made in, as it was then."""
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def tolerance(tmp_path_factory):
    """Of learned vectors: none on a processor that gives the bits of then, rounding over nine steps elsewhere."""
    folder = tmp_path_factory.mktemp("today")
    lay_out(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train.main(earlier.words("coop", output_dir="today")) == 0
    is_same = torch.equal(vectors(folder / "today"), vectors(folder / "coop"))
    return {"rtol": 0, "atol": 0} if is_same else {"rtol": 1e-3, "atol": 1e-4}


def vectors(run):
    """The context (M, D) after the last epoch."""
    return torch.load(run / "prompt_learner/model.pth.tar-3", weights_only=True)["state_dict"]["ctx"]


def results(run):
    return json.loads((run / "results.json").read_text())


def content_of(folder):
    """The bytes of every file."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("run", earlier.RUNS)
def test_a_finished_run_is_done_and_another_one_is_refused_its_folder(folder, run, capsys):
    before = content_of(folder / run)
    assert train.main(earlier.words(run)) == 0
    assert train.main(earlier.words(run, "OPTIM.LR", "0.5")) == 1
    assert "OPTIM.LR" in capsys.readouterr().err
    assert content_of(folder / run) == before


def test_an_interrupted_run_ends_as_one_that_was_left_alone(folder, tolerance):
    assert train.main(earlier.words("coop", output_dir="interrupted")) == 0
    assert "Resume" in (folder / "interrupted/log.txt").read_text()
    torch.testing.assert_close(vectors(folder / "interrupted"), vectors(folder / "coop"), **tolerance)
    left_alone, resumed = results(folder / "coop"), results(folder / "interrupted")
    for entry in left_alone.keys() - {"cost", "provenance"}:
        assert resumed[entry] == left_alone[entry], entry


@pytest.mark.parametrize("run", ["coop", "coop_csc", "cocoop"])
@pytest.mark.parametrize("epoch", [(), ("--load-epoch=3",)], ids=["best", "last"])
def test_a_model_is_tested_again(folder, run, epoch):
    test = ["--eval-only", f"--model-dir={run}", *epoch]
    assert train.main([*test, *earlier.words(run, output_dir="test")]) == 0
    tested, trained = results(folder / "test"), results(folder / run)
    if not epoch:  # what training has tested
        assert (tested["accuracy"], tested["macro_f1"]) == (trained["accuracy"], trained["macro_f1"])
    entries = ("source", "n_ctx", "csc", "class_token_position", "epoch" if not epoch else "shots")
    assert {entry: tested[entry] for entry in entries} == {entry: trained[entry] for entry in entries}


@pytest.mark.parametrize("file", ["results.json", "log.txt"])
def test_what_was_measured_is_parsed(folder, file, capsys):
    accuracy = results(folder / "coop")["accuracy"]
    (folder / "runs").mkdir()
    (folder / "coop").rename(folder / "runs/seed1")
    if file == "log.txt":
        (folder / "runs/seed1/results.json").unlink()
    assert parse_test_res.main(["runs"]) == 0
    assert f"* accuracy: {accuracy:.2f}% +- 0.00%" in capsys.readouterr().out


def test_cached_features_are_made_again_once(folder, tolerance):
    """They were kept by their images' paths and times, which do not say which images these were."""
    earlier_features = features(folder)
    assert train.main(earlier.words("views", output_dir="again")) == 0
    now = features(folder)
    assert earlier_features.items() < now.items()
    assert results(folder / "again")["accuracy"] == results(folder / "views")["accuracy"]
    torch.testing.assert_close(vectors(folder / "again"), vectors(folder / "views"), **tolerance)
    assert train.main(earlier.words("views", output_dir="third")) == 0
    assert features(folder) == now


def features(folder):
    """The cached features' files."""
    return {path: content for path, content in content_of(folder / "features").items() if path.suffix == ".npz"}
