"""Dassl's names for data sets, files, meters and the like do what Dassl's do."""

import random

import pytest
import torch

from dassl.config import clean_cfg
from dassl.data import DataManager
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.evaluation import EvaluatorBase, build_evaluator
from dassl.utils import (
    MetricMeter,
    Registry,
    count_num_param,
    listdir_nohidden,
    load_pretrained_weights,
    mkdir_if_missing,
    read_json,
    save_checkpoint,
    tolist_if_not,
    write_json,
)
from engine.config.load import full_default
from engine.evaluation.evaluator import Classification
from tests.datasets.splits.test_few_shot import GOLDEN as FEW_SHOT
from tests.datasets.splits.test_few_shot import golden_items
from tests.support.tiny_run import tiny_cfg


class TestDatasets:
    @pytest.mark.parametrize("pick", FEW_SHOT["picks"], ids=lambda pick: f"seed{pick['seed']}-shots{pick['shots']}")
    def test_few_shots_are_the_originals(self, pick):
        """A data set of the original draws from the global generator, training items first, then val."""
        random.seed(pick["seed"])
        train_x, val = golden_items("train"), golden_items("val")
        empty = DatasetBase(train_x=train_x, test=train_x)
        drawn = empty.generate_fewshot_dataset(train_x, num_shots=pick["shots"])
        assert [item.impath for item in drawn] == pick["train"]
        drawn = empty.generate_fewshot_dataset(val, num_shots=min(pick["shots"], 4))
        assert [item.impath for item in drawn] == pick["val"]

    def test_all_items_several_sources_and_repeats(self):
        items = [Datum("a", 0, classname="x"), Datum("b", 0, classname="x"), Datum("c", 1, classname="y")]
        base = DatasetBase(train_x=items, test=items)
        assert base.generate_fewshot_dataset(items) == items
        first, second = base.generate_fewshot_dataset(items, items[:2], num_shots=1)
        assert [item.label for item in first] == [0, 1] and [item.label for item in second] == [0]
        repeated = base.generate_fewshot_dataset(items, num_shots=4, repeat=True)
        assert [item.label for item in repeated] == [0] * 4 + [1] * 4
        assert base.classnames == ["x", "y"]

    def test_unlabelled_items_are_refused(self):
        items = [Datum("a", 0, classname="x")]
        with pytest.raises(ValueError, match="DatasetBase.train_u has 1 items, but unlabelled"):
            DatasetBase(train_x=items, train_u=items, test=items)

    def test_data_manager(self, tiny_files, tmp_path):
        data, clips = tiny_files
        cfg = tiny_cfg(data, clips["vit"], tmp_path)
        manager = DataManager(cfg)
        assert manager.train_loader_u is None and len(manager.train_loader_x) == 3
        assert build_dataset(cfg).classnames == manager.dataset.classnames
        assert isinstance(build_evaluator(cfg, manager.lab2cname), Classification)


class TestTheRest:
    def test_files(self, tmp_path):
        mkdir_if_missing(tmp_path / "a" / "b")
        write_json({"x": [1, "é"]}, tmp_path / "c" / "x.json")
        assert read_json(tmp_path / "c" / "x.json") == {"x": [1, "é"]}
        (tmp_path / ".hidden").touch()
        assert listdir_nohidden(tmp_path, sort=True) == ["a", "c"]

    def test_counting_parameters(self):
        model = torch.nn.Linear(3, 2)
        assert count_num_param(model) == 8
        assert count_num_param(params=model.weight) == 6
        assert count_num_param(params=list(model.parameters())) == 8
        assert count_num_param(params=[{"params": [model.bias]}, {"params": model.weight}]) == 8

    def test_meters(self):
        meters = MetricMeter(delimiter=", ")
        meters.update({"loss": torch.tensor(1.0, requires_grad=True), "acc": 50})
        meters.update({"loss": 2.0})
        assert (meters.meters["loss"].val, meters.meters["loss"].avg) == (2.0, 1.5)
        assert str(meters) == "loss 2.0000 (1.5000), acc 50.0000 (50.0000)"

    def test_class_names_do_not_come_with_weights(self, tmp_path):
        model = torch.nn.Module()
        model.register_buffer("token_prefix", torch.zeros(2))
        model.ctx = torch.nn.Parameter(torch.zeros(3))
        save_checkpoint({"state_dict": {"ctx": torch.ones(3), "token_prefix": torch.ones(2)}, "epoch": 1}, tmp_path)
        load_pretrained_weights(model, tmp_path / "model.pth.tar-1")
        assert model.ctx.tolist() == [1, 1, 1] and model.token_prefix.tolist() == [0, 0]

    def test_small_things(self):
        assert [tolist_if_not(x) for x in ("ab", [1], (1, 2), 3)] == [["ab"], [1], [1, 2], [3]]
        cfg = full_default()
        clean_cfg(cfg, "CoOp")
        assert set(cfg.TRAINER) == {"NAME", "COOP"}
        with pytest.raises(NotImplementedError):
            EvaluatorBase(cfg).evaluate()
        assert Registry("head").registered_names() == []
