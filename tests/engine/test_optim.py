"""Optimisers against torch's own classes, schedules against the original's rates and against torch's schedulers."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from engine import build_lr_scheduler, build_optimizer, get_cfg_default

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lr.json").read_text())


def optim_cfg(**options):
    cfg = get_cfg_default().OPTIM
    for key, value in options.items():
        assert key in cfg
        cfg[key] = value
    return cfg


def rates(n_epochs, **options):
    """The rate in force during each epoch, epoch 0 first; the schedule is stepped after every epoch, the last too."""
    cfg = optim_cfg(**{"NAME": "sgd", "MAX_EPOCH": n_epochs, **options})
    optim = build_optimizer([nn.Parameter(torch.zeros(1))], cfg)
    return run_schedule(optim, build_lr_scheduler(optim, cfg), n_epochs)


def run_schedule(optim, sched, n_epochs, group=0):
    seen = []
    for _ in range(n_epochs):
        seen.append(optim.param_groups[group]["lr"])
        optim.step()
        sched.step()
    return seen


def torch_rates(n_epochs, make):
    """The rates of one of torch's schedulers from LR 0.002."""
    optim = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.002)
    return run_schedule(optim, make(optim), n_epochs)


@pytest.mark.parametrize(
    "case", GOLDEN, ids=lambda c: f"{c['max_epoch']}-{c['warmup_type']}-{c['warmup_epoch']}-{c['recount']}"
)
def test_cosine_equals_the_original(case):
    found = rates(
        case["max_epoch"],
        LR=case["lr"],
        LR_SCHEDULER="cosine",
        WARMUP_EPOCH=case["warmup_epoch"],
        WARMUP_TYPE=case["warmup_type"],
        WARMUP_RECOUNT=case["recount"],
    )
    assert found == pytest.approx(case["lrs"], rel=1e-9)


@pytest.mark.parametrize(
    ("options", "make"),
    [
        ({"LR_SCHEDULER": "cosine"}, lambda optim: lr_scheduler.CosineAnnealingLR(optim, 12)),
        ({"LR_SCHEDULER": "single_step", "STEPSIZE": (5,)}, lambda optim: lr_scheduler.StepLR(optim, 5)),
        ({"LR_SCHEDULER": "single_step", "STEPSIZE": (-1,)}, lambda optim: lr_scheduler.StepLR(optim, 12)),
        (
            {"LR_SCHEDULER": "multi_step", "STEPSIZE": (3, 7), "GAMMA": 0.5},
            lambda optim: lr_scheduler.MultiStepLR(optim, [3, 7], 0.5),
        ),
    ],
    ids=["cosine", "single_step", "single_step-default", "multi_step"],
)
@pytest.mark.parametrize(("n_warmup", "recount"), [(0, False), (2, True), (2, False)])
def test_schedules_are_torchs(options, make, n_warmup, recount):
    """Recounted, a schedule starts at 0 when the warm-up ends; else it goes on as torch's would, had it LR there."""

    def make_after_warmup(optim):
        sched = make(optim)
        sched.last_epoch = 0 if recount else n_warmup
        return sched

    found = rates(12, LR=0.002, WARMUP_EPOCH=n_warmup, WARMUP_TYPE="constant", WARMUP_RECOUNT=recount, **options)
    expected = [1e-5] * n_warmup + torch_rates(12 - n_warmup, make_after_warmup)
    assert found == pytest.approx(expected, rel=1e-9)


def test_linear_warmup_rises_from_its_minimum():
    found = rates(8, LR=0.004, LR_SCHEDULER="cosine", WARMUP_EPOCH=4, WARMUP_TYPE="linear", WARMUP_MIN_LR=1e-4)
    assert found[:5] == pytest.approx([1e-4, 0.001, 0.002, 0.003, 0.004])


@pytest.mark.parametrize("recount", [True, False])
def test_warmup_as_long_as_the_training(recount):
    """The step after the last epoch ends the warm-up; it must not fail."""
    options = {"LR_SCHEDULER": "cosine", "WARMUP_TYPE": "constant", "WARMUP_RECOUNT": recount}
    assert rates(3, WARMUP_EPOCH=3, **options) == pytest.approx([1e-5] * 3)


EXPECTED = {  # OPTIM.NAME -> torch's class, hyperparameters that come from the config
    "sgd": (torch.optim.SGD, {"momentum": 0.8, "dampening": 0.0, "nesterov": True}),  # which allows no dampening
    "adam": (torch.optim.Adam, {"betas": (0.7, 0.9), "amsgrad": False}),
    "amsgrad": (torch.optim.Adam, {"betas": (0.7, 0.9), "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"betas": (0.7, 0.9), "amsgrad": False}),
    "radam": (torch.optim.RAdam, {"betas": (0.7, 0.9), "decoupled_weight_decay": True}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.8, "alpha": 0.95}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_optimiser_is_torchs_with_the_configs_values(name):
    options = {"MOMENTUM": 0.8, "SGD_NESTEROV": True, "RMSPROP_ALPHA": 0.95, "ADAM_BETA1": 0.7, "ADAM_BETA2": 0.9}
    optim = build_optimizer(nn.Linear(2, 2), optim_cfg(NAME=name, LR=0.03, WEIGHT_DECAY=0.01, **options))
    expected_class, expected = EXPECTED[name]
    assert type(optim) is expected_class
    expected = {**expected, "lr": 0.03, "weight_decay": 0.01}
    assert {key: optim.param_groups[0][key] for key in expected} == expected


def test_only_parameters_that_require_gradients():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    for trained in (model, model.parameters()):
        optim = build_optimizer(trained, optim_cfg(NAME="sgd", SGD_DAMPNING=0.5))
        assert [id(p) for p in optim.param_groups[0]["params"]] == [id(p) for p in model[1].parameters()]
        assert optim.param_groups[0]["dampening"] == 0.5


def test_groups_that_are_passed_replace_the_models():
    weight, bias = nn.Linear(2, 3).parameters()
    groups = [{"params": [weight], "lr": 0.5}, {"params": [bias]}]
    optim = build_optimizer([], optim_cfg(NAME="sgd", LR=0.1), param_groups=groups)
    assert [group["lr"] for group in optim.param_groups] == [0.5, 0.1]


class TestStagedRates:
    def setup_method(self):
        self.model = nn.ModuleDict({"old": nn.Linear(2, 3), "new": nn.Linear(3, 1), "frozen": nn.Linear(1, 1)})
        self.model["frozen"].requires_grad_(False)
        self.options = {"NAME": "sgd", "LR": 0.1, "STAGED_LR": True, "NEW_LAYERS": ("new",), "MAX_EPOCH": 4}

    def test_groups_and_their_schedules(self):
        cfg = optim_cfg(**self.options, BASE_LR_MULT=0.2, LR_SCHEDULER="cosine")
        optim = build_optimizer(self.model, cfg)
        old, new = optim.param_groups
        assert [id(p) for p in old["params"]] == [id(p) for p in self.model["old"].parameters()]
        assert [id(p) for p in new["params"]] == [id(p) for p in self.model["new"].parameters()]
        assert (old["lr"], new["lr"]) == pytest.approx((0.02, 0.1))
        assert run_schedule(optim, build_lr_scheduler(optim, cfg), 3)[2] == pytest.approx(0.02 * 0.5)

    def test_rate_0_freezes_the_old_layers_after_the_warmup(self):
        options = {"LR_SCHEDULER": "cosine", "WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant"}
        cfg = optim_cfg(**self.options, **options, BASE_LR_MULT=0.0)
        optim = build_optimizer(self.model, cfg)
        assert run_schedule(optim, build_lr_scheduler(optim, cfg), 3) == [1e-5, 0, 0]

    @pytest.mark.parametrize("names", [("head",), ()])
    def test_unknown_layers(self, names):
        with pytest.raises(ValueError, match="OPTIM.NEW_LAYERS is .*expected some of: old, new, frozen"):
            build_optimizer(self.model, optim_cfg(**{**self.options, "NEW_LAYERS": names}))


def test_unknown_names():
    with pytest.raises(ValueError, match="OPTIM.NAME is 'lion', expected one of: sgd"):
        build_optimizer(nn.Linear(1, 1), optim_cfg(NAME="lion"))
    optim = build_optimizer(nn.Linear(1, 1), optim_cfg(NAME="sgd"))
    with pytest.raises(ValueError, match="OPTIM.LR_SCHEDULER is 'step', expected one of: cosine"):
        build_lr_scheduler(optim, optim_cfg(LR_SCHEDULER="step"))
