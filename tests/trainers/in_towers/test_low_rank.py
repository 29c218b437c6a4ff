"""CLIP-LoRA: loss and gradients by the formula, on a CLIP with the changes in its weights; dropout; what is refused."""

import copy
import logging
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from clip.blocks import MultiheadAttention
from clip.clip import tokenize
from engine import TRAINER_REGISTRY
from engine.distributed import process_group
from engine.process_cache import sharing
from tests.support.ranks import run_ranks
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import CLASSES, N_ITEMS, build_trainer, tiny_cfg, valid_cfg
from tests.support.tolerance import EXACT, assert_near
from tests.trainers.in_towers.steps import LABELS, assert_step_is, leaves_of
from trainers.low_rank import LowRank, LowRankAttention

TOWERS = {"both": ("text", "vision"), "text": ("text",), "vision": ("vision",)}
ENCODERS = pytest.mark.parametrize("encoder", TOWERS)
BLOCKS = {"text": "transformer.resblocks", "vision": "visual.transformer.resblocks"}
N_BLOCKS, WIDTH = {"text": 3, "vision": 2}, 64  # of the golden CLIP
RANK, ALPHA = 3, 0.7


@pytest.fixture
def build(tiny_files, tmp_path):
    """build(KEY, VALUE, ...): a trainer; the keys are CLIPLORA's, or have their group. No dropout is the default."""

    def build(*pairs, folder="run", kind="vit"):
        own = {"PREC": "fp32", "R": RANK, "ALPHA": ALPHA, "DROPOUT_RATE": 0.0, **dict(zip(pairs[::2], pairs[1::2]))}
        words = [
            word for key, value in own.items() for word in (key if "." in key else f"TRAINER.CLIPLORA.{key}", value)
        ]
        words += ["TRAINER.NAME", "CLIPLoRA", "FEATURES.DIR", ""]
        return build_trainer(tiny_cfg(tiny_files[0], tiny_files[1][kind], tmp_path / folder, *words, kind=kind))

    return build


def spread(trainer):
    """Draws every B, which starts as zeros; returns the trainer."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in trainer.model.prompt_learner.named_parameters():
            if name.endswith("B"):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return trainer


def naive_logits(trainer, leaves, images, dtype):
    """The plain CLIP with scaling B A added to its weights, on all 77 positions of every prompt."""
    weights = copy.deepcopy(trainer.clip_model).to(dtype).state_dict()
    for tower in TOWERS[trainer.cfg.TRAINER.CLIPLORA.ENCODER]:
        for block in range(N_BLOCKS[tower]):
            parts = [(leaves[f"{tower}.{block}.{part}.A"], leaves[f"{tower}.{block}.{part}.B"]) for part in "qkv"]
            change = ALPHA / RANK**0.5 * torch.cat([b @ a for a, b in parts])
            key = f"{BLOCKS[tower]}.{block}.attn.in_proj_weight"
            weights[key] = weights[key] + change
    plain = copy.deepcopy(trainer.clip_model).to(dtype)
    tokens = tokenize([f"a photo of a {name.replace('_', ' ')}." for name in CLASSES])
    return functional_call(plain, weights, (images.to(dtype), tokens))[0]


@ENCODERS
def test_loss_and_gradients_are_the_formulas(build, encoder):
    trainer = spread(build("ENCODER", encoder))
    logits_of = partial(naive_logits, trainer)
    assert_step_is(trainer, lambda *args: F.cross_entropy(logits_of(*args), LABELS))


@ENCODERS
def test_in_float64_they_are_equal(build, encoder):
    trainer = spread(build("ENCODER", encoder))
    leaves, images = leaves_of(trainer, torch.float64), golden_images("vit").double()
    expected = naive_logits(trainer, leaves, images, torch.float64)
    expected.square().sum().backward()
    doubled = trainer.prompted_clip(copy.deepcopy(trainer.clip_model).double(), list(CLASSES)).double()
    doubled.prompt_learner.load_state_dict({name: leaf.detach() for name, leaf in leaves.items()})
    doubled.prompt_learner.requires_grad_(True)
    found = doubled.logit_scale.exp() * F.normalize(doubled.image_encoder(images), dim=-1) @ texts_of(doubled).t()
    found.square().sum().backward()
    assert_near(found, expected, EXACT)
    gradients = {name: value.grad for name, value in doubled.prompt_learner.named_parameters()}
    assert_near(gradients, {name: leaf.grad for name, leaf in leaves.items()}, EXACT)


def texts_of(model):
    return F.normalize(model.encode_prompts(model.prompt_learner.context()), dim=-1)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_torchs_with_the_changes_in_its_weights(is_causal):
    torch.manual_seed(0)
    attention = MultiheadAttention(8, 2).double()
    added = nn.ModuleDict({name: LowRank(8, rank=3, alpha=ALPHA, dropout=0.0) for name in "qkv"}).double()
    x, later = torch.randn(5, 4, 8, dtype=torch.float64), torch.ones(5, 5, dtype=torch.bool).triu(1)  # (L, N, W)
    with torch.no_grad():
        for part in added.values():
            part.B.normal_()
        found = LowRankAttention(attention, added)(x, x, x, need_weights=False, attn_mask=later, is_causal=is_causal)[0]
        change = torch.cat([ALPHA / 3**0.5 * added[name].B @ added[name].A for name in "qkv"])
        attention.in_proj_weight += change
        expected = attention(x, x, x, need_weights=False, attn_mask=later if is_causal else None)[0]
    assert_near(found, expected, EXACT)


@ENCODERS
def test_rank_times_in_and_out_of_three_layers_of_each_block_are_learned(build, encoder):
    trainer = build("ENCODER", encoder)
    n_blocks = sum(N_BLOCKS[tower] for tower in TOWERS[encoder])
    assert trainer.result_fields()["n_params"] == n_blocks * 3 * RANK * (WIDTH + WIDTH)
    starts = trainer.model.prompt_learner.state_dict()
    assert {name.partition(".")[0] for name in starts} == set(TOWERS[encoder])
    drawn = torch.cat([value.flatten() for name, value in starts.items() if name.endswith("A")])
    assert 0.95 * WIDTH**-0.5 < drawn.abs().max() <= WIDTH**-0.5
    assert drawn.std().item() == pytest.approx((3 * WIDTH) ** -0.5, rel=0.05)  # of a uniform distribution


class TestDropout:
    def test_entries_of_the_input_are_dropped_and_the_others_are_larger(self):
        layer = LowRank(1000, rank=1000, alpha=1000**0.5, dropout=0.25)  # the change is B A x
        with torch.no_grad():
            layer.A.copy_(torch.eye(1000))
            layer.B.copy_(torch.eye(1000))
            x = torch.rand(50, 1000) + 1
            torch.manual_seed(0)
            kept = layer(x) / x
            assert_near(layer.eval()(x), x)
        is_kept = kept > 0
        assert_near(kept[is_kept], torch.full_like(kept[is_kept], 4 / 3))
        assert is_kept.float().mean().item() == pytest.approx(0.75, abs=0.01)

    @ENCODERS
    def test_each_step_drops_others_and_a_test_none(self, build, encoder):
        pairs, images = ("ENCODER", encoder, "DROPOUT_RATE", 0.5), golden_images("vit")
        trainer, exact = spread(build(*pairs)), spread(build(*pairs[:2], folder="none"))
        trainer.set_model_mode("train")
        assert not torch.allclose(trainer.model(images), trainer.model(images), rtol=1e-3)
        trainer.set_model_mode("eval")
        assert_near(trainer.model(images), exact.model(images))

    @pytest.mark.slow
    def test_ranks_drop_other_entries(self, build, tmp_path):
        def draw(_):
            with process_group(use_cuda=False), sharing():
                trainer = build("DROPOUT_RATE", 0.5)
                trainer.before_train()
                trainer.set_model_mode("train")
                return spread(trainer).model(golden_images("vit")).detach()

        (_, one), (_, other) = run_ranks(2, draw, tmp_path / "said")
        assert not torch.allclose(one, other, rtol=1e-3)

    def test_chunks_of_the_backward_pass_drop_what_the_forward_pass_has(self, build):
        """Else the gradient would be that of another loss: here of a function that is known by its differences."""
        trainer = spread(build("ENCODER", "text", "DROPOUT_RATE", 0.5, "CHUNK_ROWS", 12))
        trainer.set_model_mode("train")
        learner = trainer.model.double().prompt_learner
        encoder = trainer.model.encode_prompts
        assert len(encoder.packs) > 1
        parameter = learner.text[0]["v"].A

        def loss():
            torch.manual_seed(0)
            return encoder(learner.context()).square().sum()

        [gradient] = torch.autograd.grad(loss(), parameter)
        with torch.no_grad():
            parameter += 1e-5 * gradient
            above = loss()
            parameter -= 2e-5 * gradient
            slope = (above - loss()) / 2e-5
        assert_near(slope, gradient.square().sum(), 1e-6)


def test_chunks_of_the_text_tower_learn_the_same(build):
    learned = []
    for n_rows in (0, 10):
        trainer = spread(build("CHUNK_ROWS", n_rows, folder=str(n_rows)))
        trainer.forward_backward({"img": golden_images("vit"), "label": LABELS})
        learned.append({name: value.grad for name, value in trainer.model.prompt_learner.named_parameters()})
    assert_near(*learned)


@ENCODERS
def test_a_clip_in_bfloat16_gives_nearly_the_same_loss_and_learns_in_float32(build, encoder):
    losses, images = [], golden_images("vit")
    for prec in ("fp32", "bf16"):
        trainer = spread(build("PREC", prec, "ENCODER", encoder, folder=prec))
        losses.append(trainer.forward_backward({"img": images, "label": LABELS})["loss"])
        learner = trainer.model.prompt_learner
        assert {dtype for x in learner.parameters() for dtype in (x.dtype, x.grad.dtype)} == {torch.float32}
    assert torch.isclose(*losses, rtol=0.05)


def test_what_is_not_tuned_is_encoded_once(build):
    trainer = build("ENCODER", "text", "INPUT.VIEWS", 2)
    assert trainer.uses_features and trainer.image_tower() is trainer.model.image_encoder
    trainer.train()
    assert trainer.results["total"] == len(CLASSES) * N_ITEMS["test"]
    assert not build().uses_features
    trainer, calls = build("ENCODER", "vision", folder="vision"), []
    trainer.model.encode_prompts.register_forward_hook(lambda *_: calls.append(1))
    trainer.train()
    assert not calls and not trainer.uses_features


def test_a_test_encodes_the_classes_once(build):
    trainer, calls = build(), []
    trainer.model.encode_prompts.register_forward_hook(lambda *_: calls.append(1))
    trainer.test()
    assert len(trainer.test_loader) > 1 == len(calls)


@pytest.mark.parametrize("shots", [2, -1])
def test_the_log_says_how_many_steps_its_authors_would_do(build, caplog, shots):
    trainer = build("DATASET.NUM_SHOTS", shots)
    with caplog.at_level(logging.INFO):
        trainer.before_train()
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Training steps")]
    assert said == (["Training steps: 2 (its authors': 1,000)"] if shots == 2 else ["Training steps: 6"])


@pytest.mark.parametrize(
    ("key", "value", "was"), [("ALPHA", 2.0, "0.7"), ("R", 2, "3"), ("ENCODER", "vision", "'both'")]
)
def test_what_was_learned_with_other_options_is_refused(build, tmp_path, key, value, was):
    """ALPHA above all: no tensor says it."""
    build().save_model(1)
    with pytest.raises(ValueError, match=rf"CLIPLORA.{key} is {value!r}, but it was {was} when .* Set it so\."):
        build(key, value, folder="other").load_model(tmp_path / "run", epoch=1)


@pytest.mark.parametrize(("key", "value", "was"), [("ALPHA", 2.0, "0.7"), ("R", 2, "3")])
def test_a_start_from_what_was_learned_with_other_options_is_refused(build, tmp_path, key, value, was):
    build().save_model(1)
    path = str(tmp_path / "run/prompt_learner/model.pth.tar-1")
    with pytest.raises(ValueError, match=rf"tar-1: TRAINER.CLIPLORA.{key} is {value!r}, but it was {was} when .*so\."):
        build(key, value, "MODEL.INIT_WEIGHTS", path, folder="other").train()


def test_one_tower_may_start_from_what_was_learned_of_both(build, tmp_path):
    both = spread(build())
    both.save_model(1)
    path = str(tmp_path / "run/prompt_learner/model.pth.tar-1")
    text = build("ENCODER", "text", "MODEL.INIT_WEIGHTS", path, folder="text")
    text.before_train()
    assert_near(
        leaves_of(text, torch.float32), {k: v for k, v in leaves_of(both, torch.float32).items() if k[0] == "t"}, 0
    )


@pytest.mark.parametrize("encoder", ["both", "vision"])
def test_a_resnet_is_refused(build, encoder):
    with pytest.raises(ValueError, match=f"blocks of a ViT .*ENCODER {encoder}, .* a ModifiedResNet.*; or set .* text"):
        build("ENCODER", encoder, kind="rn")


def test_the_text_beside_a_resnet_is_tuned(build):
    assert build("ENCODER", "text", kind="rn").uses_features


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("R", 0, "TRAINER.CLIPLORA.R is 0; it must be at least 1."),
        ("ALPHA", 0.0, "TRAINER.CLIPLORA.ALPHA is 0.0; it must be above 0."),
        ("DROPOUT_RATE", 1.0, "TRAINER.CLIPLORA.DROPOUT_RATE is 1.0; it must be 0 or more, and below 1."),
        ("CHUNK_ROWS", -1, "TRAINER.CLIPLORA.CHUNK_ROWS is -1; it must be 0 (all at once) or more."),
        ("ENCODER", "image", "TRAINER.CLIPLORA.ENCODER is 'image', expected one of: both, text, vision"),
    ],
)
def test_wrong_options_are_refused(key, value, expected):
    cls = TRAINER_REGISTRY.get("CLIPLoRA")
    [error] = cls.config_errors(valid_cfg(**{f"TRAINER__CLIPLORA__{key}": value}))
    assert error.startswith(expected)
