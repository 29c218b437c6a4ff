"""The curves of a run in scalars.csv and at Weights & Biases; TensorBoard's are in test_losses.py."""

import csv
import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.config.load import check_cfg
from engine.interruption import Interrupted, interruptible
from engine.trackers import ScalarsFile, Trackers
from tests.engine.wandb_file import history, of_kind, read_ended
from tests.resume.stopping import before_step, kill, terminate, train
from tests.support.tiny_run import build_trainer, tiny_cfg, valid_cfg

EPOCHS, BATCHES, N_VAL = 2, 3, 6
LR = [0.02] * BATCHES + [0.01] * BATCHES  # the cosine: 0.01 (1 + cos(pi / 2)) in the second of two epochs


@pytest.fixture
def make(tiny_files, tmp_path):
    """Builds the trainer of a run in tmp_path/run that validates after each of two epochs of three batches."""
    pairs = ("TEST.FINAL_MODEL", "best_val", "TEST.NO_TEST", True, "TRAIN.PRINT_FREQ", 2)
    return lambda *more: build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", *pairs, *more))


@pytest.fixture
def offline(monkeypatch):
    """Weights & Biases without a network, and without what the user has set."""
    for name in ("PROJECT", "NAME", "RUN_ID", "RESUME", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def csv_curves(run):
    """tag -> [(step, value), ...] of scalars.csv, by step."""
    curves = {}
    with (run / "scalars.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            curves.setdefault(row["tag"], []).append((int(row["step"]), float(row["value"])))
    return {tag: sorted(points) for tag, points in curves.items()}


def tensorboard_curves(run):
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("n", "act", "n_kept"), [(2, terminate, 2), (3, terminate, 3), (6, kill, 3)], ids=["within", "before", "behind"]
)
def test_a_run_that_was_interrupted_has_the_points_of_a_whole_one(make, tmp_path, n, act, n_kept):
    """It is ended within an epoch, before its validation, and behind the checkpoint that it goes on from."""
    pairs = ("TRAIN.LOGGERS", ("csv", "tensorboard"), "TRAIN.CHECKPOINT_FREQ", 1)
    trainer = make(*pairs)
    losses = before_step(trainer, n, act)
    assert not train(trainer)
    del losses[n_kept:]
    trainer = make(*pairs)
    again = before_step(trainer, 0, None)
    assert train(trainer)
    losses += again
    for curves in csv_curves(tmp_path / "run"), tensorboard_curves(tmp_path / "run"):
        assert curves["train/loss"] == [(step, loss) for step, loss in enumerate(losses)]
        assert curves["train/lr"] == [(step, pytest.approx(lr)) for step, lr in enumerate(LR)]
        assert curves["val/total"] == [(BATCHES - 1, N_VAL), (2 * BATCHES - 1, N_VAL)]


def test_a_row_that_a_kill_has_cut_goes_and_tags_may_hold_anything(tmp_path):
    path, trackers = tmp_path / "scalars.csv", Trackers()
    path.write_text('step,tag,value\n1,train/loss,2.5\n3,train/lr,1.0\n2,"a, b",0.1\n1,train/acc,0.', newline="")
    trackers.open([ScalarsFile(path)], first_step=3)
    trackers.add_scalar("c, d", torch.tensor(0.1, dtype=torch.float64))
    trackers.add_scalars("train", {"loss": 1 / 3}, 3)
    rows = b'1,train/loss,2.5\r\n2,"a, b",0.1\r\n0,"c, d",0.1\r\n3,train/loss,0.3333333333333333\r\n'
    assert path.read_bytes() == b"step,tag,value\r\n" + rows  # before it is closed, as after a kill
    trackers.close()


def test_results_that_are_no_numbers_are_not_tracked(tmp_path):
    """An evaluator of a plug-in may return them."""
    path, trackers = tmp_path / "scalars.csv", Trackers()
    trackers.open([ScalarsFile(path)])
    trackers.add_scalars("test", {"accuracy": 50.0, "worst": "wine bottle", "none": None, "n": torch.tensor(3)}, 0)
    assert path.read_bytes() == b"step,tag,value\r\n0,test/accuracy,50.0\r\n0,test/n,3.0\r\n"
    trackers.close()


@pytest.mark.parametrize("broken", [b"1,\xff\xfe,2.5\r\n", b"\0" * 64 + b"\r\n", b'1,"' + b"x" * 200_000 + b"\r\n"])
def test_a_broken_file_does_not_stop_a_run(tmp_path, broken):
    """As a power cut leaves it."""
    path, trackers = tmp_path / "scalars.csv", Trackers()
    path.write_bytes(b"step,tag,value\r\n0,train/loss,2.5\r\n" + broken)
    trackers.open([ScalarsFile(path)], first_step=3)
    trackers.add_scalar("train/loss", 1.5, 3)
    trackers.close()


class TestWeightsAndBiases:
    def test_offline_an_interrupted_run_goes_on_under_its_id(self, make, tmp_path, offline):
        trainer = make("TRAIN.LOGGERS", ("wandb",))
        losses = before_step(trainer, 2, terminate)
        with pytest.raises(Interrupted), interruptible(), trainer.writer:
            trainer.train()
        trainer = make("TRAIN.LOGGERS", ("wandb",))
        again = before_step(trainer, 0, None)
        assert train(trainer)
        paths = sorted((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
        first, second = map(read_ended, paths)
        rows = history(first) + history(second)
        for tag, points in {"train/lr": LR, "train/loss": losses + again}.items():
            there = [(row["step"], row[tag]) for row in rows if tag in row]
            assert there == [(step, pytest.approx(value)) for step, value in enumerate(points)]
        assert [(row["step"], row["val/total"]) for row in rows if "val/total" in row] == [(2, N_VAL), (5, N_VAL)]
        [run], [run_again] = of_kind(first, "run"), of_kind(second, "run")
        assert run.run_id == run_again.run_id
        assert (run.project, run.display_name) == ("prompt-learning", "Folder CoOp run")
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert config["OPTIM.LR"] == 0.02 and "OPTIM.MOMENTUM" not in config
        assert [end.exit_code for end in of_kind(first, "exit") + of_kind(second, "exit")] == [1, 0]

    def test_a_failure_is_told_once_and_the_run_goes_on(self, make, tmp_path, offline, monkeypatch, caplog):
        monkeypatch.setenv("WANDB_PROJECT", "a/b")  # which the library refuses
        trainer = make("TRAIN.LOGGERS", ("wandb", "csv"))
        assert train(trainer)
        [message] = [text for text in caplog.messages if "cannot be written" in text]
        assert message.startswith("Weights & Biases cannot be written (") and message.endswith("its curves end here")
        assert len(csv_curves(tmp_path / "run")["train/loss"]) == EPOCHS * BATCHES

    @pytest.mark.parametrize("spec", [None, type("Namespace", (), {"origin": None})], ids=["nothing", "a folder"])
    def test_without_the_package_no_run_begins(self, monkeypatch, spec):
        monkeypatch.setattr("engine.config.load.find_spec", lambda name: spec)
        [error] = check_cfg(valid_cfg(TRAIN__LOGGERS=("csv", "wandb")))
        assert error.startswith('TRAIN.LOGGERS has wandb, which is not installed: pip install -e ".[wandb]".')


def test_names():
    assert check_cfg(valid_cfg(TRAIN__LOGGERS=())) == []
    [error] = check_cfg(valid_cfg(TRAIN__LOGGERS=("csv", "tensorbord")))
    assert error == (
        "TRAIN.LOGGERS has 'tensorbord', expected some of: tensorboard, csv, wandb. Did you mean tensorboard?"
    )
