"""Prompts inside the towers: each method's loss and gradients by its formula, what equals what, what is refused."""

import pytest
import torch

from engine import TRAINER_REGISTRY
from engine.config.identity import config_digest
from engine.config.load import ConfigError
from engine.process_cache import sharing
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import build_trainer, tiny_cfg, valid_cfg
from tests.support.tolerance import assert_near
from tests.trainers.in_towers.by_hand import METHODS, WORDS, loss_of, pairs_of
from tests.trainers.in_towers.steps import LABELS, assert_step_is

NO_VISION = ("N_CTX_VISION", 0, "PROMPT_DEPTH_VISION", 0)


@pytest.fixture
def cfg(tiny_files, tmp_path):
    def build(*pairs, folder="run", kind="vit"):
        return tiny_cfg(tiny_files[0], tiny_files[1][kind], tmp_path / folder, *pairs, kind=kind)

    return build


def learned(cfg):
    """Trains, without the test; returns what was learned."""
    trainer = build_trainer(cfg)
    trainer.train()
    return {name: value.detach() for name, value in trainer.model.prompt_learner.named_parameters()}


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradients_are_the_formulas(cfg, name):
    trainer = build_trainer(cfg(*pairs_of(name)))
    assert_step_is(trainer, lambda leaves, images, dtype: loss_of(trainer, leaves, images, LABELS, dtype))


@pytest.mark.parametrize("name", METHODS)
def test_a_clip_in_bfloat16_gives_nearly_the_same_loss_and_trains_vectors_in_float32(cfg, name):
    losses, images = [], golden_images("vit")
    for prec in ("fp32", "bf16"):
        trainer = build_trainer(cfg(*pairs_of(name, "PREC", prec), folder=prec))
        losses.append(trainer.forward_backward({"img": images, "label": LABELS})["loss"])
        assert {parameter.grad.dtype for parameter in trainer.model.prompt_learner.parameters()} == {torch.float32}
    assert torch.isclose(*losses, rtol=0.05)


@pytest.mark.parametrize(("name", "options"), [("DeepLanguage", ()), ("IVLP", NO_VISION)])
def test_with_vectors_in_the_text_alone_and_its_input_it_is_coop(cfg, name, options):
    pairs = ("N_CTX", 4, "CTX_INIT", WORDS)
    coop = [word for key, value in zip(pairs[::2], pairs[1::2]) for word in (f"TRAINER.COOP.{key}", value)]
    expected = learned(cfg(*coop, "TEST.NO_TEST", True, folder="coop"))
    one_block = ("N_CTX_TEXT", 4, "PROMPT_DEPTH_TEXT", 1, *options)
    assert_near(learned(cfg(*pairs_of(name, *one_block), "TEST.NO_TEST", True)), expected)
    two_blocks = learned(cfg(*pairs_of(name, *one_block, "PROMPT_DEPTH_TEXT", 2), "TEST.NO_TEST", True, folder="two"))
    assert not torch.allclose(two_blocks["ctx"], expected["ctx"], atol=1e-3)


def test_maple_with_zero_couplings_is_ivlp_with_zero_vectors_in_the_image_tower(cfg):
    maple, ivlp = (build_trainer(cfg(*pairs_of(name), folder=name)) for name in ("MaPLe", "IVLP"))
    learner, other = maple.model.prompt_learner, ivlp.model.prompt_learner
    with torch.no_grad():
        for name, parameter in (*learner.named_parameters(), *other.named_parameters()):
            if "proj" in name or "vision" in name:
                parameter.zero_()
        other.text[0].copy_(learner.compound_prompts_text[0])
    images = golden_images("vit")
    assert_near(maple.model(images), ivlp.model(images))
    for trainer in (maple, ivlp):
        trainer.forward_backward({"img": images, "label": LABELS})
    assert_near(learner.ctx.grad, other.ctx.grad)
    assert_near(learner.compound_prompts_text[0].grad, other.text[0].grad)


def test_couplings_start_equal_but_for_the_first(cfg):
    learner = build_trainer(cfg(*pairs_of("MaPLe", "PROMPT_DEPTH", 2))).model.prompt_learner
    deeper = type(learner)(build_trainer(cfg()).clip_model, ["face"], depth=3)
    one, other = deeper.compound_prompt_projections
    assert torch.equal(one.weight, other.weight) and not torch.equal(one.weight, deeper.proj.weight)


def test_images_that_have_no_vectors_are_encoded_once(cfg):
    has_features = {name: build_trainer(cfg(*pairs_of(name), folder=name)).uses_features for name in METHODS}
    assert [name for name, is_so in has_features.items() if is_so] == ["DeepLanguage"]
    assert build_trainer(cfg(*pairs_of("IVLP", *NO_VISION))).uses_features


def test_chunks_of_the_text_tower_learn_the_same(cfg):
    whole = learned(cfg(*pairs_of("MaPLe"), "TEST.NO_TEST", True, folder="whole"))
    chunks = learned(cfg(*pairs_of("MaPLe", "CHUNK_ROWS", 8), "TEST.NO_TEST", True, folder="chunks"))
    assert_near(chunks, whole)


@pytest.mark.parametrize("name", ["IVLP", "VPT", "MaPLe", "PromptSRC"])
def test_with_activation_checkpointing_it_is_the_same_run(cfg, name):
    n_calls, runs, digests = [], [], set()
    with sharing():
        for i, value in enumerate((False, True, False)):
            run = cfg(*pairs_of(name, "CHECKPOINT_ACTIVATIONS", value), "TEST.NO_TEST", True, folder=str(i))
            runs.append(learned(run))
            digests.add(config_digest(run))
            trainer, calls = build_trainer(run), []
            block = trainer.clip_model.visual.transformer.resblocks[0]
            handle = block.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
            trainer.forward_backward({"img": golden_images("vit"), "label": LABELS})
            handle.remove()
            n_calls.append(len(calls))
    assert n_calls[1] == n_calls[0] + 1 and n_calls[2] == n_calls[0]  # the shared CLIP stays as it is
    assert len(digests) == 1
    for other in runs[1:]:
        assert all(torch.equal(value, other[key]) for key, value in runs[0].items())


def test_checkpointing_what_keeps_no_activations_is_refused(cfg):
    with pytest.raises(ValueError, match=r"IVLP.CHECKPOINT_ACTIVATIONS is True, but with these .* Leave it out\.$"):
        build_trainer(cfg(*pairs_of("IVLP", *NO_VISION, "CHECKPOINT_ACTIVATIONS", True)))
    with pytest.raises(ConfigError, match=r"TRAINER.DEEP_LANGUAGE.CHECKPOINT_ACTIVATIONS"):
        cfg(*pairs_of("DeepLanguage", "CHECKPOINT_ACTIVATIONS", True))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("IVLP", ("N_CTX_TEXT", 5), r"There are 5 context vectors, but CTX_INIT 'a photo of a' has 4 tokens"),
        ("MaPLe", ("PROMPT_DEPTH", 3), r"TRAINER.MAPLE.PROMPT_DEPTH is 3, but \S+ has 2 blocks that could have"),
        ("DeepLanguage", ("PROMPT_DEPTH_TEXT", 4), r"PROMPT_DEPTH_TEXT is 4, but \S+ has 3 blocks .* at most 3\."),
    ],
)
def test_what_the_towers_cannot_hold_is_refused(cfg, name, options, expected):
    with pytest.raises(ValueError, match=expected):
        build_trainer(cfg(*pairs_of(name, *options)))


@pytest.mark.parametrize("name", ["VPT", "MaPLe"])
def test_vectors_that_were_learned_beside_other_words_are_refused(cfg, tmp_path, name):
    """The words are in the prompts, but not in the checkpoint's tensors."""
    build_trainer(cfg(*pairs_of(name))).save_model(1)
    with pytest.raises(ValueError, match=r"CTX_INIT \('' where .*\) is '', but it was 'a photo of a' when .* Set"):
        build_trainer(cfg(*pairs_of(name, "CTX_INIT", ""), folder="other")).load_model(tmp_path / "run", epoch=1)


def test_other_words_do_not_matter_where_all_were_learned(cfg, tmp_path):
    trainer, other = (
        build_trainer(cfg(*pairs_of("IVLP", "N_CTX_TEXT", 4, "CTX_INIT", words), folder=folder))
        for words, folder in ((WORDS, "run"), ("", "other"))
    )
    trainer.save_model(1)
    other.load_model(tmp_path / "run", epoch=1)
    images = golden_images("vit")
    assert_near(other.model(images), trainer.model(images))


@pytest.mark.parametrize("name", ["IVLP", "VPT", "MaPLe", "PromptSRC"])
def test_a_resnet_is_refused(cfg, name):
    with pytest.raises(ValueError, match=f"{name} puts vectors beside the patches of a ViT .* is a ModifiedResNet"):
        build_trainer(cfg(*pairs_of(name), kind="rn"))


def test_vectors_in_the_text_alone_take_a_resnet(cfg):
    assert build_trainer(cfg(*pairs_of("DeepLanguage"), kind="rn")).uses_features


@pytest.mark.parametrize(
    ("name", "key", "value", "expected"),
    [
        ("MaPLe", "MAPLE.PROMPT_DEPTH", 0, ["TRAINER.MAPLE.PROMPT_DEPTH is 0; it must be at least 1."]),
        (
            "IVLP",
            "IVLP.N_CTX_VISION",
            0,
            ["TRAINER.IVLP.N_CTX_VISION is 0; it must be at least 1, or all that end in VISION 0."],
        ),
        ("VPT", "VPT.N_CTX_VISION", -1, ["TRAINER.VPT.N_CTX_VISION is -1; it must be at least 1."]),
        (
            "IVLP",
            "IVLP.CHUNK_ROWS",
            -2,
            ["TRAINER.IVLP.CHUNK_ROWS is -2; it must be 0 (all at once) or more, or -1 (what the GPU has room for)."],
        ),
        ("MaPLe", "MAPLE.CTX_INIT", "_", ["TRAINER.MAPLE.CTX_INIT is '_'. Give words, or nothing for a random start."]),
        ("PromptSRC", "PROMPTSRC.GPA_STD", 0.0, ["TRAINER.PROMPTSRC.GPA_STD is 0.0; it must be above 0."]),
        (
            "PromptSRC",
            "PROMPTSRC.TEXT_LOSS_WEIGHT",
            -1.0,
            ["TRAINER.PROMPTSRC.TEXT_LOSS_WEIGHT is -1.0; it must be 0 or more."],
        ),
    ],
)
def test_wrong_options_are_refused(name, key, value, expected):
    cls = TRAINER_REGISTRY.get(name)
    assert cls.config_errors(valid_cfg(**{f"TRAINER__{key.replace('.', '__')}": value})) == expected
