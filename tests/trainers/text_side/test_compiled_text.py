"""MODEL.COMPILE in a run: the same is learned; on a CPU it is said to change nothing; the real thing on a GPU."""

import json
from functools import partial

import pytest
import torch

from clip.prompt_layout import lay_out
from clip.prompts import PromptEncoder
from engine import load_checkpoint
from engine.config.identity import config_digest
from tests.support.tiny_run import build_trainer, run_train, tiny_cfg
from tests.trainers.test_precision import check_near_float32, first_step
from trainers.base import PromptTrainer, TextEncoder
from trainers.compiled_prompts import CompiledEncoder
from trainers.context import ShardedPromptEncoder

FP32 = {"CoOp": "COOP", "CoCoOp": "COCOOP", "MaPLe": "MAPLE", "TCP": "TCP"}
SMALL = ("TRAINER.COCOOP.N_CTX", 2, "TRAINER.MAPLE.PROMPT_DEPTH", 2, "TRAINER.MAPLE.N_CTX", 1, "TRAINER.TCP.N_CTX", 2)


@pytest.fixture
def cfg(tiny_files, tmp_path):
    def make(*pairs, folder="run"):
        exact = (word for node in FP32.values() for word in (f"TRAINER.{node}.PREC", "fp32"))
        return tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / folder, *exact, *SMALL, *pairs)

    return make


def learned(trainer):
    trainer.train()
    [file] = (trainer.output_dir / "prompt_learner").glob("model.pth.tar-*")
    return load_checkpoint(file)["state_dict"]


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp", "MaPLe", "TCP"])
def test_a_compiled_run_learns_the_same_under_the_same_names(cfg, name, monkeypatch):
    """The traced operations are run as they are, by torch's backend "eager"."""
    monkeypatch.setattr(PromptTrainer, "eager_reason", lambda trainer: "")
    monkeypatch.setattr(PromptTrainer, "compile_options", {"backend": "eager"})
    pairs = ("TRAINER.NAME", name, "OPTIM.MAX_EPOCH", 1)
    configs = (cfg(*pairs, "MODEL.COMPILE", compile_, folder=str(compile_)) for compile_ in (False, True))
    plain, traced = map(build_trainer, configs)
    expected, found = learned(plain), learned(traced)
    assert traced.model.encode_prompts.compiled_for
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_classes_shared_among_ranks_are_compiled_in_their_own_part(cfg):
    trainer = build_trainer(cfg())
    ctx, layout = trainer.model.prompt_learner.ctx, lay_out(["face", "a"], 2)
    sharded = ShardedPromptEncoder(partial(PromptEncoder, trainer.clip_model), layout, class_specific=False)
    expected = sharded(ctx)
    assert torch.equal(sharded.compiled(backend="eager")(ctx), expected)
    assert isinstance(sharded.encoder, CompiledEncoder) and sharded.encoder.compiled_for


def test_on_a_cpu_it_is_said_to_change_nothing_and_the_run_is_the_same(cfg, tmp_path):
    configs = [cfg("MODEL.COMPILE", compile_, folder=str(compile_)) for compile_ in (True, False)]
    assert config_digest(configs[0]) == config_digest(configs[1])
    for one in configs:
        run_train(one)
    logs, results = (
        [(tmp_path / x / file).read_text() for x in ("True", "False")] for file in ("log.txt", "results.json")
    )
    assert "MODEL.COMPILE changes nothing: there is no GPU" in logs[0] and "MODEL.COMPILE changes" not in logs[1]
    assert json.loads(results[0])["correct"] == json.loads(results[1])["correct"]


@pytest.mark.parametrize(
    ("name", "pairs", "said"),
    [
        ("CoOp", (), ""),
        ("CoCoOp", (), ""),
        ("CoOp", ("RUN.DETERMINISTIC", True), "RUN.DETERMINISTIC is True"),
        ("TPT", ("RUN.EVAL_ONLY", True, "TRAINER.TPT.PREC", "fp32"), "a test alone trains nothing"),
        ("TaskRes", ("TRAINER.TASKRES.PREC", "fp32"), "TaskRes trains no prompts"),
        ("ProGrad", (), "ProGrad stays as it is, since it takes two gradients of one forward pass"),
        ("CLIPLoRA", ("TRAINER.CLIPLORA.ENCODER", "text"), "CLIPLoRA stays as it is, since it learns the towers'"),
    ],
)
def test_why_a_run_stays_as_it_is(cfg, name, pairs, said):
    trainer = build_trainer(cfg("TRAINER.NAME", name, *pairs))
    assert trainer.eager_reason() == "there is no GPU"
    trainer.device = torch.device("cuda")
    found = trainer.eager_reason()
    assert found.startswith(said) and bool(found) == bool(said)


def test_a_methods_own_encoder_stays_as_it_is(cfg):
    trainer = build_trainer(cfg())
    trainer.device, trainer.model.encode_prompts = torch.device("cuda"), TextEncoder(trainer.clip_model)
    assert trainer.eager_reason() == "CoOp trains no prompts through PromptEncoder"


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("name", "prec"), [("CoOp", "fp32"), ("CoOp", "fp16"), ("CoOp", "amp"), ("CoCoOp", "bf16"), ("MaPLe", "fp16")]
)
def test_a_compiled_step_on_a_gpu(cfg, name, prec):
    """The same step, what was kept stays, and no step takes more memory than the one before."""
    pairs = ("TRAINER.NAME", name, f"TRAINER.{FP32[name]}.PREC", prec, "USE_CUDA", True)
    plain, compiled = (build_trainer(cfg(*pairs, "MODEL.COMPILE", compile_)) for compile_ in (False, True))
    batch = next(iter(plain.test_loader))
    check_near_float32(prec, first_step(compiled, batch), first_step(plain, batch))  # two roundings of the same
    encoder, kept, memory = compiled.model.encode_prompts, [], []
    assert encoder.compiled_for
    encoder.register_forward_hook(lambda *args: kept.append([args[-1].detach(), args[-1].detach().clone()]))
    for _ in range(6):
        compiled.forward_backward(batch)
        memory.append(torch.cuda.memory_reserved())
    assert len(kept) == 6 and all(torch.equal(features, before) for features, before in kept)
    assert memory[-1] == memory[2] and not encoder.is_refused
