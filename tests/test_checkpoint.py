"""Checkpoints: written whole or not at all, read without running anything, refused with a remedy."""

import os
import pickle

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from engine import load_checkpoint, load_pretrained_weights, save_checkpoint
from engine.checkpoint import BEST, newest_checkpoint
from engine.files import write_atomically


def state(epoch=3, **more):
    return {"state_dict": {"ctx": torch.arange(6.0).view(2, 3)}, "epoch": epoch, "optimizer": None, **more}


class TestSaving:
    def test_round_trip(self, tmp_path):
        optim = torch.optim.Adam([nn.Parameter(torch.ones(2))])
        optim.param_groups[0]["params"][0].grad = torch.ones(2)
        optim.step()
        half = torch.ones(2, dtype=torch.bfloat16)
        path = save_checkpoint(state(optimizer=optim.state_dict(), val_result=71.5, half=half), tmp_path / "learner")
        assert path == tmp_path / "learner" / "model.pth.tar-3"
        found = load_checkpoint(path)
        torch.testing.assert_close(found["state_dict"]["ctx"], torch.arange(6.0).view(2, 3))
        assert (found["epoch"], found["val_result"]) == (3, 71.5)
        torch.testing.assert_close(found["optimizer"]["state"], optim.state_dict()["state"])
        torch.testing.assert_close(found["half"], half)

    def test_parameters_and_plain_torch_load(self, tmp_path):
        path = save_checkpoint(
            {"state_dict": nn.Linear(2, 2).state_dict(), "weight": nn.Parameter(torch.ones(2)), "epoch": 1}, tmp_path
        )
        assert isinstance(load_checkpoint(path)["weight"], nn.Parameter)
        assert torch.load(path, weights_only=True)["epoch"] == 1

    def test_file_checkpoint_names_the_newest(self, tmp_path):
        assert newest_checkpoint(tmp_path) is None
        save_checkpoint(state(1), tmp_path)
        save_checkpoint(state(2), tmp_path)
        save_checkpoint(state(2), tmp_path, is_best=True)
        assert newest_checkpoint(tmp_path) == tmp_path / "model.pth.tar-2"
        assert (tmp_path / "checkpoint").read_text() == "model.pth.tar-2\n"
        assert sorted(os.listdir(tmp_path)) == ["checkpoint", BEST, "model.pth.tar-1", "model.pth.tar-2"]

    def test_an_interrupted_write_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("old")

        def interrupted(temporary):
            temporary.write_text("ne")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, interrupted)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["file"]

    def test_a_full_disk_keeps_the_last_checkpoint(self, tmp_path, monkeypatch):
        save_checkpoint(state(1), tmp_path)

        def full(content, file):
            file.write_bytes(b"PK")
            raise OSError("No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(state(2), tmp_path)
        assert load_checkpoint(newest_checkpoint(tmp_path))["epoch"] == 1


class TestMissingOrBroken:
    def test_missing_epoch_lists_the_saved_ones(self, tmp_path):
        for epoch in (5, 10, 50):
            save_checkpoint(state(epoch), tmp_path)
        with pytest.raises(FileNotFoundError) as error:
            load_checkpoint(tmp_path / "model.pth.tar-20")
        assert str(error.value) == (
            f"The checkpoint {tmp_path}/model.pth.tar-20 does not exist (the part that does: {tmp_path}). "
            "Saved epochs: 5, 10, 50; choose one with --load-epoch."
        )

    def test_missing_folder_names_the_part_that_exists(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=rf"\(the part that does: {tmp_path}\). Train first, or check --model-dir"
        ):
            load_checkpoint(tmp_path / "seed1" / "prompt_learner" / BEST)

    @pytest.mark.parametrize("size", [0, 10, 500])
    def test_cut_short(self, tmp_path, size):
        path = save_checkpoint(state(), tmp_path)
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(
            ValueError, match=r"model.pth.tar-3 cannot be read .* expected a whole file .*cut short: delete"
        ):
            load_checkpoint(path)

    @pytest.mark.parametrize("content", [[1, 2], {"ctx": torch.ones(1)}])
    def test_not_a_checkpoint(self, tmp_path, content):
        torch.save(content, tmp_path / "model")
        with pytest.raises(ValueError, match=r"model has no `state_dict`, expected a file that training saved"):
            load_checkpoint(tmp_path / "model")


class Schedule:
    """Like the original's warm-up: a schedule that holds another, and both hold the optimiser."""

    def __init__(self, optimizer):
        self.optimizer, self.last_epoch = optimizer, 3
        self.successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)


class Names(list):
    pass


class Options(dict):
    pass


class Labels(set):
    pass


class Attack:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


class TestForeignObjects:
    """What a checkpoint holds beside tensors and plain values is neither imported nor called."""

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
    def test_a_checkpoint_as_the_original_wrote_it(self, tmp_path, zipped):
        optim = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
        schedule = {"successor": Schedule(optim).successor, "last_epoch": 3, "milestones": [1]}
        torch.save(
            state(scheduler=schedule, optimizer=optim.state_dict(), nested=Schedule(optim)),
            tmp_path / "model",
            _use_new_zipfile_serialization=zipped,
        )
        found = load_checkpoint(tmp_path / "model")
        torch.testing.assert_close(found["state_dict"]["ctx"], torch.arange(6.0).view(2, 3))
        assert (found["epoch"], found["scheduler"]["last_epoch"]) == (3, 3)
        assert found["optimizer"]["param_groups"][0]["lr"] == 0.1
        assert type(found["scheduler"]["successor"]).__module__ == "engine.checkpoint"

    @pytest.mark.parametrize("value", [Names([1]), Options(a=1), Labels({1}), CfgNode({"A": {"B": 1}}), Names, len])
    def test_foreign_containers_and_functions(self, tmp_path, value):
        path = save_checkpoint(state(foreign=value), tmp_path)
        assert load_checkpoint(path)["epoch"] == 3

    @pytest.mark.parametrize(
        "attack",
        [
            lambda path: Attack(os.mkdir, str(path)),
            lambda path: Attack(eval, f"__import__('os').mkdir({str(path)!r})"),
            lambda path: Attack(torch.storage._load_from_bytes, pickle.dumps(Attack(os.mkdir, str(path)))),
        ],
        ids=["call", "eval", "nested"],
    )
    def test_nothing_is_executed(self, tmp_path, attack):
        victim = tmp_path / "victim"
        path = save_checkpoint(state(attack=attack(victim)), tmp_path)
        assert load_checkpoint(path)["epoch"] == 3
        assert not victim.exists()


class TestPretrainedWeights:
    def test_entries_that_fit_are_copied(self, tmp_path):
        model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 3)})
        other = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 4), "c": nn.Linear(1, 1)})
        path = save_checkpoint({"state_dict": other.state_dict(), "epoch": 1}, tmp_path)
        before = model["b"].weight.clone()
        load_pretrained_weights(model, path)
        torch.testing.assert_close(model["a"].weight, other["a"].weight, rtol=0, atol=0)
        torch.testing.assert_close(model["b"].weight, before, rtol=0, atol=0)

    def test_none_fits(self, tmp_path):
        path = save_checkpoint(state(), tmp_path)
        with pytest.raises(
            ValueError, match=r"No entry of .* fits the model: it has ctx \(2, 3\), expected weight \(2, 5\), bias"
        ):
            load_pretrained_weights(nn.Linear(5, 2), path)
