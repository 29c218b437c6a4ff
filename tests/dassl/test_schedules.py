"""Learning rates after an interruption: of our schedules, of a method's own, and from the original's checkpoints."""

import math

import pytest
import torch

from dassl.engine import build_trainer
from dassl.utils import load_checkpoint, resume_from_checkpoint, save_checkpoint
from engine.config.plugins import plugins
from tests.dassl.original_schedules import SCHEDULES, OwnWarmup
from tests.resume.stopping import assert_same, before_step, ended, terminate
from tests.resume.stopping import train as train_until_stopped
from tests.support.tiny_run import tiny_cfg

PLUGIN = """
from dassl.engine import TRAINER_REGISTRY
from tests.dassl.original_schedules import SCHEDULES, Method

for name, schedule in SCHEDULES.items():
    TRAINER_REGISTRY.register(type(name, (Method,), {"schedule": staticmethod(schedule)}))
"""
EPOCHS, BATCHES = 6, 3
UNSAVED = ("Unsaved", "Drawn")
SAVED = [name for name in SCHEDULES if name not in UNSAVED]


@pytest.fixture
def make(tiny_files, tmp_path):
    """Builds a trainer, by default one of the plug-in; KEY, VALUE, ... change its config."""
    data, clips = tiny_files

    def build(name, *pairs, folder="run"):
        values = {"TRAINER.NAME": name, "OPTIM.MAX_EPOCH": EPOCHS, "OPTIM.LR": 0.5, "TEST.NO_TEST": True}
        values |= dict(zip(pairs[::2], pairs[1::2], strict=True))
        words = [word for pair in values.items() for word in pair]
        return build_trainer(tiny_cfg(data, clips["vit"], tmp_path / folder, *words))

    (tmp_path / "methods.py").write_text(PLUGIN)
    with plugins([str(tmp_path / "methods.py")]):
        yield build


def watch_rates(trainer):
    """Returns the list to which each step adds its epoch, from 1, and its learning rate."""
    rates, step = [], trainer.forward_backward

    def watched(batch):
        rates.append((trainer.epoch + 1, trainer.trained.lr()))
        return step(batch)

    trainer.forward_backward = watched
    return rates


def rates_of(schedule, n_epochs):
    """The rates that a schedule gives when nothing interrupts it, epoch by epoch."""
    optim = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    sched, rates = schedule(optim), []
    for _ in range(n_epochs):
        rates.append(optim.param_groups[0]["lr"])
        optim.step()
        sched.step()
    return rates


def cosine(epoch, lr=5.0, n_epochs=8, n_warmup=1):
    """The rate in an epoch, from 1, by the formula: the warm-up, then half a wave from its own start."""
    return lr * (1 + math.cos(math.pi * (epoch - 1 - n_warmup) / n_epochs)) / 2


class TestAMethodsOwn:
    @pytest.mark.parametrize("name", SAVED)
    def test_stopped_in_every_epoch_it_goes_on_to_the_same_end(self, make, name):
        whole = make(name, folder="whole")
        rates = watch_rates(whole)
        assert train_until_stopped(whole)
        expected = ended(whole)
        by_hand = rates_of(SCHEDULES[name], EPOCHS)
        assert rates == [(epoch + 1, by_hand[epoch]) for epoch in range(EPOCHS) for _ in range(BATCHES)]
        found = []
        for n_steps in (2, 3, 4, 3, 4):  # within an epoch, at its end, ...
            stopped = make(name)
            found.append(watch_rates(stopped))
            before_step(stopped, n_steps, terminate)
            assert not train_until_stopped(stopped)
        again = make(name)
        found.append(watch_rates(again))
        assert train_until_stopped(again)
        assert [rate for part in found for rate in part] == rates
        assert_same(ended(again), expected)

    @pytest.mark.parametrize("name", SAVED)
    def test_it_goes_on_from_a_checkpoint_of_an_epoch(self, make, name):
        whole = make(name, "TRAIN.CHECKPOINT_FREQ", 2)
        rates = watch_rates(whole)
        whole.train()
        for file in ("model.pth.tar-6", "checkpoint"):
            (whole.output_dir / "learner" / file).unlink()
        again = make(name)
        found = watch_rates(again)
        again.train()
        assert found == rates[4 * BATCHES :]
        assert torch.equal(again.model.weight, whole.model.weight)

    @pytest.mark.parametrize("name", UNSAVED)
    def test_one_that_cannot_be_saved_is_warned_of_and_no_run_with_it_goes_on(self, make, caplog, name):
        trainer = make(name)
        assert f"{name}'s schedule {name} cannot be saved: an interrupted run cannot go on." in caplog.text
        before_step(trainer, 4, terminate)
        assert not train_until_stopped(trainer)
        with pytest.raises(ValueError, match=rf"its `scheduler` cannot be restored, TypeError: {name} cannot be saved"):
            make(name).train()

    @pytest.mark.parametrize(("name", "goes_on"), [("Lambda", True), ("Sequential", False), ("Copied", False)])
    def test_one_of_which_a_file_holds_the_epoch_alone(self, make, name, goes_on):
        """As earlier versions saved it: that says all of a schedule that is a function of it, and not of another."""
        first = make(name, "TRAIN.CHECKPOINT_FREQ", 3)
        rates = watch_rates(first)
        first.train()
        path = first.output_dir / "learner" / "model.pth.tar-3"
        state = torch.load(path, weights_only=True)
        torch.save({**state, "scheduler": {"last_epoch": 3}}, path)
        for file in ("model.pth.tar-6", "checkpoint"):
            (first.output_dir / "learner" / file).unlink()
        again = make(name)
        found = watch_rates(again)
        if goes_on:
            again.train()
            assert found == rates[3 * BATCHES :]
        else:
            with pytest.raises(ValueError, match="it holds last_epoch alone, which is not all that .* needs"):
                again.train()


class TestTheOriginals:
    """Its warm-up counts the epochs of the warm-up, and hands over to a schedule with a count of its own."""

    def checkpoint(self, trainer, name, scheduler):
        """Writes what the original saves after four of eight epochs."""
        for group in trainer.optims[name].param_groups:
            group["lr"] = cosine(5)
        state = {"state_dict": trainer.models[name].state_dict(), "epoch": 4, "val_result": None}
        state |= {"optimizer": trainer.optims[name].state_dict(), "scheduler": scheduler}
        folder = trainer.output_dir / name
        folder.mkdir(parents=True)
        torch.save(state, folder / "model.pth.tar-4")
        (folder / "checkpoint").write_text("model.pth.tar-4\n")

    def whole_state(self, make_warmup=OwnWarmup):
        """What its schedule's state_dict is then: with the successor as an object, and the optimiser in that."""
        optim = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5.0)
        sched = make_warmup(optim, torch.optim.lr_scheduler.CosineAnnealingLR(optim, 8.0), 1, 1e-5)
        for _ in range(4):
            optim.step()
            sched.step()
        assert (sched.last_epoch, sched.successor.last_epoch) == (1, 3)
        return sched.state_dict()

    @pytest.mark.parametrize("whole", [False, True], ids=["its count alone", "whole"])
    def test_our_schedule_takes_the_epoch_of_the_checkpoint(self, make, whole):
        pairs = ("OPTIM.LR", 5.0, "OPTIM.MAX_EPOCH", 8, "OPTIM.WARMUP_EPOCH", 1, "OPTIM.WARMUP_TYPE", "constant")
        trainer = make("CoOp", *pairs)
        self.checkpoint(trainer, "prompt_learner", self.whole_state() if whole else {"last_epoch": 1})
        again = make("CoOp", *pairs)
        found = watch_rates(again)
        again.train()
        expected = [(epoch, cosine(epoch)) for epoch in (5, 6, 7, 8) for _ in range(BATCHES)]
        assert found == [(epoch, pytest.approx(rate, rel=1e-12)) for epoch, rate in expected]
        assert [round(rate, 2) for _, rate in found[::BATCHES][1:]] == [2.5, 1.54, 0.73]

    @pytest.mark.parametrize("name", ["Copied", "Constant"])
    def test_a_methods_own_warm_up_takes_the_whole_state(self, make, name):
        pairs = ("OPTIM.LR", 5.0, "OPTIM.MAX_EPOCH", 8)
        trainer = make(name, *pairs)
        self.checkpoint(trainer, "learner", self.whole_state())
        again = make(name, *pairs)
        found = watch_rates(again)
        again.train()
        assert [rate for _, rate in found[::BATCHES]] == pytest.approx([cosine(epoch) for epoch in (5, 6, 7, 8)])


class TestItsOwnSaving:
    """A method that saves and resumes by Dassl's functions."""

    @pytest.mark.parametrize("name", SAVED)
    def test_a_schedule_goes_on(self, tmp_path, name):
        def build():
            model = torch.nn.Linear(1, 1)
            optim = torch.optim.SGD(model.parameters(), lr=0.5)
            return model, optim, SCHEDULES[name](optim)

        model, optim, sched = build()
        for _ in range(3):
            optim.step()
            sched.step()
        state = {"state_dict": model.state_dict(), "epoch": 3, "optimizer": optim.state_dict()}
        save_checkpoint({**state, "scheduler": sched.state_dict()}, tmp_path)
        model, optim, sched = build()
        assert resume_from_checkpoint(tmp_path, model, optim, sched) == 3
        assert torch.equal(model.weight, load_checkpoint(tmp_path / "model.pth.tar-3")["state_dict"]["weight"])
        rates = []
        for _ in range(3):
            rates.append(optim.param_groups[0]["lr"])
            optim.step()
            sched.step()
        assert rates == rates_of(SCHEDULES[name], 6)[3:]

    def test_without_a_checkpoint(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="/empty/checkpoint does not exist"):
            resume_from_checkpoint(tmp_path / "empty", torch.nn.Linear(1, 1))
