"""PromptSRC's average over the epochs: the sum by hand, also where a run was stopped or started from other vectors."""

import pytest
import torch
from scipy.stats import norm

from engine import TRAINER_REGISTRY
from tests.resume.stopping import before_step, kill, terminate, train
from tests.support.tiny_run import build_trainer, tiny_cfg, valid_cfg
from tests.support.tolerance import assert_near
from tests.trainers.in_towers.by_hand import pairs_of

N_EPOCHS, MEAN, STD = 4, 2.5, 1.5
PAIRS = pairs_of("PromptSRC", "GPA_MEAN", MEAN, "GPA_STD", STD)
PAIRS += ["OPTIM.MAX_EPOCH", N_EPOCHS, "TRAIN.RESUME_EVERY_S", 1e-9]


@pytest.fixture
def build(tiny_files, tmp_path):
    return lambda folder, *pairs: build_trainer(
        tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / folder, *PAIRS, *pairs)
    )


def learned(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.prompt_learner.named_parameters()}


def record_epochs(trainer):
    """The vectors after each epoch's last step, before they are averaged."""
    epochs, update = [], trainer.trained.update_lr

    def watched():
        epochs.append(learned(trainer))
        update()

    trainer.trained.update_lr = watched
    return epochs


def by_hand(epochs):
    density = norm.pdf(range(1, N_EPOCHS + 1), MEAN, STD)
    weights = density / density.sum()
    return {name: sum(g * theta[name].double() for g, theta in zip(weights, epochs, strict=True)) for name in epochs[0]}


def test_the_model_is_the_weighted_sum_of_its_epochs(build):
    trainer = build("run")
    epochs = record_epochs(trainer)
    assert train(trainer)
    assert_near(learned(trainer), by_hand(epochs))
    assert not torch.allclose(learned(trainer)["ctx"], epochs[-1]["ctx"], rtol=1e-3)


@pytest.mark.parametrize("act", [terminate, kill])
@pytest.mark.parametrize("step", [4, 8, 12])
def test_a_stopped_run_has_the_same_sum(build, step, act):
    """Of four epochs of three batches; one is stopped at the start of an epoch, one in it, one before the last step."""
    alone = build("alone")
    epochs = record_epochs(alone)
    assert train(alone)
    stopped = build("stopped")
    before_step(stopped, step, act)
    assert not train(stopped)
    again = build("stopped")
    assert train(again)
    assert_near(learned(again), by_hand(epochs))


def test_a_run_that_is_stopped_while_it_averages_counts_an_epoch_once(build):
    alone, stopped = build("alone"), build("stopped")
    epochs = record_epochs(alone)
    assert train(alone)
    count = stopped.model.prompt_learner.n_averaged

    def stop_and_count(epoch):
        """The signal comes when the vectors have been added, and the epoch has not been counted."""
        if epoch == 2:
            del count.fill_
            terminate()
        return torch.Tensor.fill_(count, epoch)

    count.fill_ = stop_and_count
    assert not train(stopped)
    again = build("stopped")
    assert train(again)
    assert_near(learned(again), by_hand(epochs))


def test_vectors_to_start_from_bring_no_average(build, tmp_path):
    first = build("first")
    assert train(first)
    second = build("second", "MODEL.INIT_WEIGHTS", str(tmp_path / f"first/prompt_learner/model.pth.tar-{N_EPOCHS}"))
    assert_near(learned(second), learned(first), 0.0)
    epochs = record_epochs(second)
    assert train(second)
    assert_near(learned(second), by_hand(epochs))


def test_another_runs_state_is_refused():
    [error] = TRAINER_REGISTRY.get("PromptSRC").config_errors(valid_cfg(RESUME="there"))
    assert error.startswith("RESUME is there, but PromptSRC averages over the epochs of one run. Leave it out")
