"""A run that is stopped, wherever, and called again ends with the very bits of one that was left alone."""

import logging
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import engine.resume
from engine import TRAINER_REGISTRY, load_checkpoint
from engine.process_cache import sharing
from engine.resume import BEFORE, RESUME, newest_state, nothing_to_resume, remove_resume_files
from tests.resume.stopping import assert_same, before_step, ended, kill, save_at, terminate, train
from tests.support.tiny_run import build_trainer, tiny_cfg
from trainers.coop import CoOp

EPOCHS, BATCHES = 2, 3
EVERY_STEP = ("TRAIN.RESUME_EVERY_S", 1e-9)
BEST_VAL = ("TEST.FINAL_MODEL", "best_val")


@pytest.fixture
def make(tiny_files, tmp_path):
    """Builds a trainer whose folder is tmp_path/run; KEY, VALUE, ... change its config. All have one CLIP."""

    def build(*pairs, folder="run"):
        values = {"OPTIM.MAX_EPOCH": EPOCHS, "OPTIM.LR": 0.1, **dict(zip(pairs[::2], pairs[1::2], strict=True))}
        pairs = [word for pair in values.items() for word in pair]
        return build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / folder, *pairs))

    with sharing():
        yield build


@pytest.fixture
def drawing(register):
    """Makes CoOp a method that draws from every generator in its steps and in its tests."""

    class Drawing(CoOp):
        def forward_backward(self, batch):
            factor = torch.rand(()) + np.random.randn() + random.gauss(0, 1)
            return super().forward_backward({**batch, "img": batch["img"] * (1 + factor)})

        def model_inference(self, images):
            return super().model_inference(images * torch.rand(len(images), 1, 1, 1) * random.random())

    register(TRAINER_REGISTRY, Drawing, "CoOp")


def end(trainer):
    """Trains to the end; returns what the run leaves, and the losses of its steps."""
    losses = before_step(trainer, 0, None)
    assert train(trainer)
    return ended(trainer), losses


def stop(trainer, n, act):
    """Trains until `act` ends the run in its n-th step; returns the losses up to there."""
    losses = before_step(trainer, n, act)
    assert not train(trainer)
    return losses


@pytest.mark.slow
@pytest.mark.parametrize(
    "pairs, draws, act",
    [
        (("INPUT.VIEWS", 2), False, terminate),
        (("DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler", "DATALOADER.TRAIN_X.N_INS", 2), False, terminate),
        ((*BEST_VAL, "OPTIM.NAME", "adamw", "OPTIM.WARMUP_EPOCH", 1, "OPTIM.LR", 0.01), True, terminate),
        ((*BEST_VAL, *EVERY_STEP), True, kill),
    ],
    ids=["views", "classes", "adamw", "killed"],
)
def test_ended_in_every_step(make, pairs, draws, act, request):
    if draws:
        request.getfixturevalue("drawing")
    expected, all_losses = end(make(*pairs, folder="alone"))
    assert len(all_losses) == EPOCHS * BATCHES
    for n in range(1, EPOCHS * BATCHES + 1):
        losses = stop(make(*pairs, folder=f"stopped{n}"), n, act)
        found, losses_again = end(make(*pairs, folder=f"stopped{n}"))
        assert_same(found, expected)
        n_done = n - 1 if act is kill else n  # a signal waits for the step's end
        assert (losses, losses_again) == (all_losses[:n_done], all_losses[n_done:])


def test_stopped_after_every_single_step(make, drawing):
    expected, _ = end(make(*BEST_VAL, folder="alone"))
    for _ in range(EPOCHS * BATCHES):
        assert len(stop(make(*BEST_VAL), 1, terminate)) == 1
    found, losses = end(make(*BEST_VAL))
    assert losses == []
    assert_same(found, expected)


def test_an_epoch_of_a_loader_of_the_methods_own_is_begun_again(make, register):
    class OwnLoader(CoOp):
        def build_data_loader(self):
            super().build_data_loader()
            self.train_loader_x = DataLoader(self.dm.train_loader_x.dataset, batch_size=4, shuffle=True, drop_last=True)

    register(TRAINER_REGISTRY, OwnLoader, "CoOp")
    expected, losses = end(make(*EVERY_STEP, folder="alone"))
    assert len(losses) == EPOCHS * BATCHES
    for n in (2, BATCHES, BATCHES + 1):
        stop(make(*EVERY_STEP, folder=f"stopped{n}"), n, terminate)
        found, _ = end(make(*EVERY_STEP, folder=f"stopped{n}"))
        assert_same(found, expected)


@pytest.mark.parametrize("act", [terminate, kill], ids=["signal", "kill"])
def test_stopped_in_a_validation_and_in_the_test(make, drawing, act):
    expected, _ = end(make(*BEST_VAL, folder="alone"))
    for n_tests in range(1, EPOCHS + 2):
        trainer = make(*BEST_VAL, *EVERY_STEP, folder=f"stopped{n_tests}")
        infer, n_images = trainer.model_inference, []

        def stopped(images, infer=infer, n_images=n_images, n_batches=2 * n_tests):
            n_images.append(len(images))
            if len(n_images) == n_batches:  # two batches of six validation items, three of nine test items
                act()
            return infer(images)

        trainer.model_inference = stopped
        assert not train(trainer)
        found, _ = end(make(*BEST_VAL, folder=f"stopped{n_tests}"))
        assert_same(found, expected)


def test_the_scaler_goes_on(make):
    def build(folder):
        trainer = make(folder=folder)
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
        return trainer

    alone = build("alone")
    expected, _ = end(alone)
    for n in (2, 3, 5):
        stop(build(f"stopped{n}"), n, terminate)
        again = build(f"stopped{n}")
        assert_same(end(again)[0], expected)
        assert again.scaler.state_dict() == alone.scaler.state_dict()
    assert alone.scaler.get_scale() > 4


class TestFiles:
    def stopped(self, make, n, *pairs, folder="run"):
        """A run that is killed in its n-th step, and the folder that it leaves."""
        trainer = make(*pairs, *EVERY_STEP, folder=folder)
        stop(trainer, n, kill)
        return trainer.output_dir

    def test_what_one_holds(self, make):
        folder = self.stopped(make, BATCHES + 3, *BEST_VAL)
        state = torch.load(folder / RESUME, weights_only=True)
        assert (state["epoch"], state["batch"]) == (1, 2)
        assert state["models"]["prompt_learner"].keys() == {"state_dict", "optimizer", "scheduler"}
        assert state["models"]["prompt_learner"]["state_dict"].keys() == {"ctx"}, "not what the class names decide"
        assert state["random"][0].keys() == {"torch", "cuda", "numpy", "python"}
        assert state["val_result"] > 0 and state["time_s"] > state["testing_s"] > 0
        before = torch.load(folder / BEFORE, weights_only=True)
        assert (before["epoch"], before["batch"]) == (1, 1)

    def test_a_checkpoint_of_an_epoch_holds_the_generators_too(self, make, drawing):
        alone = make("TRAIN.CHECKPOINT_FREQ", 1, "TRAIN.RESUME_EVERY_S", 0)
        expected, _ = end(alone)
        assert not (alone.output_dir / RESUME).exists()
        for epoch in range(2, EPOCHS + 1):
            (alone.output_dir / "prompt_learner" / f"model.pth.tar-{epoch}").unlink()
        checkpoint = load_checkpoint(alone.output_dir / "prompt_learner" / "model.pth.tar-1")
        assert {"random", "time_s", "testing_s"} <= checkpoint.keys()
        found, losses = end(make())
        assert_same(found, expected)
        assert len(losses) == (EPOCHS - 1) * BATCHES

    @pytest.mark.parametrize("every_s, n_written", [(60.0, 0), (0.0, 0), (1e-9, BATCHES)])
    def test_how_often_one_is_written(self, make, monkeypatch, every_s, n_written):
        written, save = [], engine.resume.save_checkpoint

        def saved(state, folder, *, file_name):
            written.append((state["epoch"], state["batch"]))
            save(state, folder, file_name=file_name)

        monkeypatch.setattr(engine.resume, "save_checkpoint", saved)
        assert train(make("TRAIN.RESUME_EVERY_S", every_s, "OPTIM.MAX_EPOCH", 1, "TEST.NO_TEST", True))
        assert written == [(0, 1), (0, 2), (1, 0)][:n_written]

    @pytest.mark.parametrize("how", ["cut", "gone"])
    def test_the_one_before_is_used_if_the_newest_is_not_whole(self, make, caplog, how):
        expected, losses = end(make(folder="alone"))
        path = self.stopped(make, 6) / RESUME
        spoil(path, how)
        with caplog.at_level(logging.INFO, logger="engine"):
            found, again = end(make())
        assert_same(found, expected)
        assert again == losses[4:], "after four steps, not after five"
        assert ("What was saved before it is used." in caplog.text) == (how != "gone")
        assert f"Resume after epoch 1, batch 1 from {path.parent}" in caplog.text

    def test_the_one_before_stays_until_the_next_is_whole(self, make, monkeypatch):
        folder = self.stopped(make, 6)
        spoil(folder / RESUME, "cut")
        monkeypatch.setattr(engine.resume, "save_checkpoint", lambda *_, **__: kill())
        assert not train(make(*EVERY_STEP))
        _, state = newest_state(folder, ["prompt_learner"])
        assert (state["epoch"], state["batch"]) == (1, 1)

    def test_then_the_newest_checkpoint_of_an_epoch(self, make):
        folder = self.stopped(make, 6, "TRAIN.CHECKPOINT_FREQ", 1)
        for name in (RESUME, BEFORE):
            spoil(folder / name, "cut")
        assert len(end(make())[1]) == (EPOCHS - 1) * BATCHES

    @pytest.mark.parametrize("how", ["cut", "gone"])
    def test_where_nothing_is_whole_the_run_starts_over_and_says_so(self, make, caplog, how):
        folder = self.stopped(make, 3)
        for name, spoiled in ((RESUME, how), (BEFORE, "cut")):
            spoil(folder / name, spoiled)
        assert len(end(make())[1]) == EPOCHS * BATCHES
        assert f"Nothing in {folder} is whole: the run starts from the beginning" in caplog.text

    def test_the_newest_wins_whichever_kind_it_is(self, make):
        folder = self.stopped(make, 6, "TRAIN.CHECKPOINT_FREQ", 1)
        path, state = newest_state(folder, ["prompt_learner"])
        assert (path.name, state["epoch"], state["batch"]) == (RESUME, 1, 2)
        trainer = make()
        trainer.save_model(2)
        path, state = newest_state(folder, ["prompt_learner"])
        assert (path.name, state["epoch"], state["batch"]) == ("model.pth.tar-2", 2, 0)

    def test_of_several_models_all_have_to_be_whole(self, make, tmp_path):
        trainer = make()
        trainer.register_model("other", torch.nn.Linear(2, 2))
        for epoch in (1, 2):
            trainer.save_model(epoch)
        spoil(tmp_path / "run" / "other" / "model.pth.tar-2", "cut")
        path, state = newest_state(tmp_path / "run", ["prompt_learner", "other"])
        assert (path.name, state["models"].keys()) == ("model.pth.tar-1", {"prompt_learner", "other"})

    def test_both_go_when_the_run_has_ended(self, make):
        folder = self.stopped(make, 6)
        (folder / "log.txt").touch()
        remove_resume_files(folder)
        assert {path.name for path in folder.iterdir()} == {"log.txt", "tensorboard"}
        remove_resume_files(folder)

    def test_from_another_folder_and_then_from_its_own(self, make):
        expected, _ = end(make(folder="alone"))
        folder = self.stopped(make, 3)
        there = {path: path.read_bytes() for path in folder.glob("resume*")}
        pairs = ("RESUME", str(folder))
        assert len(stop(make(*pairs, folder="second"), 2, terminate)) == 2
        found, losses = end(make(*pairs, folder="second"))
        assert len(losses) == EPOCHS * BATCHES - 4
        assert_same(found, expected)
        assert {path: path.read_bytes() for path in folder.glob("resume*")} == there

    def test_where_all_epochs_are_done_the_run_is_only_tested(self, make, tmp_path):
        expected, _ = end(make(folder="whole"))
        for folder in ("whole", "another"):
            found, losses = end(make("RESUME", str(tmp_path / "whole"), folder=folder))
            assert losses == []
            assert_same(found, expected)
        saved = load_checkpoint(tmp_path / "another" / "prompt_learner" / f"model.pth.tar-{EPOCHS}")
        assert torch.equal(saved["state_dict"]["ctx"], expected[0]["prompt_learner ctx"])

    def test_a_run_of_another_method_or_context(self, make):
        self.stopped(make, 3)
        with pytest.raises(ValueError, match=rf"{RESUME} of CoOp holds ctx \(2, 64\); CoOp expected ctx \(4, 64\)"):
            make("TRAINER.COOP.N_CTX", 4).train()

    @pytest.mark.parametrize("name, pairs", [("train", ()), ("val", BEST_VAL)])
    def test_items_that_have_changed(self, make, tiny_files, tmp_path, name, pairs):
        data = shutil.copytree(tiny_files[0], tmp_path / "data")
        pairs = ("DATASET.ROOT", str(data), *pairs)
        folder = self.stopped(make, 3, *pairs)
        there = {path: path.read_bytes() for path in folder.rglob("*pth.tar*")}
        (data / name / "face" / "0.png").rename(tmp_path / "0.png")
        with pytest.raises(ValueError, match=f"items of Folder are others, .* than when {folder}/{RESUME} was saved"):
            make(*pairs).train()
        (tmp_path / "0.png").rename(data / name / "face" / "0.png")
        (data / "test" / "face" / "0.png").unlink()  # what is only tested on decides nothing of the training
        assert {path: path.read_bytes() for path in folder.rglob("*pth.tar*")} == there
        moved = data.rename(tmp_path / "moved")
        assert train(make(*pairs, "DATASET.ROOT", str(moved)))

    def test_weights_that_have_changed(self, make, tiny_files, tmp_path):
        path = Path(shutil.copy(tiny_files[1]["vit"], tmp_path / "clip.pt"))
        folder = self.stopped(make, 3, "MODEL.BACKBONE.NAME", str(path))
        weights = torch.load(path)
        torch.save({**weights, "logit_scale": weights["logit_scale"] + 1}, path)
        with pytest.raises(
            ValueError, match=f"The weights of {path}, .*, are others than when {folder}/{RESUME} was saved"
        ):
            make("MODEL.BACKBONE.NAME", str(path)).train()

    def test_no_state_of_a_run(self, make, tmp_path):
        (tmp_path / "run").mkdir()
        torch.save({"weight": torch.ones(2)}, tmp_path / "run" / RESUME)
        message = rf"{RESUME} is not the state of a run as training saves it \(it has no `models`\)\. Delete"
        with pytest.raises(ValueError, match=message):
            make().train()

    def test_a_state_of_no_tensors_is_passed_over(self, make, caplog):
        folder = self.stopped(make, 6)
        state = torch.load(folder / RESUME, weights_only=True)
        state["models"]["prompt_learner"]["state_dict"]["ctx"] = [1.0]
        torch.save(state, folder / RESUME)
        assert make().resume_model_if_exist(folder) == 1
        assert f"{RESUME} has no `state_dict` of tensors by name." in caplog.text

    def test_a_folder_to_resume_from_without_a_whole_checkpoint(self, make, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"empty/prompt_learner/checkpoint does not exist .*--resume"):
            make("RESUME", str(tmp_path / "empty")).train()
        make("OPTIM.MAX_EPOCH", 1).train()
        spoil(tmp_path / "run" / "prompt_learner" / "model.pth.tar-1", "cut")
        with pytest.raises(ValueError, match="RESUME is .*/run, which holds no whole checkpoint. Name"):
            make("RESUME", str(tmp_path / "run"), folder="second").train()

    def test_a_method_that_registers_no_model(self, tmp_path):
        assert str(nothing_to_resume(tmp_path, [])).startswith(f"RESUME's file {tmp_path}/checkpoint does not exist")


MISSING = object()
SGD = {"momentum": 0.9, "dampening": 0, "weight_decay": 0}


class TestStrangers:
    """A checkpoint of an epoch and a state within one, with entries that training does not save."""

    @pytest.mark.parametrize("file", [RESUME, "prompt_learner/model.pth.tar-1"])
    @pytest.mark.parametrize(
        ("entry", "value", "reason"),
        [
            ("epoch", None, "its `epoch` is None and not a whole number"),
            ("epoch", "1\n", r"its `epoch` is '1\\n' and not a whole number"),
            ("epoch", 1.5, "its `epoch` is 1.5 and not"),
            ("epoch", MISSING, "it has no `epoch`"),
            ("time_s", "1", "its `time_s` is '1' and not a number of seconds"),
            ("testing_s", float("nan"), "its `testing_s` is nan and not"),
            ("random", 5, "its `random` cannot be restored, TypeError: "),
            ("random", [{"torch": torch.zeros(3)}], "its `random` cannot be restored, TypeError: "),
            ("optimizer", None, "its `optimizer` cannot be restored, AttributeError: "),
            ("optimizer", {"state": {}, "param_groups": []}, "its `optimizer` cannot be restored, ValueError: "),
            ("optimizer", {"state": {}, "param_groups": [{"params": [0]}]}, "`optimizer` .*, KeyError: 'lr'"),
            ("optimizer", {"state": {}, "param_groups": [{"params": [0], "lr": "1", **SGD}]}, "TypeError: lr is '1'"),
            ("scheduler", None, "its `scheduler` cannot be restored, TypeError: "),
            ("scheduler", MISSING, "its `scheduler` cannot be restored, KeyError: "),
            ("scheduler", {"last_epoch": -7}, "its `scheduler` .* last_epoch is -7"),
        ],
    )
    def test_are_refused_with_the_file_and_the_entry(self, make, tmp_path, file, entry, value, reason):
        trainer, path = make(), tmp_path / "run" / file
        trainer.save_model(1)
        save_at(trainer, 0, 2)
        if file == RESUME:
            (tmp_path / "run/prompt_learner/model.pth.tar-1").unlink()
        state = torch.load(path, weights_only=True)
        entries = state if entry in state else state["models"]["prompt_learner"]
        entries[entry] = value
        if value is MISSING:
            del entries[entry]
        torch.save(state, path)
        message = rf"{path} is not the state of a run as training saves it \(.*{reason}.*\)\. Delete it, or"
        with pytest.raises(ValueError, match=message) as error:
            make().resume_model_if_exist(tmp_path / "run")
        assert str(error.value).isprintable()


def spoil(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()


def test_a_resumed_run_tells_both_parts(make, caplog):
    with caplog.at_level(logging.INFO, logger="engine"):
        stop(make(), 5, terminate)
        assert caplog.messages[-1] == "Interrupted after epoch 1, batch 2"
        again = make()
        assert train(again)
    assert f"Resume after epoch 1, batch 2 from {again.output_dir}" in caplog.messages
    lines = [message.split(" time")[0] for message in caplog.messages if message.startswith("epoch [")]
    assert lines == [f"epoch [{e}/{EPOCHS}] batch [{b}/{BATCHES}]" for e in (1, 2) for b in (1, 2, 3)]
    assert again.clock.times()["time_s"] > again.clock.earlier_s > 0
