"""The training loop through the real CoOp trainer: what is trained, saved, resumed, tested and written."""

import json
from pathlib import Path

import pytest
import torch

from engine import load_checkpoint
from tests.support.tiny_run import build_trainer, tiny_cfg

LR_CASES = json.loads((Path(__file__).parents[1] / "golden" / "lr.json").read_text())


@pytest.fixture
def make(tiny_files, tmp_path):
    """Builds a trainer whose folder is tmp_path/run; KEY, VALUE, ... change its config."""

    def build(*pairs, kind="vit", folder="run"):
        data, clips = tiny_files
        return build_trainer(tiny_cfg(data, clips[kind], tmp_path / folder, *pairs, kind=kind))

    return build


def watch(trainer, look):
    """Calls look(batch) before every step."""
    step = trainer.forward_backward

    def watched(batch):
        look(batch)
        return step(batch)

    trainer.forward_backward = watched


def train_until(trainer, epoch):
    """Trains and is killed before this epoch begins."""
    before = trainer.before_epoch

    def stop():
        if trainer.epoch == epoch:
            raise KeyboardInterrupt
        before()

    trainer.before_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        trainer.train()


class TestWhatIsTrained:
    @pytest.mark.parametrize("kind", ["vit", "rn"])
    def test_exactly_the_prompt_learner(self, make, kind):
        """All of CLIP stays as it is, the statistics of its batch norms too, and in eval mode."""
        trainer = make(kind=kind)
        trainable = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
        assert trainable == {"prompt_learner.ctx"}
        assert trainer.optims["prompt_learner"].param_groups[0]["params"] == [trainer.model.prompt_learner.ctx]
        before = {name: value.clone() for name, value in trainer.clip_model.state_dict().items()}
        ctx = trainer.model.prompt_learner.ctx.detach().clone()
        modes = set()

        def look(batch):
            modes.update(module.training for module in trainer.clip_model.modules())
            modes.update(module.training for module in trainer.model.encode_prompts.modules())
            assert trainer.model.prompt_learner.training

        watch(trainer, look)
        trainer.train()
        assert modes == {False}
        assert not torch.equal(ctx, trainer.model.prompt_learner.ctx)
        for name, value in trainer.clip_model.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert all(parameter.grad is None for parameter in trainer.clip_model.parameters())

    def test_learning_rate_of_each_epoch(self, make):
        case = LR_CASES[1]
        trainer = make(
            *("OPTIM.MAX_EPOCH", case["max_epoch"], "OPTIM.LR", case["lr"], "OPTIM.WARMUP_EPOCH", case["warmup_epoch"]),
            *("OPTIM.WARMUP_TYPE", case["warmup_type"], "TEST.NO_TEST", True, "TRAINER.COOP.N_CTX", 1),
            *("DATALOADER.TRAIN_X.BATCH_SIZE", 12),
        )
        rates = []
        watch(trainer, lambda batch: rates.append(trainer.trained.lr()))
        trainer.train()
        assert rates == pytest.approx(case["lrs"], rel=1e-9)


def test_the_seed_decides_the_start_whatever_was_drawn_before(make):
    first = make().model.prompt_learner.ctx
    torch.rand(100)
    assert torch.equal(make(kind="rn").model.prompt_learner.ctx, first)
    assert not torch.equal(make("SEED", 2).model.prompt_learner.ctx, first)


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("frequency", "every_s", "kept"), [(0, 60.0, [5]), (2, 60.0, [2, 4, 5]), (2, 1e-9, [2, 4, 5]), (5, 60.0, [5])]
    )
    def test_which_are_kept(self, make, tmp_path, frequency, every_s, kept):
        """Whatever is written in the meantime for an interrupted run."""
        make(
            *("OPTIM.MAX_EPOCH", 5, "TRAIN.CHECKPOINT_FREQ", frequency, "TRAIN.RESUME_EVERY_S", every_s),
            *("TEST.NO_TEST", True, "TRAINER.COOP.N_CTX", 1, "DATALOADER.TRAIN_X.BATCH_SIZE", 12),
        ).train()
        saved = sorted(path.name for path in (tmp_path / "run" / "prompt_learner").glob("model*"))
        assert saved == [f"model.pth.tar-{epoch}" for epoch in kept]
        assert (tmp_path / "run" / "prompt_learner" / "checkpoint").read_text() == "model.pth.tar-5\n"

    def test_what_one_holds(self, make, tmp_path):
        make().train()
        found = load_checkpoint(tmp_path / "run" / "prompt_learner" / "model.pth.tar-2")
        assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= set(found)
        shapes = {name: tuple(value.shape) for name, value in found["state_dict"].items()}
        assert shapes == {"ctx": (2, 64), "token_prefix": (3, 1, 64), "token_suffix": (3, 74, 64)}


class TestBestOnVal:
    def test_the_best_epoch_is_deployed(self, make, tmp_path, monkeypatch):
        trainer = make("OPTIM.MAX_EPOCH", 4, "TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", 1)
        accuracies, test = iter([30.0, 50.0, 50.0, 40.0]), trainer.test
        monkeypatch.setattr(trainer, "test", lambda split=None: next(accuracies) if split == "val" else test(split))
        trainer.train()
        best = load_checkpoint(tmp_path / "run" / "prompt_learner" / "model-best.pth.tar")
        assert (best["epoch"], best["val_result"]) == (2, 50.0)
        assert trainer.epochs_done == 2
        assert torch.equal(trainer.model.prompt_learner.ctx, best["state_dict"]["ctx"])
        assert trainer.results["total"] == 9

    @pytest.mark.parametrize("split", ["val", "test"])
    def test_a_run_that_is_resumed_elsewhere_remembers_the_best(self, make, tmp_path, monkeypatch, split):
        options = ("OPTIM.MAX_EPOCH", 3, "TEST.FINAL_MODEL", f"best_{split}", "TRAIN.CHECKPOINT_FREQ", 1)
        first = make(*options)
        accuracies = iter([60.0, 50.0])
        monkeypatch.setattr(first, "test", lambda split: next(accuracies))
        train_until(first, 2)
        second = make(*options, "RESUME", str(tmp_path / "run"), folder="elsewhere")
        second.before_train()
        assert second.best_result == 60.0
        best = load_checkpoint(tmp_path / "elsewhere" / "prompt_learner" / "model-best.pth.tar")
        assert best["val_result"] == 60.0
        assert best["data_sha256"].keys() == {"train", split}  # with other items it does not go on

    def test_a_result_without_its_model_is_not_the_best(self, make, tmp_path):
        options = ("OPTIM.MAX_EPOCH", 3, "TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", 1)
        train_until(make(*options), 2)
        (tmp_path / "run" / "prompt_learner" / "model-best.pth.tar").unlink()
        second = make(*options)
        second.before_train()
        assert second.best_result == -1.0


def test_a_checkpoint_without_scaler_and_result_resumes(make, tmp_path):
    """As one of the original's, whose `checkpoint` may name the best model, or one from a CPU that goes on on a GPU."""
    train_until(make("OPTIM.MAX_EPOCH", 3, "TRAIN.CHECKPOINT_FREQ", 1), 1)
    folder = tmp_path / "run" / "prompt_learner"
    checkpoint = load_checkpoint(folder / "model.pth.tar-1")
    del checkpoint["scaler"], checkpoint["val_result"]
    torch.save(checkpoint, folder / "model-best.pth.tar")
    (folder / "checkpoint").write_text("model-best.pth.tar\n")
    trainer = make("OPTIM.MAX_EPOCH", 3)
    trainer.scaler = torch.amp.GradScaler("cpu", enabled=True)
    trainer.train()
    assert trainer.epochs_done == 3
    assert (folder / "model-best.pth.tar").is_file()
