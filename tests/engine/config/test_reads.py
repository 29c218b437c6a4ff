"""Options of KEY VALUE pairs reach the method, or the run is refused; a single one that does not is in the results."""

import copy

import pytest
from yacs.config import CfgNode as CN

import train
from engine import TRAINER_REGISTRY
from engine.run.folder import read_results
from trainers.context import ContextTrainer
from trainers.coop import CustomCLIP, PromptLearner

MAIN = ("TRAINER.COOP.N_CTX", "4", "TRAINER.COOP.CSC", "True", "TRAINER.COOP.CLASS_TOKEN_POSITION", "middle")


class Own(ContextTrainer):
    """One context; its options are in a group of its own, and WEIGHT is read in a step."""

    node = "OWN"

    @staticmethod
    def add_config(cfg):
        cfg.TRAINER.OWN = CN({"N_CTX": 2, "CTX_INIT": "", "PREC": "fp32", "CHUNK_ROWS": 0})
        cfg.TRAINER.WEIGHTS = CN({"LOSS": 1.0})

    def context_options(self):
        return self.start_options()

    def prompted_clip(self, clip_model, classnames, **changes):
        return CustomCLIP(clip_model, PromptLearner(clip_model, classnames, **self.context_options()))

    def loss(self, logits, labels):
        return self.cfg.TRAINER.WEIGHTS.LOSS * super().loss(logits, labels)


class ReadsCoOps(Own):
    """Of CoOp's group it reads the number of context vectors alone, as a copy of the config has it."""

    def context_options(self):
        return {"n_ctx": copy.deepcopy(self.cfg).TRAINER.COOP.N_CTX}


class HandsOn(Own):
    """It hands its options on as keyword arguments."""

    def context_options(self):
        return {
            key.lower(): value for key, value in dict(**self.cfg.TRAINER.OWN).items() if key in ("N_CTX", "CTX_INIT")
        }


@pytest.fixture
def call(argv, register, tmp_path):
    """Trains a method for an epoch with these pairs; returns the exit code, n_ctx and what it has not read."""

    def call(method, *pairs):
        register(TRAINER_REGISTRY, method)
        keys = ("OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", "0", *pairs)
        words = argv("run", *keys)
        code = train.main([f"--trainer={method.__name__}" if word.startswith("--trainer=") else word for word in words])
        results = read_results(tmp_path / "run") or {"n_ctx": None, "warnings": []}
        unread = [warning.partition(":")[0] for warning in results["warnings"] if "has not read it" in warning]
        return code, results["n_ctx"], unread

    return call


def test_pairs_of_another_methods_group_are_refused_before_training(call, tmp_path, capsys):
    assert call(Own, *MAIN) == (1, None, [])
    error = capsys.readouterr().err
    given = "TRAINER.COOP.CLASS_TOKEN_POSITION, TRAINER.COOP.CSC, TRAINER.COOP.N_CTX"
    assert f"{given}: given as KEY VALUE pairs, but Own reads nothing of TRAINER.COOP." in error
    own = "TRAINER.OWN.N_CTX, TRAINER.OWN.CTX_INIT, TRAINER.OWN.PREC, TRAINER.OWN.CHUNK_ROWS, TRAINER.WEIGHTS.LOSS"
    assert f"Its own options are: {own}. Give those, or leave the pairs out." in error
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_options_that_are_read_while_building_or_in_a_step_reach_the_method(call):
    assert call(Own, "TRAINER.OWN.N_CTX", "3", "TRAINER.WEIGHTS.LOSS", "2.0") == (0, 3, [])


def test_options_that_are_handed_on_together_are_read(call):
    assert call(HandsOn, "TRAINER.OWN.N_CTX", "3") == (0, 3, [])


def test_a_single_option_that_changed_nothing_is_in_the_results(call):
    pairs = (*MAIN[:4], "TRAINER.COOP.CLASS_TOKEN_POSITION", "end")  # the last is the default
    assert call(ReadsCoOps, *pairs) == (0, 4, ["TRAINER.COOP.CSC is True, but ReadsCoOps has not read it"])


@pytest.mark.parametrize(("group", "key", "value"), [("COCOOP", "N_CTX", "4"), ("LINEAR_PROBE", "PREC", "fp32")])
def test_ours_refuse_them_too(argv, capsys, group, key, value):
    assert train.main(argv("run", f"TRAINER.{group}.{key}", value)) == 1
    message = f"TRAINER.{group}.{key}: given as KEY VALUE pairs, but CoOp reads nothing of TRAINER.{group}."
    assert message in capsys.readouterr().err
