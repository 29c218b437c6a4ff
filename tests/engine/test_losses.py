"""Losses are read when they are shown; one that is no number ends the run before it spoils what was saved."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.tiny_run import build_trainer, tiny_cfg

EPOCHS, BATCHES = 3, 3


@pytest.fixture
def trainer(tiny_files, tmp_path):
    """It saves after each of three epochs of three batches, and shows losses after every second batch."""
    pairs = ("OPTIM.MAX_EPOCH", EPOCHS, "TEST.NO_TEST", True, "TRAIN.CHECKPOINT_FREQ", 1, "TRAIN.PRINT_FREQ", 2)
    return build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path, *pairs))


@pytest.fixture
def as_on_a_gpu(trainer, monkeypatch):
    """Makes the trainer believe that it computes on a GPU."""
    monkeypatch.setattr(trainer, "parse_batch_train", lambda batch: (batch["img"], batch["label"]))
    trainer.device = torch.device("cuda")


def spoil(trainer, epoch, batch_idx, value):
    """Makes the loss of one step, counted from 0, this value; returns the steps that are done."""
    step, done = trainer.forward_backward, []

    def spoiled(batch):
        if (trainer.epoch, trainer.batch_idx) == (epoch, batch_idx):
            with torch.no_grad():
                trainer.model.prompt_learner.ctx.fill_(value)
        losses = step(batch)
        done.append((trainer.epoch, trainer.batch_idx))
        return losses

    trainer.forward_backward = spoiled
    return done


def ends(trainer, tmp_path, message):
    """Trains up to the error; the files of the first epoch's checkpoint are as they were saved."""
    saved, save = {}, trainer.save_model

    def read():
        return {path: path.read_bytes() for path in (tmp_path / "prompt_learner").iterdir()}

    def save_and_read(*args, **options):
        save(*args, **options)
        saved.update(read())

    trainer.save_model = save_and_read
    with pytest.raises(FloatingPointError, match=message):
        trainer.train()
    assert read() == saved and any(path.name == "model.pth.tar-1" for path in saved)
    trainer.forward_backward = type(trainer).forward_backward.__get__(trainer)
    assert trainer.resume_model_if_exist(tmp_path) == 1
    assert trainer.model.prompt_learner.ctx.isfinite().all()


MESSAGE = (
    r"^The loss is nan in epoch 2, batch {}, at learning rate 1\.5000e-02\. Lower OPTIM\.LR, "
    r"or use PREC fp32; what was saved before is as it was\.$"
)  # the cosine from 0.02: 0.01 (1 + cos(pi / 3)) in the second of three epochs


def test_on_a_cpu_the_run_ends_at_once(trainer, tmp_path):
    done = spoil(trainer, 1, 0, float("nan"))
    ends(trainer, tmp_path, MESSAGE.format(1))
    assert len(done) == 3


@pytest.mark.parametrize(("batch_idx", "n_done"), [(0, 5), (2, 6)], ids=["shown next", "at the epoch's end"])
def test_on_a_gpu_it_ends_when_losses_are_read(trainer, as_on_a_gpu, tmp_path, batch_idx, n_done):
    done = spoil(trainer, 1, batch_idx, float("nan"))
    ends(trainer, tmp_path, MESSAGE.format(batch_idx + 1))
    assert len(done) == n_done


def test_nothing_is_saved_with_an_unread_loss(trainer, as_on_a_gpu, tmp_path):
    ctx = trainer.model.prompt_learner.ctx
    trainer.model_backward_and_update(ctx.sum() * torch.inf)
    with pytest.raises(FloatingPointError, match="^The loss is (-?inf|nan) in epoch 1, batch 1,"):
        trainer.save_model(1)
    assert not (tmp_path / "prompt_learner").exists()


def test_tensorboard_has_the_loss_of_every_step(trainer, tmp_path):
    losses, step = [], trainer.forward_backward

    def recorded(batch):
        given = step(batch)
        losses.append(given["loss"].item())
        return given

    trainer.forward_backward = recorded
    trainer.train()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(EPOCHS * BATCHES))
    assert [event.value for event in events.Scalars("train/loss")] == losses
    assert [event.step for event in events.Scalars("train/lr")] == list(range(EPOCHS * BATCHES))
