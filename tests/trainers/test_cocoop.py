"""CoCoOp: the plain computation, a batch against its single images, precisions, checkpoints against CoOp's."""

import copy

import pytest
import torch
import torch.nn.functional as F

from clip import build_model
from tests.support.naive import naive_features
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tiny_run import build_trainer, tiny_cfg
from tests.support.tolerance import assert_as_exact, assert_near, distance
from tests.trainers.test_golden import GOLDEN
from tests.trainers.test_precision import check_near_float32, devices, kinds, one_step
from trainers.base import TextEncoder
from trainers.cocoop import CustomCLIP, PromptLearner

NAMES = GOLDEN["classnames"]
TRAINER = ("TRAINER.NAME", "CoCoOp", "TRAINER.COCOOP.PREC", "fp32", "TRAINER.COCOOP.N_CTX", 2)


@pytest.fixture(scope="module")
def clip_model():
    return build_model(golden_state_dict("vit")).requires_grad_(False).eval()


@pytest.fixture
def learner(clip_model):
    torch.manual_seed(3)
    return with_visible_shifts(PromptLearner(clip_model, NAMES, n_ctx=4))


def with_visible_shifts(learner):
    """Draws a Meta-Net whose output differs visibly from image to image."""
    for parameter in learner.meta_net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return learner


def doubled(clip_model, learner):
    """Copies in float64."""
    return copy.deepcopy(clip_model).double(), copy.deepcopy(learner).double()


def naive_logits(clip_model, learner, images):
    """The formula, image by image and position by position."""
    rows = []
    for image in images:
        feature = F.normalize(clip_model.encode_image(image[None]), dim=-1)[0]
        net = learner.meta_net
        hidden = (net.linear1.weight @ feature + net.linear1.bias).clamp(min=0)
        context = learner.ctx + (net.linear2.weight @ hidden + net.linear2.bias)
        texts = F.normalize(naive_features(clip_model, context, NAMES, "end"), dim=-1)
        rows.append(clip_model.logit_scale.exp() * texts @ feature)
    return torch.stack(rows)


def gradients(model, images, labels):
    loss = F.cross_entropy(model(images), labels)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.prompt_learner.parameters()))]


class TestFormula:
    def test_logits(self, clip_model, learner):
        images = golden_images("vit")
        found = CustomCLIP(clip_model, learner)(images)
        assert found.shape == (6, 9) and found.dtype == torch.float32
        exact = naive_logits(*doubled(clip_model, learner), images.double())
        assert_as_exact(found, naive_logits(clip_model, learner, images), exact)
        assert distance(exact[0], exact[1]) > 0.01

    def test_prompts_for_a_text_encoder(self, clip_model, learner):
        features = F.normalize(clip_model.encode_image(golden_images("vit")), dim=-1)
        prompts = learner(features)
        assert prompts.shape == (6, 9, 77, 64)
        encode = TextEncoder(clip_model)
        expected = [naive_features(clip_model, context, NAMES, "end") for context in learner.contexts(features)]
        assert_near([encode(prompt, learner.layout.tokens) for prompt in prompts], expected)

    @pytest.mark.parametrize("chunk_rows", [0, 60, 7], ids=["whole", "few images", "few classes"])
    def test_a_batch_is_the_mean_of_its_images(self, clip_model, learner, chunk_rows):
        images, labels = golden_images("vit"), torch.tensor(GOLDEN["labels"])
        model = CustomCLIP(clip_model, learner, chunk_rows=chunk_rows)
        single = CustomCLIP(clip_model, learner)
        each = [gradients(single, images[i : i + 1], labels[i : i + 1]) for i in range(len(images))]
        mean = [torch.stack(column).mean(dim=0) for column in zip(*each, strict=True)]
        assert_near(gradients(model, images, labels), mean)


def build_in_chunks(clip_model):
    return CustomCLIP(clip_model, with_visible_shifts(PromptLearner(clip_model, NAMES, n_ctx=4)), chunk_rows=60)


@devices
@pytest.mark.parametrize("prec", ["fp16", "bf16", "amp"])
@kinds
def test_half_precision_is_near_float32(kind, prec, device):
    exact = one_step(kind, "fp32", build_in_chunks)
    check_near_float32(prec, one_step(kind, prec, build_in_chunks, device), exact)


@pytest.fixture
def make(tiny_files, tmp_path):
    data, clips = tiny_files
    return lambda *pairs: build_trainer(tiny_cfg(data, clips["vit"], tmp_path / "run", *pairs))


class TestTrainer:
    def test_how_much_it_learns(self, make):
        # ctx 2 x 64; linear1 2 x 32 + 2; linear2 64 x 2 + 64
        assert make(*TRAINER).result_fields() == {"n_params": 128 + 66 + 192, "n_ctx": 2}

    @pytest.mark.parametrize("saved, loaded", [("CoOp", "CoCoOp"), ("CoCoOp", "CoOp")])
    def test_checkpoints_of_the_one_are_refused_by_the_other(self, make, tmp_path, saved, loaded):
        options = {"CoOp": ("TRAINER.NAME", "CoOp"), "CoCoOp": TRAINER}
        trainer = make(*options[saved])
        trainer.save_model(1)
        with pytest.raises(ValueError) as error:
            make(*options[loaded]).load_model(tmp_path / "run", epoch=1)
        message = str(error.value)
        assert f"model.pth.tar-1 of {saved} holds ctx (2, 64)" in message
        assert f"{loaded} expected ctx (2, 64)" in message
        assert "meta_net.linear1.bias (2,)" in message
        assert "give the --trainer and the config it was trained with" in message
