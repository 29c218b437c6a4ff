"""The scripts end to end: what they call is trained and tested in this process, on four images a class."""

import json
import os
import subprocess
import sys

import pytest

import parse_test_res
import reproduce
import train
from tests.support.script_calls import ROOT
from tests.support.tiny_run import CLASSES, N_ITEMS

N_BASE = 2  # of three classes
COOP = "folder/CoOp/tiny_2shots/nctx4_cscFalse_ctpend"
EXPECTED = {
    "trainer": "CoOp", "dataset": "Folder", "source": "Folder", "shots": 2, "cfg": "tiny", "n_ctx": 4, "csc": False,
    "class_token_position": "end", "subsample": "all", "epoch": 1, "total": 9,
}  # fmt: skip
BASE_TO_NEW = "base2new/{}/folder/shots_2/{}/{}/seed1"


@pytest.fixture
def run(tiny_files, tmp_path, monkeypatch):
    """Runs the calls of a command line that a script makes, and returns their exit code."""
    monkeypatch.chdir(ROOT)
    data, clips = tiny_files
    monkeypatch.setenv("DATA", str(data))
    monkeypatch.setenv("SEEDS", "1")
    pairs = f"MODEL.BACKBONE.NAME {clips['vit']} INPUT.SIZE '(32, 32)' DATALOADER.NUM_WORKERS 0 USE_CUDA False"

    def run(command, *more):
        printed = reproduce.dry_run(f"{command} {pairs} OPTIM.MAX_EPOCH 2 {' '.join(more)}", str(tmp_path))
        return max(train.main(words[2:]) for words in reproduce.calls_of(printed))

    return run


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_two_seeds_in_processes_of_their_own(tiny_files, tmp_path, capsys):
    data, clips = tiny_files
    own = {"DATA": str(data), "OUTPUT": str(tmp_path), "SEEDS": "1 2", "PYTHON": sys.executable}
    pairs = f"MODEL.BACKBONE.NAME {clips['vit']} INPUT.SIZE (32,32) USE_CUDA False OPTIM.MAX_EPOCH 1".split()
    pairs += ["DATALOADER.NUM_WORKERS", "0"]
    command = ["bash", str(ROOT / "scripts/coop/main.sh"), *"folder tiny end 4 2 False".split(), *pairs]
    done = subprocess.run(command, env={**os.environ, **own}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [results(tmp_path / COOP / f"seed{seed}") for seed in (1, 2)]
    for seed, entries in zip((1, 2), found, strict=True):
        folder = tmp_path / COOP / f"seed{seed}"
        assert {"log.txt", "config.yaml", "tensorboard"} <= {path.name for path in folder.iterdir()}
        assert (folder / "prompt_learner/model.pth.tar-1").is_file()
        assert {key: entries[key] for key in (*EXPECTED, "seed")} == {**EXPECTED, "seed": seed}
        assert entries["accuracy"] == pytest.approx(100 * entries["correct"] / 9)
    assert parse_test_res.main([str(tmp_path / COOP)]) == 0
    first, second = (entries["accuracy"] for entries in found)
    line = f"* accuracy: {(first + second) / 2:.2f}% +- {abs(first - second) / 2:.2f}%"
    assert line in capsys.readouterr().out


def test_what_was_learned_is_tested_on_another_data_set(run, tmp_path):
    """`folder` stands for the source and for the target; the model is the trained one, so the accuracy is too."""
    assert run("bash scripts/coop/main.sh folder tiny end 4 2 False") == 0
    assert run("SOURCE=folder SHOTS=2 NCTX=4 bash scripts/coop/eval.sh folder tiny", "RUN.LOAD_EPOCH 2") == 0
    folder = tmp_path / "evaluation/CoOp/tiny_2shots/nctx4_cscFalse_ctpend/folder/seed1"
    model = tmp_path / COOP / "seed1"
    assert f"Load {model}/prompt_learner/model.pth.tar-2 (epoch 2)" in (folder / "log.txt").read_text()
    expected = {key: results(model)[key] for key in ("accuracy", "macro_f1", "source", "epoch", "n_ctx")}
    assert {key: results(folder)[key] for key in expected} == expected


@pytest.mark.parametrize(
    "environment, folder, total",
    [
        ("TRAINER=ZeroshotCLIP", "ZeroshotCLIP/tiny", 9),
        ("TRAINER=ZeroshotCLIP2", "ZeroshotCLIP2/tiny", 9),
        ("SUBSAMPLE=base", "ZeroshotCLIP/tiny_base", N_BASE * N_ITEMS["test"]),
        ("SUBSAMPLE=new", "ZeroshotCLIP/tiny_new", (len(CLASSES) - N_BASE) * N_ITEMS["test"]),
    ],
)
def test_zero_shot(run, tmp_path, environment, folder, total):
    assert run(f"{environment} bash scripts/coop/zeroshot.sh folder tiny") == 0
    found = results(tmp_path / folder / "folder")
    assert (found["trainer"], found["total"]) == (folder.split("/")[0], total)
    assert (found["source"], found["n_ctx"], found["epoch"]) == (None, None, 0)


@pytest.mark.parametrize(
    "trainer, cfg, n_ctx",
    [
        ("CoCoOp", "tiny", 4),
        ("CoCoOp", "tiny_c4", 4),
        ("CoOp", "tiny_ctx60", 60),
        ("KgCoOp", "tiny", 4),
        ("ProGrad", "tiny", 16),
    ],
)
def test_base_to_new(run, tmp_path, trainer, cfg, n_ctx):
    command = f"TRAINER={trainer} SHOTS=2 bash scripts/cocoop/base2new_{{}}.sh folder 1 {cfg}"
    assert run(command.format("train")) == 0
    assert run(command.format("test"), "RUN.LOAD_EPOCH 2") == 0
    base, new = (results(tmp_path / BASE_TO_NEW.format(half, trainer, cfg)) for half in ("train_base", "test_new"))
    assert (base["subsample"], base["total"], base["epoch"]) == ("base", N_BASE * N_ITEMS["test"], 2)
    assert (new["subsample"], new["total"]) == ("new", (len(CLASSES) - N_BASE) * N_ITEMS["test"])
    assert {base["trainer"], new["trainer"]} == {trainer}
    assert base["n_ctx"] == n_ctx
    meta_net = 2 * 32 + 2 + 64 * 2 + 64 if trainer == "CoCoOp" else 0
    assert base["n_params"] == new["n_params"] == 64 * base["n_ctx"] + meta_net


@pytest.mark.parametrize("trainer", ["CoCoOp", "LinearProbe", "LPPlusPlus", "GDA"])
def test_transfer(run, tmp_path, trainer):
    """Of LP++ the best epoch is tested both times."""
    environment = f"TRAINER={trainer} SOURCE=folder SHOTS=2"
    assert run(f"{environment} bash scripts/cocoop/xd_train.sh 1 tiny") == 0
    epoch = ("RUN.LOAD_EPOCH 2",) if trainer == "CoCoOp" else ()
    assert run(f"{environment} bash scripts/cocoop/xd_test.sh folder 1 tiny", *epoch) == 0
    trained = results(tmp_path / f"folder/{trainer}/tiny_2shots/seed1")
    tested = results(tmp_path / f"evaluation/{trainer}/tiny_2shots/folder/seed1")
    assert (tested["accuracy"], tested["epoch"]) == (trained["accuracy"], trained["epoch"])
    assert (tested["source"], tested["shots"]) == ("Folder", 2)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
def test_every_kind_of_context(run, tmp_path, position, csc):
    assert run(f"bash scripts/coop/main.sh folder tiny {position} 4 2 {csc}") == 0
    found = results(tmp_path / f"folder/CoOp/tiny_2shots/nctx4_csc{csc}_ctp{position}/seed1")
    assert (found["csc"], found["class_token_position"]) == (csc, position)
    assert found["n_params"] == 4 * 64 * (len(CLASSES) if csc else 1)


def test_contexts_of_other_classes_are_refused(run, capsys):
    pairs = "TRAINER.COOP.CSC True"
    assert run("TRAINER=CoOp SHOTS=2 bash scripts/cocoop/base2new_train.sh folder 1 tiny", pairs) == 0
    test = "TRAINER=CoOp SHOTS=2 bash scripts/cocoop/base2new_test.sh folder 1 tiny"
    assert run(test, f"RUN.LOAD_EPOCH 2 {pairs}") == 1
    message = capsys.readouterr().err
    assert "learned for each of 2 classes (face ... leopard), but Folder has 1 (wine_bottle" in message
    assert "train what all share (CoOp with CSC False, CoCoOp)" in message
