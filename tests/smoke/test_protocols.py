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


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "ZeroshotCLIP2"])
def test_zero_shot(run, tmp_path, trainer):
    assert run(f"TRAINER={trainer} bash scripts/coop/zeroshot.sh folder tiny") == 0
    assert {results(tmp_path / trainer / "tiny/folder")[key] for key in ("trainer", "total")} == {trainer, 9}


@pytest.mark.parametrize("trainer, cfg", [("CoCoOp", "tiny"), ("CoCoOp", "tiny_c4"), ("CoOp", "tiny_ctx60")])
def test_base_to_new(run, tmp_path, trainer, cfg):
    command = f"TRAINER={trainer} SHOTS=2 bash scripts/cocoop/base2new_{{}}.sh folder 1 {cfg}"
    assert run(command.format("train")) == 0
    assert run(command.format("test"), "RUN.LOAD_EPOCH 2") == 0
    base, new = (results(tmp_path / BASE_TO_NEW.format(half, trainer, cfg)) for half in ("train_base", "test_new"))
    assert (base["subsample"], base["total"], base["epoch"]) == ("base", N_BASE * N_ITEMS["test"], 2)
    assert (new["subsample"], new["total"]) == ("new", (len(CLASSES) - N_BASE) * N_ITEMS["test"])
    assert {base["trainer"], new["trainer"]} == {trainer}
    assert base["n_ctx"] == (60 if cfg == "tiny_ctx60" else 4)
    meta_net = 2 * 32 + 2 + 64 * 2 + 64 if trainer == "CoCoOp" else 0
    assert base["n_params"] == new["n_params"] == 64 * base["n_ctx"] + meta_net


@pytest.mark.parametrize("trainer", ["CoCoOp", "LinearProbe"])
def test_transfer(run, tmp_path, trainer):
    environment = f"TRAINER={trainer} SOURCE=folder SHOTS=2"
    assert run(f"{environment} bash scripts/cocoop/xd_train.sh 1 tiny") == 0
    epoch = () if trainer == "LinearProbe" else ("RUN.LOAD_EPOCH 2",)
    assert run(f"{environment} bash scripts/cocoop/xd_test.sh folder 1 tiny", *epoch) == 0
    trained = results(tmp_path / f"folder/{trainer}/tiny_2shots/seed1")
    tested = results(tmp_path / f"evaluation/{trainer}/tiny_2shots/folder/seed1")
    assert tested["accuracy"] == trained["accuracy"]
    assert (tested["source"], tested["shots"]) == ("Folder", 2)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
def test_every_kind_of_context(run, tmp_path, position, csc):
    assert run(f"bash scripts/coop/main.sh folder tiny {position} 4 2 {csc}") == 0
    found = results(tmp_path / f"folder/CoOp/tiny_2shots/nctx4_csc{csc}_ctp{position}/seed1")
    assert (found["csc"], found["class_token_position"]) == (csc, position)
    assert found["n_params"] == 4 * 64 * (len(CLASSES) if csc else 1)


@pytest.mark.parametrize("subsample, n_classes", [("base", 2), ("new", 1)])
def test_zero_shot_on_a_half(run, tmp_path, subsample, n_classes):
    assert run(f"SUBSAMPLE={subsample} bash scripts/coop/zeroshot.sh folder tiny") == 0
    assert results(tmp_path / f"ZeroshotCLIP/tiny_{subsample}/folder")["total"] == n_classes * N_ITEMS["test"]


class TestBadInput:
    def trained(self, run, trainer, *more):
        assert run(f"TRAINER={trainer} SHOTS=2 bash scripts/cocoop/base2new_train.sh folder 1 tiny", *more) == 0

    def test_contexts_of_other_classes(self, run, capsys):
        self.trained(run, "CoOp", "TRAINER.COOP.CSC True")
        test = "TRAINER=CoOp SHOTS=2 bash scripts/cocoop/base2new_test.sh folder 1 tiny"
        assert run(test, "RUN.LOAD_EPOCH 2 TRAINER.COOP.CSC True") == 1
        message = capsys.readouterr().err
        assert "learned for each of 2 classes (face ... leopard), expected the 1 of Folder (wine_bottle" in message
        assert "train what all share (CoOp with CSC False, CoCoOp)" in message

    def test_an_epoch_that_was_not_saved(self, run, capsys):
        self.trained(run, "CoCoOp")
        assert run("SHOTS=2 bash scripts/cocoop/base2new_test.sh folder 1 tiny", "RUN.LOAD_EPOCH 7") == 1
        assert "Saved epochs: 2; choose one with --load-epoch" in capsys.readouterr().err

    @pytest.mark.parametrize("trained, tested", [("CoOp", "CoCoOp"), ("CoCoOp", "CoOp")])
    def test_a_model_of_the_other_method(self, run, tmp_path, trained, tested, capsys):
        self.trained(run, trained)
        model = tmp_path / BASE_TO_NEW.format("train_base", trained, "tiny")
        test = f"TRAINER={tested} SHOTS=2 bash scripts/cocoop/base2new_test.sh folder 1 tiny"
        assert run(test, f"RUN.LOAD_EPOCH 2 RUN.MODEL_DIR {model}") == 1
        message = capsys.readouterr().err
        assert f"of {trained} holds ctx" in message and f"{tested} expected ctx" in message
        assert "give the --trainer and the config it was trained with" in message
