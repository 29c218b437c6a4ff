"""`train` in Python does what the command does: the same run, the same words, an exception for an exit code."""

import json
import logging
import multiprocessing
import os
import random
import re
import signal
import threading

import numpy as np
import pytest

import train as command
from engine.config.load import ConfigError
from engine.trainer import TrainerX
from tests.support.script_calls import ROOT
from tests.support.tiny_run import repeatable, train_flags
from train import train

PLUGIN = """
from engine import TRAINER_REGISTRY
from trainers.coop import CoOp

@TRAINER_REGISTRY.register()
class Mine(CoOp):
    pass
"""


@pytest.fixture
def call(tiny_files, tmp_path):
    """Calls `train` for a run of CoOp of two epochs of three batches; flags and, by `options`, keys on top."""
    data, clips = tiny_files
    words = [word.removeprefix("--").split("=", 1) for word in train_flags(tmp_path, data, clips["vit"])]
    valid = {name.replace("-", "_"): value for name, value in words}
    valid |= {"root": data, "seed": 1}  # as one writes them in Python
    keys = {"USE_CUDA": False, "DATALOADER.NUM_WORKERS": 0, "OPTIM.MAX_EPOCH": 2, "INPUT.SIZE": (32, 32)}
    # Features that an earlier test has kept differ in their last bits with the images that were encoded beside them.
    keys["FEATURES.DIR"] = ""  # as `argv` has it

    def call(name="run", options=(), **flags):
        return train(**{**valid, "output_dir": tmp_path / name, **flags}, options={**keys, **dict(options)})

    return call


@pytest.fixture(autouse=True)
def logging_is_closed():
    yield
    assert "run" not in [handler.get_name() for handler in logging.getLogger().handlers]


def test_it_is_the_commands_run(call, argv, tmp_path, capsys):
    results = call()
    printed = capsys.readouterr().out
    assert command.main(argv("command", "OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0")) == 0
    assert repeatable(tmp_path / "run") == repeatable(tmp_path / "command")
    assert results == json.loads((tmp_path / "run/results.json").read_text())
    assert "* accuracy: " in printed and "* accuracy: " in (tmp_path / "run/log.txt").read_text()
    capsys.readouterr()
    assert call() == results
    assert capsys.readouterr().out == f"Done already: {tmp_path}/run holds the results of this run.\n"


def test_it_leaves_no_process_and_no_other_random_numbers(call):
    random.seed(7)
    expected = random.random()
    random.seed(7)
    call(options={"DATALOADER.NUM_WORKERS": 1, "OPTIM.MAX_EPOCH": 1})
    assert random.random() == expected
    assert multiprocessing.active_children() == []


def test_it_tests_a_model(call, tmp_path):
    call(options={"TEST.NO_TEST": True})
    results = call("test", eval_only=True, model_dir=tmp_path / "run", load_epoch=np.int64(2))
    assert (results["epoch"], results["total"]) == (2, 9)
    assert call("nothing", no_train=True) is None


@pytest.mark.parametrize("as_list", [False, True])
def test_a_plugin(call, tmp_path, as_list):
    (tmp_path / "mine.py").write_text(PLUGIN)
    plugin = tmp_path / "mine.py"
    assert call(trainer="Mine", plugin=[plugin] if as_list else str(plugin))["trainer"] == "Mine"


class TestErrors:
    def test_a_flag(self, call):
        with pytest.raises(
            TypeError, match=r"^train\(\) has no argument 'sed'\. Did you mean seed\? It has .* trainer, "
        ):
            call(sed=1)

    def test_all_that_is_wrong_with_the_config(self, call, tmp_path):
        with pytest.raises(ConfigError) as error:
            call(trainer="Coop", options={"OPTIM.MAX_EPOCHS": 3, "OPTIM.LR": "much"})
        for said in ("has 3 errors", "Did you mean OPTIM.MAX_EPOCH?", "OPTIM.LR is 'much'", "Did you mean CoOp?"):
            assert said in str(error.value)
        assert not (tmp_path / "run").exists()

    def test_of_a_run_log_has_the_traceback(self, call, tmp_path, capsys):
        with pytest.raises(ValueError, match="^DATASET.NUM_SHOTS is 0"):
            call(options={"DATASET.NUM_SHOTS": 0})
        log = (tmp_path / "run/log.txt").read_text()
        assert "The run ended with an error: DATASET.NUM_SHOTS is 0" in log and "Traceback" in log
        assert "Traceback" not in "".join(capsys.readouterr())


def test_ctrl_c_raises_once_the_state_is_saved(call, tmp_path, monkeypatch):
    expected, handler, steps = call("alone"), signal.getsignal(signal.SIGINT), []

    def watched(trainer, save_if_due=TrainerX.save_if_due):
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        save_if_due(trainer)

    monkeypatch.setattr(TrainerX, "save_if_due", watched)
    with pytest.raises(KeyboardInterrupt, match=r"goes on from here\.$"):
        call()
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (tmp_path / "run/results.json").exists()
    results = call()
    assert len(steps) == 2 * 3
    assert results["accuracy"] == expected["accuracy"]
    assert "Resume after epoch 0, batch 2 " in (tmp_path / "run/log.txt").read_text()


def test_the_call_in_use_md(monkeypatch):
    monkeypatch.chdir(ROOT)
    [block] = re.findall(r"```python\n(from train import train\n.*?)```", (ROOT / "USE.md").read_text(), re.DOTALL)
    cfgs = []
    monkeypatch.setattr(command, "run", lambda cfg, **_: cfgs.append(cfg))
    monkeypatch.setattr(command, "read_results", lambda folder: {"accuracy": 100.0})
    exec(block, {})
    assert (cfgs[0].TRAINER.NAME, cfgs[0].DATASET.NUM_SHOTS, cfgs[0].RUN.CFG) == ("CoOp", 1, "rn50_ep50")


def test_in_another_thread(call):
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    assert results == [call()]
