"""Checkpoints of authors' code test as our own with these values do, or are refused with what they hold."""

import numpy as np
import pytest
import torch

from engine.checkpoint import load_checkpoint, save_checkpoint
from tests.support.tiny_clip import golden_state_dict
from tests.support.tiny_run import build_trainer, own_warnings, run_train, tiny_cfg
from tests.trainers.in_towers.by_hand import pairs_of
from tools.rename_checkpoint import main as rename

OF_BOTH = {
    "ctx": "prompt_learner.ctx",
    "text.0": "text_encoder.transformer.resblocks.1.VPT_shallow",
    "vision.0": "image_encoder.VPT",
    "vision.1": "image_encoder.transformer.resblocks.1.VPT_shallow",
}
OF_MAPLE = ("ctx", "proj.weight", "proj.bias", "compound_prompts_text.0")
OF_MAPLE += ("compound_prompt_projections.0.weight", "compound_prompt_projections.0.bias")
NAMES = {  # the folder of the model there, and what is learned, by our name
    "IVLP": ("VLPromptLearner", OF_BOTH),
    "PromptSRC": ("VLPromptLearner", OF_BOTH),
    "DeepLanguage": (
        "VLPromptLearner",
        {
            "ctx": "prompt_learner.ctx",
            "text.0": "text_encoder.transformer.resblocks.1.VPT_shallow",
            "text.1": "text_encoder.transformer.resblocks.2.VPT_shallow",
        },
    ),
    "VPT": ("prompt_learner", {name: theirs for name, theirs in OF_BOTH.items() if name.startswith("vision")}),
    "MaPLe": ("MultiModalPromptLearner", {name: f"prompt_learner.{name}" for name in OF_MAPLE}),
    "KgCoOp": ("prompt_learner", {"ctx": "ctx"}),
    "TCP": (
        "prompt_learner",
        {key: key for key in ("ctx", *(f"meta_net.linear{i}.{x}" for i in (1, 2) for x in ("weight", "bias")))},
    ),
}
OPTIONS = {
    "KgCoOp": ("TRAINER.NAME", "KgCoOp", "TRAINER.KGCOOP.PREC", "fp32", "TRAINER.KGCOOP.N_CTX", 2),
    "TCP": ("TRAINER.NAME", "TCP", "TRAINER.TCP.PREC", "fp32", "TRAINER.TCP.N_CTX", 2),
}
TEST = ("RUN.EVAL_ONLY", True, "RUN.LOAD_EPOCH", 2, "TEST.SAVE_LOGITS", True)


@pytest.fixture
def cfg(tiny_files, tmp_path):
    def build(name, *pairs, folder="run"):
        options = OPTIONS.get(name) or pairs_of(name)
        return tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / folder, *options, *pairs)

    return build


@pytest.fixture
def ours(cfg, tmp_path):
    """Saves a checkpoint of ours with values that float16 has, and returns its path."""

    def draw(name):
        trainer, rng = build_trainer(cfg(name)), torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in trainer.model.prompt_learner.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng).mul(0.3).half())
        trainer.save_model(2)
        return tmp_path / "run" / "prompt_learner" / "model.pth.tar-2"

    return draw


def frozen():
    """CLIP as it stands in the authors' models, in float16."""
    found = {}
    for key, value in golden_state_dict("vit").items():
        if key.startswith("visual."):
            found[key.replace("visual.", "image_encoder.", 1)] = value.half()
        elif key == "logit_scale":
            found[key] = value
        elif key != "token_embedding.weight":
            found[f"text_encoder.{key}"] = value.half()
    return found


def published(name, path):
    """The state dict that the authors' code would have saved of what is learned in one of ours."""
    state = load_checkpoint(path)["state_dict"]
    _, names = NAMES[name]
    found = {theirs: state[own].half() for own, theirs in names.items()}
    reference = {key: value.half() for key, value in state.items() if key.startswith("token_")}
    if name == "KgCoOp":
        unused = {"bias_vectors": (1, 512), "meta_net.linear1.weight": (512, 512), "meta_net.linear1.bias": (512,)}
        return {**found, **reference, **{key: torch.ones(shape).half() for key, shape in unused.items()}}
    if name == "TCP":
        return {**found, **reference}
    whole = {**frozen(), **found, **{f"prompt_learner.{key}": value for key, value in reference.items()}}
    if name == "PromptSRC":
        tower = {key.removeprefix("image_encoder."): value for key, value in frozen().items() if "image_encoder" in key}
        whole |= {f"prompt_learner.ZS_image_encoder.{key}": value for key, value in tower.items()}
    return whole


def save(state_dict, folder):
    return save_checkpoint({"state_dict": state_dict, "epoch": 2, "optimizer": None, "val_result": None}, folder)


def logits(folder):
    return np.load(folder / "logits.npz")["logits"]


@pytest.mark.parametrize("name", NAMES)
def test_they_test_as_our_own_with_these_values_to_the_bit(cfg, ours, tmp_path, name):
    path = ours(name)
    save(published(name, path), tmp_path / "theirs" / NAMES[name][0])
    run_train(cfg(name, *TEST, "RUN.MODEL_DIR", str(tmp_path / "run"), folder="own"))
    results = run_train(cfg(name, *TEST, "RUN.MODEL_DIR", str(tmp_path / "theirs"), folder="published"))
    assert np.array_equal(logits(tmp_path / "published"), logits(tmp_path / "own"))
    assert own_warnings(results) == [] and results["epoch"] == 2


def load(trainer, folder):
    """Loads a model for a test; returns what is warned of."""
    trainer.load_model(folder, epoch=2)
    return list(trainer.warnings)


def refusal(trainer, folder):
    with pytest.raises(ValueError) as error:
        trainer.load_model(folder, epoch=2)
    return str(error.value)


@pytest.mark.parametrize("name", ["MaPLe", "PromptSRC"])
def test_other_weights_of_clip_are_warned_of_and_rounded_ones_are_not(cfg, ours, tmp_path, name):
    trainer, whole = build_trainer(cfg(name)), published(name, ours(name))
    weights = torch.linspace(1, 2, 20, dtype=torch.float64).softmax(0)
    averaged = {key: sum(value * float(weight) for weight in weights) for key, value in whole.items()}  # in float16
    assert not torch.equal(averaged["image_encoder.proj"], whole["image_encoder.proj"])
    assert load(trainer, save(averaged, tmp_path / "rounded" / "Model").parents[1]) == []
    whole["image_encoder.proj"] = whole["image_encoder.proj"] * 1.1
    assert load(trainer, save(whole, tmp_path / "other" / "Model").parents[1]) == [
        "The checkpoint holds other weights of CLIP than the backbone has (image_encoder.proj differs by 10%): what "
        "was learned means little here. Name the backbone that it was trained with."
    ]


def test_vectors_of_more_blocks_than_the_config_has_are_refused(cfg, ours, tmp_path):
    whole = published("IVLP", ours("IVLP"))
    whole["text_encoder.transformer.resblocks.2.VPT_shallow"] = torch.ones(2, 64)
    folder = save(whole, tmp_path / "theirs" / "VLPromptLearner").parents[1]
    message = refusal(build_trainer(cfg("IVLP")), folder)
    assert message.startswith(
        f"{folder}/VLPromptLearner/model.pth.tar-2: It holds text_encoder.transformer.resblocks.2.VPT_shallow (2, 64), "
        "which the method does not have with this config. Give the --trainer, the backbone and the config"
    )
    trainer = build_trainer(cfg("IVLP", "TRAINER.IVLP.PROMPT_DEPTH_TEXT", 3))
    trainer.load_model(folder, epoch=2)
    assert torch.equal(trainer.model.prompt_learner.text[1], torch.ones(2, 64))


def test_of_unknown_names_the_shapes_say_which_could_be_which_and_a_tool_renames_them(cfg, ours, tmp_path, capsys):
    path = ours("VPT")
    own = load_checkpoint(path)["state_dict"]
    theirs = {"prompts.1": own["vision.0"].half(), "prompts.2": own["vision.1"].half(), "head": torch.ones(7)}
    file = save({**frozen(), **theirs}, tmp_path / "theirs" / "Prompts")
    trainer = build_trainer(cfg("VPT"))
    assert refusal(trainer, tmp_path / "theirs") == (
        f"{file}: It lacks vision.0 (there: image_encoder.VPT), vision.1 (there: "
        "image_encoder.transformer.resblocks.1.VPT_shallow) of shape (2, 64); of that shape there is prompts.1, "
        "prompts.2. It holds head (7,), which the method does not have with this config. Give the --trainer, the "
        "backbone and the config that it was trained with. If it only calls its entries otherwise, write those that "
        "are needed under their own names: python -m tools.rename_checkpoint FILE FOLDER NAME=ENTRY ..."
    )
    words = [str(file), str(tmp_path / "renamed"), "vision.0=prompts.1", "vision.1=prompts.2"]
    assert rename(words) == 0
    assert capsys.readouterr().out == f"{tmp_path}/renamed/prompt_learner/model.pth.tar-2\n"
    assert load(trainer, tmp_path / "renamed") == []
    assert torch.equal(trainer.model.prompt_learner.vision[1], own["vision.1"])
    assert rename([*words[:2], "vision.0=prompt.1"]) == 1
    assert capsys.readouterr().err == f"Error: {file} has no entry 'prompt.1'. Did you mean prompts.1?\n"


def test_cocoops_network_is_not_the_one_that_kgcoop_leaves_unused(cfg, ours, tmp_path):
    state = published("KgCoOp", ours("KgCoOp")) | {"meta_net.linear2.weight": torch.ones(64, 4)}
    save(state, tmp_path / "theirs" / "prompt_learner")
    assert "It holds meta_net.linear2.weight (64, 4)" in refusal(build_trainer(cfg("KgCoOp")), tmp_path / "theirs")


def test_of_several_models_none_is_taken_for_the_one_that_is_missing(cfg, ours, tmp_path):
    for name in ("A", "B"):
        save(published("MaPLe", ours("MaPLe")), tmp_path / "theirs" / name)
    with pytest.raises(FileNotFoundError, match=r"theirs/prompt_learner/model\.pth\.tar-2 does not exist"):
        build_trainer(cfg("MaPLe")).load_model(tmp_path / "theirs", epoch=2)


@pytest.mark.parametrize(("learned_by", "tested_as"), [("TipAdapter", "TipAdapterF"), ("CoOp", "KgCoOp")])
def test_a_model_of_another_method_is_told(cfg, tmp_path, learned_by, tested_as):
    build_trainer(cfg("KgCoOp", "TRAINER.NAME", learned_by, "TRAINER.TIP_ADAPTER.PREC", "fp32")).save_model(2)
    trainer = build_trainer(cfg("KgCoOp", "TRAINER.NAME", tested_as, "TRAINER.TIP_ADAPTER.PREC", "fp32"))
    assert load(trainer, tmp_path / "run") == [
        f"The checkpoint was learned by {learned_by} and is tested as {tested_as}. Unless that is meant, give the "
        "--trainer that it was trained with."
    ]
