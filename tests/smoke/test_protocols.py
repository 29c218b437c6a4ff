"""The protocols end to end: what the scripts call is trained and tested in this process, on four images a class."""

import json

import pytest

import reproduce
import train
from tests.support.script_calls import ROOT
from tests.support.tiny_run import CLASSES, N_ITEMS

N_BASE = 2  # of three classes
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
