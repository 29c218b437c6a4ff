"""Methods and a data set in the original's form whose parts of the loop are their own: they run as they are."""

import json
from pathlib import Path

import pytest
import torch

import train
from dassl.engine import build_trainer
from dassl.optim import build_optimizer
from dassl.utils import load_checkpoint, save_checkpoint
from engine import DataManager
from engine.config.load import full_default
from engine.config.plugins import plugins
from engine.optim import build_lr_scheduler
from reports.runs import parse_run
from tests.resume.stopping import assert_same, before_step, ended, terminate
from tests.resume.stopping import train as train_until_stopped
from tests.support.tiny_run import own_warnings, tiny_cfg

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated", "ignore:.*CUDA is not available", "ignore:.*autocast")

PLUGIN = Path(__file__).parent / "original_methods.py"


@pytest.fixture
def make(tiny_files, tmp_path):
    """Builds a trainer of the plug-in; KEY, VALUE, ... change its config."""
    data, clips = tiny_files

    def build(name, *pairs, folder="run"):
        return build_trainer(tiny_cfg(data, clips["vit"], tmp_path / folder, "TRAINER.NAME", name, *pairs))

    with plugins([PLUGIN.as_posix()]):
        yield build


@pytest.fixture
def call(tiny_files, tmp_path, capsys):
    """Calls train.py; returns the error's text and results.json, None where there is none."""
    data, clips = tiny_files

    def run(trainer, *words, dataset="Folder", output="run", plugin=PLUGIN):
        (tmp_path / "data.yaml").write_text(f"DATASET: {{NAME: {dataset}}}\n")
        flags = [f"--trainer={trainer}", f"--root={data}", f"--backbone={clips['vit']}", f"--plugin={plugin}"]
        flags += ["--seed=1", f"--output-dir={tmp_path / output}", f"--dataset-config-file={tmp_path}/data.yaml"]
        pairs = "USE_CUDA False INPUT.SIZE (32,32) DATALOADER.NUM_WORKERS 0 DATALOADER.TRAIN_X.BATCH_SIZE 4"
        train.main([*flags, *words, *pairs.split(), "OPTIM.MAX_EPOCH", "2"])
        results = tmp_path / output / "results.json"
        return capsys.readouterr().err, json.loads(results.read_text()) if results.is_file() else None

    return run


class TestZeroShot:
    def test_it_measures_what_ours_does(self, call):
        _, plain = call("PlainZeroshot", "--eval-only")
        _, ours = call("ZeroshotCLIP", "--eval-only", output="ours")
        for key in ("accuracy", "macro_f1", "total", "source", "epoch"):
            assert plain[key] == ours[key], key
        assert plain["n_params"] == 0

    def test_classes_that_are_one_prompt_are_told(self, call, tmp_path):
        (tmp_path / "names.txt").write_text("face face\nleopard Face\nwine_bottle wine bottle\n")
        _, results = call("PlainZeroshot", "--eval-only", "DATASET.CLASSNAMES", str(tmp_path / "names.txt"))
        assert [text for text in results["warnings"] if "(1 of 3): 'Face' (label 1) as 'face' (label 0)" in text]

    def test_it_cannot_be_trained(self, call):
        err, results = call("PlainZeroshot")
        assert err.startswith("Error: PlainZeroshot has no forward_backward: it trains nothing. Add --eval-only.")
        assert results is None


class TestLoop:
    @pytest.mark.parametrize("name", ["Adapters", "OwnLoop"])
    def test_every_epoch_has_its_own_order(self, make, name):
        """Also where the method's `before_epoch` does nothing: the order is that of any other trainer."""
        trainer = make(name, "OPTIM.MAX_EPOCH", 2)
        trainer.train()
        manager, expected = DataManager(trainer.cfg), []
        for epoch in (0, 1):
            manager.set_epoch(epoch)
            expected += [(epoch, batch["index"].tolist(), True) for batch in manager.train_loader_x]
        assert trainer.seen == expected
        assert [indices for epoch, indices, _ in expected if epoch] != [i for epoch, i, _ in expected if not epoch]
        assert not any(model.training for model in trainer.models.values())  # after the test

    @pytest.mark.parametrize("name", ["OwnLoop", "OwnSaving"])
    def test_from_the_command_line(self, call, tmp_path, name):
        _, results = call(name, "TEST.FINAL_MODEL", "best_val")
        best = load_checkpoint(tmp_path / "run/image_adapter/model-best.pth.tar")
        assert (results["epoch"], results["total"]) == (best["epoch"], 9)
        assert results["n_params"] == 2 * (32 * 32 + 32)
        for model in ("image_adapter", "text_adapter", "dropout"):
            assert (tmp_path / "run" / model / "checkpoint").read_text() == "model.pth.tar-2\n"
        _, tested = call(name, "--eval-only", f"--model-dir={tmp_path}/run", output="tested")
        assert (tested["accuracy"], tested["epoch"]) == (results["accuracy"], results["epoch"])

    @pytest.mark.parametrize("name", ["OwnEnd", "OwnLoopAndEnd"])
    def test_one_that_does_not_test_says_so(self, call, tmp_path, name):
        """And the accuracy on the validation items is none on the test items."""
        _, results = call(name, "TEST.FINAL_MODEL", "best_val")
        said = (
            f"Nothing was tested: {name}'s after_train does not test, so the measures are empty. Test the run with "
            f"--eval-only --model-dir {tmp_path}/run --load-epoch 2."
        )
        assert own_warnings(results) == [said]
        assert [results[key] for key in ("accuracy", "total", "epoch")] == [None, None, 2]
        assert f"Warning: {said}" in (tmp_path / "run" / "log.txt").read_text()
        assert parse_run(tmp_path / "run").problem == "results.json: nothing was tested"
        _, tested = call(name, "--eval-only", f"--model-dir={tmp_path}/run", "--load-epoch=2", output="tested")
        assert tested["total"] == 9 and not any("Nothing was tested" in said for said in tested["warnings"])

    def test_one_that_was_told_not_to_test_says_nothing(self, call):
        assert own_warnings(call("OwnEnd", "TEST.NO_TEST", "True")[1]) == []

    def test_it_goes_on_from_its_own_checkpoint(self, make, tmp_path):
        values = ("OPTIM.LR", 0.1, "TEST.NO_TEST", True)
        whole = make("OwnLoop", *values, folder="whole")
        whole.train()
        for name in whole.models:
            (tmp_path / "whole" / name / "model.pth.tar-2").unlink()
            (tmp_path / "whole" / name / "checkpoint").write_text("model.pth.tar-1\n")
        second = make("OwnLoop", *values, folder="whole")
        second.before_train()
        assert second.start_epoch == 1
        assert second.get_current_lr() == pytest.approx(0.05)  # cosine, half way
        first = load_checkpoint(tmp_path / "whole/image_adapter/model.pth.tar-1")["state_dict"]
        assert torch.equal(second.model.image_adapter.weight, first["weight"])

    @pytest.mark.parametrize("n_steps", [1, 3, 4])
    def test_stopped_in_the_midst_it_goes_on_to_the_same_end(self, make, n_steps):
        """Its dropout draws in every step; of its three models one has a schedule, two an optimiser."""

        def seeded(folder):
            torch.manual_seed(0)  # the method's layers start at random, as its dropout does
            return make("Adapters", "OPTIM.LR", 0.1, folder=folder)

        whole = seeded("whole")
        assert train_until_stopped(whole)
        expected = ended(whole)
        stopped = seeded("run")
        before_step(stopped, n_steps, terminate)
        assert not train_until_stopped(stopped)
        again = seeded("run")
        assert train_until_stopped(again)
        assert_same(ended(again), expected)

    def test_half_precision_beside_clip_in_float32(self, make):
        trainer = make("Adapters", "TRAINER.ADAPTERS.PREC", "fp16", "OPTIM.MAX_EPOCH", 1)
        assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
        before = trainer.model.image_adapter.weight.clone()
        trainer.train()
        assert not torch.equal(trainer.model.image_adapter.weight, before)


class TestConfig:
    @pytest.mark.parametrize("frequency", [-1, 0])
    def test_a_frequency_of_minus_1_keeps_the_last_checkpoint_alone(self, call, tmp_path, frequency):
        err, results = call("Adapters", "TRAIN.CHECKPOINT_FREQ", str(frequency))
        assert results is not None, err
        names = sorted(path.name for path in (tmp_path / "run" / "dropout").iterdir())
        assert names == ["checkpoint", "model.pth.tar-2"]

    def test_an_option_that_nothing_declares_is_named_in_full(self, call, tmp_path):
        text = PLUGIN.read_text().replace("cfg.OPTIM)", "cfg.OPTIM if cfg.OPTIM.NEW_LR else None)")
        (tmp_path / "own.py").write_text(text)
        err, results = call("Adapters", plugin=tmp_path / "own.py")
        assert results is None and "Adapters reads the option OPTIM.NEW_LR, which nothing declares." in err


class TestDataset:
    def test_by_plugin(self, call, tiny_files):
        cache = tiny_files[0] / "pets" / "split_fewshot" / "shot_2-seed_1.pkl"
        cache.unlink(missing_ok=True)
        _, drawn = call("PlainZeroshot", "--eval-only", "DATASET.NUM_SHOTS", "2", dataset="Pets")
        assert cache.is_file() and (drawn["dataset"], drawn["total"]) == ("Pets", 9)
        _, read = call("CoOp", "DATASET.NUM_SHOTS", "2", "TRAINER.COOP.PREC", "fp32", dataset="Pets", output="coop")
        assert (read["trainer"], read["source"], read["total"]) == ("CoOp", "Pets", 9)


class TestParts:
    def test_groups_of_parameters_in_place_of_a_model(self):
        cfg, model = full_default().OPTIM, torch.nn.Linear(2, 2)
        for optim in (
            build_optimizer([{"params": [model.bias], "lr": 0.5}, {"params": [model.weight]}], cfg),
            build_optimizer(None, cfg, [{"params": [model.bias], "lr": 0.5}, {"params": [model.weight]}]),
        ):
            assert [group["lr"] for group in optim.param_groups] == [0.5, cfg.LR]
        assert len(build_optimizer(model.parameters(), cfg).param_groups[0]["params"]) == 2

    def test_a_schedule_is_saved_and_read(self, tmp_path):
        cfg, model = full_default().OPTIM, torch.nn.Linear(2, 2)
        schedules = [build_lr_scheduler(build_optimizer(model, cfg), cfg) for _ in range(2)]
        for _ in range(cfg.MAX_EPOCH):
            schedules[0].optimizer.step()
            schedules[0].step()
        torch.save(schedules[0].state_dict(), tmp_path / "sched")
        schedules[1].load_state_dict(torch.load(tmp_path / "sched"))
        assert schedules[1].get_lr() == schedules[0].get_lr() == pytest.approx([cfg.LR * cfg.GAMMA])

    def test_the_names_that_data_parallel_gives_are_not_saved(self, tmp_path):
        state = {"state_dict": {"module.ctx": torch.ones(1)}, "epoch": 3}
        save_checkpoint(state, tmp_path, is_best=True)
        for name in ("model.pth.tar-3", "model-best.pth.tar"):
            assert load_checkpoint(tmp_path / name)["state_dict"].keys() == {"ctx"}
