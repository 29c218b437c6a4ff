"""engine/determinism.py: the same bits on a GPU; on a CPU nothing changes; what cannot repeat itself is refused."""

import os

import pytest
import torch

import train
from engine.config.identity import config_digest
from engine.device import deterministic
from engine.log import close_logging
from tests.support.tiny_run import build_trainer, tiny_cfg

CHECKPOINT = "prompt_learner/model.pth.tar-2"


def settings():
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark


def learned(folder):
    return torch.load(folder / CHECKPOINT, weights_only=True)["state_dict"]["ctx"]


def test_settings_are_made_and_taken_back(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = settings()
    with deterministic(True):
        assert settings() == (True, True, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")  # what torch takes
    assert settings() == before == (False, False, True)


def test_nothing_is_set_where_it_is_not_wanted():
    before = settings()
    with deterministic(False):
        assert settings() == before


def test_settings_are_taken_back_after_an_error(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    before = settings()
    with pytest.raises(ZeroDivisionError), deterministic(True):
        _ = 1 / 0
    assert settings() == before


def test_an_operation_without_a_repeatable_form_is_named(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    message = (
        r"^RUN\.DETERMINISTIC is True, but torch's put_ has no deterministic form on this "
        r"device\. Leave --deterministic out, or set USE_CUDA False\.$"
    )
    with pytest.raises(ValueError, match=message), deterministic(True):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def test_another_error_stays_what_it_is(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"), deterministic(True):
        torch.ones(2, 3) @ torch.ones(2, 3)


@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp"])
def test_on_a_cpu_it_changes_no_bit(tiny_files, tmp_path, monkeypatch, trainer):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    for name, wanted in (("without", False), ("with", True)):
        pairs = ("TRAINER.NAME", trainer, "TRAINER.COCOOP.PREC", "fp32", "TEST.NO_TEST", True)
        cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / name, *pairs, "RUN.DETERMINISTIC", wanted)
        with deterministic(wanted):
            build_trainer(cfg).train()
    assert torch.equal(learned(tmp_path / "with"), learned(tmp_path / "without"))


def test_the_log_says_what_it_costs(tiny_files, tmp_path):
    data, clips = tiny_files
    for name, wanted in (("with", True), ("without", False)):
        pairs = ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True, "RUN.DETERMINISTIC", wanted)
        try:
            train.run(tiny_cfg(data, clips["vit"], tmp_path / name, *pairs))
        finally:
            close_logging()
        line = "Deterministic: every operation repeats its bits, which costs time and memory on a GPU\n"
        assert (line in (tmp_path / name / "log.txt").read_text()) == wanted


def test_a_run_made_without_it_is_another_run(tiny_files, tmp_path):
    configs = [
        tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path, "RUN.DETERMINISTIC", wanted) for wanted in (True, False)
    ]
    assert config_digest(configs[0]) != config_digest(configs[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp"])
@pytest.mark.parametrize("prec", ["fp32", "fp16", "amp"])
def test_two_runs_on_a_gpu_are_the_same_bits(tiny_files, tmp_path, trainer, prec):
    pairs = ("USE_CUDA", True, "RUN.DETERMINISTIC", True, "TRAINER.NAME", trainer, "TEST.NO_TEST", True)
    for name in ("one", "other"):
        precisions = ("TRAINER.COOP.PREC", prec, "TRAINER.COCOOP.PREC", prec)
        cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / name, *pairs, *precisions)
        with deterministic(True):
            build_trainer(cfg).train()
    assert torch.equal(learned(tmp_path / "one"), learned(tmp_path / "other"))
