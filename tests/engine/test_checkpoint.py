"""Checkpoints: written whole or not at all, read without running anything, refused with a remedy."""

import errno
import os
import random
import re
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from engine import load_checkpoint, load_pretrained_weights, save_checkpoint
from engine.checkpoint import BEST, newest_whole, saved_checkpoints, saved_epoch


def state(epoch=3, **more):
    return {"state_dict": {"ctx": torch.arange(6.0).view(2, 3)}, "epoch": epoch, "optimizer": None, **more}


class TestSaving:
    def test_round_trip(self, tmp_path):
        optim = torch.optim.Adam([nn.Parameter(torch.ones(2))])
        optim.param_groups[0]["params"][0].grad = torch.ones(2)
        optim.step()
        half = torch.ones(2, dtype=torch.bfloat16)
        more = {"optimizer": optim.state_dict(), "val_result": 71.5, "half": half, "weight": nn.Parameter(half)}
        path = save_checkpoint({**state(), **more}, tmp_path / "learner")
        assert path == tmp_path / "learner" / "model.pth.tar-3"
        assert torch.load(path, weights_only=True)["epoch"] == 3
        found = load_checkpoint(path)
        assert torch.equal(found["state_dict"]["ctx"], torch.arange(6.0).view(2, 3))
        assert (found["epoch"], found["val_result"]) == (3, 71.5)
        torch.testing.assert_close(found["optimizer"]["state"], optim.state_dict()["state"], rtol=0, atol=0)
        assert torch.equal(found["half"], half) and isinstance(found["weight"], nn.Parameter)

    @pytest.mark.parametrize(
        ("name", "epoch", "expected"),
        [("model.pth.tar-3", 5, 5), ("model.pth.tar-3", None, 3), ("model.pth.tar-3", "5\n", 3), (BEST, -1, None)],
    )
    def test_the_epoch_is_what_it_says_or_else_its_name(self, name, epoch, expected):
        assert saved_epoch({"epoch": epoch}, Path("run") / name) == expected

    def test_file_checkpoint_names_the_newest(self, tmp_path):
        assert saved_checkpoints(tmp_path) == []
        save_checkpoint(state(1), tmp_path)
        save_checkpoint(state(2), tmp_path)
        save_checkpoint(state(2), tmp_path, is_best=True)
        assert saved_checkpoints(tmp_path)[0] == tmp_path / "model.pth.tar-2"
        assert (tmp_path / "checkpoint").read_text() == "model.pth.tar-2\n"
        assert sorted(os.listdir(tmp_path)) == ["checkpoint", BEST, "model.pth.tar-1", "model.pth.tar-2"]

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
    def test_a_disk_that_takes_no_more_keeps_the_last_checkpoint(self, tmp_path, monkeypatch, number):
        save_checkpoint(state(1), tmp_path)

        def fail(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=rf"model.pth.tar-2 could not be written \({os.strerror(number)}\)\. "):
            save_checkpoint(state(2), tmp_path)
        assert load_checkpoint(saved_checkpoints(tmp_path)[0])["epoch"] == 1
        assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model.pth.tar-1"]


class TestNewest:
    def test_the_one_that_is_named_goes_before_the_others_by_epoch(self, tmp_path):
        for epoch in (10, 9, 2):
            save_checkpoint(state(epoch), tmp_path)
        save_checkpoint(state(3), tmp_path, is_best=True)
        assert names(tmp_path) == ["model.pth.tar-2", "model.pth.tar-10", "model.pth.tar-9"]
        (tmp_path / "checkpoint").write_text(f"{BEST}\n")  # as the original may write it
        assert names(tmp_path) == [BEST, "model.pth.tar-10", "model.pth.tar-9", "model.pth.tar-2"]
        (tmp_path / "checkpoint").unlink()
        assert names(tmp_path) == ["model.pth.tar-10", "model.pth.tar-9", "model.pth.tar-2"]
        assert names(tmp_path / "none") == []

    @pytest.mark.parametrize("name", ["gone", "", "../other/model.pth.tar-3", "\x00", "\x1b[2J", "x" * 5000])
    def test_a_name_that_leads_nowhere_is_told(self, tmp_path, caplog, name):
        save_checkpoint(state(3), tmp_path / "other")
        save_checkpoint(state(1), tmp_path / "run")
        (tmp_path / "run" / "checkpoint").write_text(name)
        assert names(tmp_path / "run") == ["model.pth.tar-1"]
        said = repr(name) if len(name) < 100 else "'" + name[:99] + "..."
        assert caplog.messages == [
            f"{tmp_path}/run/checkpoint names {said}, which is not there: what was saved before it is used."
        ]

    def test_the_first_that_is_whole_with_a_warning_for_each_before_it(self, tmp_path, caplog):
        paths = [save_checkpoint(state(epoch), tmp_path) for epoch in (4, 3, 2, 1)]
        paths[0].write_bytes(paths[0].read_bytes()[:-100])
        alter(paths[1])
        found, checkpoint = newest_whole([tmp_path / "not there", *paths])
        assert (found, checkpoint["epoch"]) == (paths[2], 2)
        messages = [
            f"The checkpoint {path} cannot be read ({reason}): it is not a whole file as training saves it. "
            "What was saved before it is used."
            for path, reason in zip(paths, ["it is cut short", "its record NAME is altered"])
        ]
        assert [re.sub(r"archive/\S+", "NAME", message) for message in caplog.messages] == messages

    @pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOMEM])
    def test_one_that_may_be_whole_is_not_passed_over(self, tmp_path, monkeypatch, number):
        """Else a disk that does not answer would have a run begin anew, and write over what it has."""
        paths = [save_checkpoint(state(epoch), tmp_path) for epoch in (2, 1)]

        def fail(*_, **__):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            newest_whole(paths)
        assert caught.value.errno == number

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
    def test_nor_is_one_that_may_not_be_read(self, tmp_path):
        path = save_checkpoint(state(), tmp_path)
        path.chmod(0)
        with pytest.raises(PermissionError):
            newest_whole([path])

    def test_there_is_none(self, tmp_path, caplog):
        path = save_checkpoint(state(), tmp_path)
        path.write_bytes(b"")
        assert newest_whole([path]) is None and newest_whole([]) is None
        assert len(caplog.messages) == 1


def names(folder):
    return [path.name for path in saved_checkpoints(folder)]


def alter(path):
    """Changes one bit of a checkpoint's numbers, as a bad disk does."""
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(5).tobytes())] ^= 1
    path.write_bytes(content)


class TestMissingOrBroken:
    def test_a_missing_epoch_lists_the_saved_ones_and_a_missing_folder_the_part_that_exists(self, tmp_path):
        for epoch in (5, 10, 50):
            save_checkpoint(state(epoch), tmp_path)
        with pytest.raises(FileNotFoundError) as error:
            load_checkpoint(tmp_path / "model.pth.tar-20")
        assert str(error.value) == (
            f"The checkpoint {tmp_path}/model.pth.tar-20 does not exist (the part that does: {tmp_path}). "
            "Saved epochs: 5, 10, 50. Load one of these: --load-epoch of train.py, --epoch of the others."
        )

        message = rf"\(the part that does: {tmp_path}\). Train first, or check the folder"
        with pytest.raises(FileNotFoundError, match=message):
            load_checkpoint(tmp_path / "seed1" / "prompt_learner" / BEST)

    @pytest.mark.parametrize("size", [0, 10, 500, -1])
    def test_cut_short(self, tmp_path, size):
        path = save_checkpoint(state(), tmp_path)
        path.write_bytes(path.read_bytes()[:size])
        message = r"model.pth.tar-3 cannot be read .* not a whole file .*cut short or altered: delete"
        with pytest.raises(ValueError, match=message):
            load_checkpoint(path)

    def test_whatever_byte_is_altered_nothing_else_is_read(self, tmp_path):
        path = save_checkpoint(state(), tmp_path)
        content, rng, n_noticed = path.read_bytes(), random.Random(0), 0
        places = range(0, len(content), 11)
        for place in places:
            altered = content[place] ^ rng.randrange(1, 256)
            path.write_bytes(content[:place] + bytes([altered]) + content[place + 1 :])
            try:
                found = load_checkpoint(path)
            except ValueError:
                n_noticed += 1
            else:  # padding between the records, the time of a record: what the file says is the same
                assert torch.equal(found.pop("state_dict")["ctx"], state()["state_dict"]["ctx"])
                assert found == {"epoch": 3, "optimizer": None}
        assert n_noticed > len(places) // 4

    @pytest.mark.parametrize(
        "content",
        [
            [1, 2],
            {"ctx": torch.ones(1)},
            {"state_dict": torch.ones(1)},
            {"state_dict": {"ctx": 5}},
            {"state_dict": {0: torch.ones(1)}},
            {"state_dict": {"ctx": torch.ones(1, device="meta")}},
            {"state_dict": {"ctx": torch.ones(1).to_sparse()}},
            {"models": [torch.ones(1)]},
            {"models": {"learner": torch.ones(1)}},
            {"models": {"learner": {"state_dict": torch.ones(1)}}},
            {"models": {"learner": {"state_dict": {"ctx": 5}}}},
            {"models": {"learner": {"state_dict": {"ctx": torch.ones(1, device="meta")}}}},
        ],
        ids=str,
    )
    @pytest.mark.filterwarnings("ignore:Validating sparse tensor")
    def test_not_a_checkpoint(self, tmp_path, content):
        torch.save(content, tmp_path / "model")
        with pytest.raises(ValueError, match=r"model has no `state_dict`.* Name a file that training saved"):
            load_checkpoint(tmp_path / "model")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
    def test_what_is_no_number(self, tmp_path, dtype):
        path = save_checkpoint({"state_dict": {"ctx": torch.tensor([0, torch.nan]).to(dtype)}, "epoch": 3}, tmp_path)
        with pytest.raises(ValueError) as error:
            load_checkpoint(path)
        assert str(error.value) == (
            f"The checkpoint {path} has NaN in `ctx`: its training diverged. Name another one, "
            "or train with a lower OPTIM.LR."
        )


class Names(list):
    pass


def warm_up_state(optim, successor):
    """The state of the original's warm-up, a schedule that holds another: both hold the optimiser, and one is left out.

    github.com/KaiyangZhou/Dassl.pytorch, dassl/optim/lr_scheduler.py
    """
    return {
        "successor": successor,
        "warmup_epoch": 1,
        "cons_lr": 1e-5,
        "base_lrs": [group["initial_lr"] for group in optim.param_groups],
        "last_epoch": 3,
        "_step_count": 4,
        "verbose": False,
        "_get_lr_called_within_step": False,
        "_last_lr": [0.1],
    }


SCHEDULES = {
    "cosine": lambda optim: torch.optim.lr_scheduler.CosineAnnealingLR(optim, 10.0),
    "single_step": lambda optim: torch.optim.lr_scheduler.StepLR(optim, 5),
    "multi_step": lambda optim: torch.optim.lr_scheduler.MultiStepLR(optim, [3, 7]),
}
OPTIMISERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
    "amsgrad": lambda parameters: torch.optim.Adam(parameters, lr=0.1, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.1),
}


class TestTheOriginals:
    """Its checkpoints hold objects: the schedule after the warm-up, and in it the optimiser. They are not built."""

    def write(self, path, optimiser="sgd", schedule="cosine", **options):
        weight = nn.Parameter(torch.ones(2))
        optim = OPTIMISERS[optimiser]([weight]) if isinstance(optimiser, str) else optimiser([weight])
        successor = SCHEDULES[schedule](optim)
        for _ in range(2):
            weight.grad = torch.ones(2)
            optim.step()
            successor.step()
        content = state(optimizer=optim.state_dict(), scheduler=warm_up_state(optim, successor), val_result=0.5)
        torch.save(content, path, **options)
        return optim

    def check(self, path, optim):
        before = set(torch.serialization.get_safe_globals())
        found = load_checkpoint(path)
        assert set(torch.serialization.get_safe_globals()) == before
        assert torch.equal(found["state_dict"]["ctx"], torch.arange(6.0).view(2, 3))
        assert (found["epoch"], found["scheduler"]["last_epoch"], found["val_result"]) == (3, 3, 0.5)
        torch.testing.assert_close(found["optimizer"], optim.state_dict(), rtol=0, atol=0)
        successor = vars(found["scheduler"]["successor"])
        assert successor["last_epoch"] == 2 and "optimizer" not in successor

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
    @pytest.mark.parametrize(
        ("optimiser", "schedule"), [*((name, "cosine") for name in OPTIMISERS), *(("sgd", name) for name in SCHEDULES)]
    )
    def test_every_optimiser_and_schedule_of_it(self, tmp_path, optimiser, schedule, zipped):
        optim = self.write(tmp_path / "model", optimiser, schedule, _use_new_zipfile_serialization=zipped)
        self.check(tmp_path / "model", optim)

    def test_its_own_optimiser(self, tmp_path, monkeypatch):
        module = types.ModuleType("dassl.optim.radam")
        module.RAdam = type("RAdam", (torch.optim.Adam,), {"__module__": module.__name__})
        monkeypatch.setitem(sys.modules, module.__name__, module)
        optim = self.write(tmp_path / "model", module.RAdam)
        monkeypatch.delitem(sys.modules, module.__name__)
        self.check(tmp_path / "model", optim)

    def test_one_from_a_gpu(self, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        self.check(tmp_path / "model", self.write(tmp_path / "model"))

    @pytest.mark.parametrize(
        ("value", "name"),
        [
            (Names([1]), r"\S+\.Names"),
            (CfgNode({"A": {"B": 1}}), r"yacs\.config\.CfgNode"),
            (len, "len"),
            (np.float64(1), r"numpy\.\S+\.scalar"),
        ],
        ids=["list", "config", "function", "numpy"],
    )
    def test_anything_else_is_refused_by_name(self, tmp_path, value, name):
        path = save_checkpoint(state(foreign=value), tmp_path)
        start = f"The checkpoint {path} asks for {name}; only tensors and plain values are read"
        end = r"More could run any code, so it was not read: ask whoever made it for its `state_dict` alone\."
        with pytest.raises(ValueError, match=rf"^{start}\. {end}$"):
            load_checkpoint(path)

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
    def test_a_long_name_is_not_looked_into(self, tmp_path, zipped):
        """torch would search it for its message in quadratic time: for hours here."""
        pickled = b"\x80\x02c" + b"a" * 1_000_000 + b"\nb\n."
        (tmp_path / "model").write_bytes(pickled)
        if zipped:
            with zipfile.ZipFile(tmp_path / "model", "w") as archive:
                archive.writestr("archive/data.pkl", pickled)
        message = r"model cannot be read \(it asks for something by a name of 1,000,002 characters\)"
        with pytest.raises(ValueError, match=message):
            load_checkpoint(tmp_path / "model")


class TestPretrainedWeights:
    def test_entries_that_fit_are_copied(self, tmp_path):
        model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 3)})
        other = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 4), "c": nn.Linear(1, 1)})
        path = save_checkpoint({"state_dict": other.state_dict(), "epoch": 1}, tmp_path)
        before = model["b"].weight.clone()
        load_pretrained_weights(model, path)
        assert torch.equal(model["a"].weight, other["a"].weight)
        assert torch.equal(model["b"].weight, before)
