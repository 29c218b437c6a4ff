"""Contexts of each class: they are only asked about the classes that they were learned on."""

import re

import pytest
import torch
from yacs.config import CfgNode as CN

from engine import load_checkpoint, save_checkpoint
from engine.config.load import full_default
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import CLASSES, build_trainer, tiny_cfg
from tests.support.tolerance import assert_near
from trainers.base import PromptTrainer

CSC = ("TRAINER.COOP.CSC", True)


@pytest.fixture
def make(tiny_files, tmp_path):
    """Builds CoOp on the tiny folder, or on another, whose own folder is tmp_path/run."""

    def build(*pairs, data=None, folder="run"):
        return build_trainer(tiny_cfg(data or tiny_files[0], tiny_files[1]["vit"], tmp_path / folder, *pairs))

    return build


def test_a_checkpoint_says_its_classes_and_trainer(make, tmp_path):
    make(*CSC).save_model(1)
    checkpoint = load_checkpoint(tmp_path / "run/prompt_learner/model.pth.tar-1")
    assert (checkpoint["trainer"], checkpoint["classnames"]) == ("CoOp", list(CLASSES))


@pytest.mark.parametrize(
    "names, shown, expected",
    [
        (["face", "leopard", "teapot"], "3 classes (face ... teapot)", "Folder has 3 (face ... wine_bottle)"),
        (
            ["face", "tiger", "wine_bottle"],
            "3 classes (face ... tiger ... wine_bottle)",
            "Folder has 3 (face ... leopard ... wine_bottle)",
        ),
        (["face", "leopard"], "2 classes (face ... leopard)", "Folder has 3 (face ... wine_bottle)"),
    ],
)
def test_other_classes_are_refused(make, tmp_path, names, shown, expected):
    trainer = make(*CSC)
    trainer.dm.dataset.classnames = names
    trainer.save_model(1)
    with pytest.raises(ValueError) as error:
        make(*CSC).load_model(tmp_path / "run", epoch=1)
    assert f"learned for each of {shown}, but {expected}" in str(error.value)


@pytest.mark.parametrize("names", ["abc", [1, 2, 3], {"face": 0}, [], 3])
def test_what_is_no_list_of_names_is_refused(make, tmp_path, names):
    trainer = make(*CSC)
    trainer.save_model(1)
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-1"
    torch.save({**torch.load(path), "classnames": names}, path)
    with pytest.raises(
        ValueError, match=re.escape(f"`classnames` is {names!r}; it should be a list with the name of each class")
    ):
        trainer.load_model(tmp_path / "run", epoch=1)


class TestSomeOfTheClasses:
    @pytest.fixture
    def make_some(self, make, some_classes):
        return lambda: make(*CSC, "DATASET.NAME", "Some", "RUN.EVAL_ONLY", True, data=some_classes[1], folder="eval")

    def test_their_contexts_are_taken(self, make, make_some, tmp_path):
        learned = make(*CSC)
        learned.save_model(1)
        trainer = make_some()
        trainer.load_model(tmp_path / "run", epoch=1)
        images = golden_images("vit")
        assert_near(trainer.model(images), learned.model(images)[:, [2, 0]])

    def test_without_labels_they_are_found_by_name(self, make, make_some, some_classes, tmp_path):
        learned = make(*CSC)
        learned.save_model(1)
        some_classes[0].source_labels = None
        trainer = make_some()
        trainer.load_model(tmp_path / "run", epoch=1)
        images = golden_images("vit")
        assert_near(trainer.model(images), learned.model(images)[:, [2, 0]])

    @pytest.mark.parametrize("labels", [(1, 0), (0, 3)])
    def test_wrong_labels_are_refused(self, make, make_some, some_classes, tmp_path, labels):
        make(*CSC).save_model(1)
        some_classes[0].source_labels = labels
        with pytest.raises(ValueError, match=r"Some has 2 \(wine_bottle ... face\).*knows no other: test it on the"):
            make_some().load_model(tmp_path / "run", epoch=1)

    @pytest.mark.parametrize("n_rows", [1, 2, 4])
    def test_another_number_of_contexts_than_of_names_is_refused(self, make, make_some, tmp_path, n_rows):
        make(*CSC).save_model(1)
        path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-1"
        checkpoint = torch.load(path)
        checkpoint["state_dict"]["ctx"] = torch.zeros(n_rows, 2, 64)
        torch.save(checkpoint, path)
        with pytest.raises(ValueError) as error:
            make_some().load_model(tmp_path / "run", epoch=1)
        assert str(error.value) == (
            f"{path}: The checkpoint's `ctx` is ({n_rows}, 2, 64), which is not a row for each of its 3 `classnames`. "
            "Name another checkpoint."
        )


@pytest.mark.parametrize("same", [True, False])
def test_without_names_their_tokens_count(make, tmp_path, same):
    """As in the original's checkpoints."""
    trainer = make(*CSC)
    state_dict = {name: value.clone() for name, value in trainer.model.prompt_learner.state_dict().items()}
    if not same:
        state_dict["token_suffix"] = state_dict["token_suffix"].flip(0)
    save_checkpoint({"state_dict": state_dict, "epoch": 1}, tmp_path / "other/prompt_learner")
    if same:
        trainer.load_model(tmp_path / "other", epoch=1)
        return
    with pytest.raises(ValueError, match="`token_suffix` is that of other classes"):
        trainer.load_model(tmp_path / "other", epoch=1)


def test_one_context_for_all_goes_anywhere(make, tmp_path):
    trainer = make()
    trainer.dm.dataset.classnames = ["face", "leopard", "teapot"]
    trainer.save_model(1)
    make().load_model(tmp_path / "run", epoch=1)


@pytest.mark.parametrize(("node", "key"), [("", "TRAINER.NODE.PREC"), ("BARE", "TRAINER.BARE.PREC")])
def test_a_method_without_the_key_of_its_precision_is_told(node, key):
    cfg = full_default()
    cfg.TRAINER.BARE = CN({"N": 1})
    method = type("Bare", (PromptTrainer,), {"node": node})
    assert method.config_errors(cfg) == [f"Bare declares no key {key}. Define `node`, and the key in `add_config`."]
