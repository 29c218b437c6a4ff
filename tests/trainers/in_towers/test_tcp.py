"""TCP: its loss and gradients by the formula, KgCoOp where its vectors change nothing, its prompts, what it refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F

from clip.clip import tokenize
from engine import DATASET_REGISTRY, TRAINER_REGISTRY
from tests.clip.test_class_prompts import clip_model as twelve_blocks
from tests.support.naive import naive_features, naive_guided, naive_prompts
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import CLASSES, build_trainer, tiny_cfg, valid_cfg
from tests.support.tolerance import assert_as_exact, assert_near
from trainers import tcp

TCP = ("TRAINER.NAME", "TCP", "TRAINER.TCP.PREC", "fp32", "TRAINER.TCP.N_CTX", 3)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
N_BLOCKS = 3  # of the golden CLIP's text tower
# Data set -> the learned prompt, whose first four words are learned, and the hand-made one: the authors' code.
PROMPTS = {
    "OxfordPets": ("X X X X {}, a type of pet.", "a photo of a {}, a type of pet."),
    "OxfordFlowers": ("X X X X {}, a type of flower.", "a photo of a {}, a type of flower."),
    "FGVCAircraft": ("X X X X {}, a type of aircraft.", "a photo of an aircraft {}."),
    "DescribableTextures": ("X X X X {} texture.", "a photo of a {}, a type of texture."),
    "EuroSAT": ("X X X X {}.", "a centered satellite photo of {}."),
    "StanfordCars": ("X X X X {}, a type of car", "a photo of a {}."),
    "Food101": ("X X X X {}, a type of food.", "a photo of a {}, a type of food."),
    "UCF101": ("X X X X person doing {}.", "a photo of a person doing {}."),
    "Caltech101": ("X X X X {}.", "a photo of a {}."),
    "ImageNet": ("X X X X {}.", "a photo of a {}."),
}


@pytest.fixture
def trainer(tiny_files, tmp_path):
    """trainer(KEY, VALUE, ...): TCP on tiny files."""
    return lambda *pairs: build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path, *TCP, *pairs))


def by_formula(trainer, images, weight, block, words, template, dtype):
    """The loss and the gradients of the learned tensors, from the paper's formula and all positions of every prompt."""
    clip_model = copy.deepcopy(trainer.clip_model).to(dtype)
    learned = trainer.model.prompt_learner.named_parameters()
    leaves = {name: value.detach().to(dtype).requires_grad_() for name, value in learned}
    ctx, w1, b1, w2, b2 = leaves.values()
    texts = tokenize([template.replace("{}", name.replace("_", " ")) for name in CLASSES])
    anchors = F.normalize(clip_model.encode_text(texts), dim=-1)
    hidden = anchors @ w1.t() + b1
    vectors = (hidden * torch.sigmoid(1.702 * hidden)) @ w2.t() + b2
    deep = [None] * (block - 1) + [vectors.view(len(CLASSES), *ctx.shape)]
    text = F.normalize(naive_features(clip_model, ctx, CLASSES, "end", deep, words), dim=-1)
    image = F.normalize(clip_model.encode_image(images.to(dtype)), dim=-1)
    logits = clip_model.logit_scale.exp() * image @ text.t()
    squared = (text - anchors).square().sum(dim=-1).mean()  # of unit vectors, twice the cosine's distance
    loss = F.cross_entropy(logits, LABELS) + weight * squared / 2
    return loss.detach(), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@pytest.mark.parametrize(
    ("block", "words", "template"),
    [(2, "{}.", "a photo of a {}."), (1, "person doing {}, a type of car", "a photo of a person doing {}.")],
)
def test_loss_and_gradients_are_the_formulas(trainer, monkeypatch, block, words, template):
    monkeypatch.setitem(tcp.WORDS, "Folder", words)
    monkeypatch.setitem(tcp.TCP.own_templates, "Folder", template)
    trainer, images = trainer("TRAINER.TCP.W", 3.0, "TRAINER.TCP.BLOCK", block), golden_images("vit")
    (plain, gradients), (exact, exact_gradients) = (
        by_formula(trainer, images, 3.0, block, words, template, dtype) for dtype in (torch.float32, torch.float64)
    )
    loss = trainer.forward_backward({"img": images, "label": LABELS})["loss"]
    assert_as_exact(loss, plain, exact)
    for name, parameter in trainer.model.prompt_learner.named_parameters():
        assert_as_exact(parameter.grad, gradients[name], exact_gradients[name])


def test_with_the_vectors_that_the_tower_has_there_it_is_kgcoop(trainer):
    """They are the states of the context behind the block in front, and the same for all classes."""
    trainer, images = trainer("TRAINER.TCP.BLOCK", 2), golden_images("vit")
    learner = trainer.model.prompt_learner
    prompts, _ = naive_prompts(trainer.clip_model, learner.ctx, CLASSES, "end")
    x = (prompts + trainer.clip_model.positional_embedding).permute(1, 0, 2)  # (C, L, D) -> (L, C, D)
    for block in trainer.clip_model.transformer.resblocks[:2]:
        x = block(x)
    with torch.no_grad():
        learner.meta_net.linear2.weight.zero_()
        learner.meta_net.linear2.bias.copy_(x[1 : 1 + learner.n_ctx, 0].flatten())
    _, logits, _, text, anchors = naive_guided(trainer, images, "a photo of a {}.", torch.float32)
    expected = F.cross_entropy(logits, LABELS) + 8.0 * (1 - (text * anchors).sum(dim=-1).mean())
    assert_near(trainer.model.text_features(), text)
    assert_near(trainer.forward_backward({"img": images, "label": LABELS})["loss"], expected)


@pytest.mark.parametrize("dataset", PROMPTS)
def test_its_prompts_are_the_authors(trainer, monkeypatch, dataset):
    trainer = trainer("TRAINER.TCP.N_CTX", 4)
    monkeypatch.setattr(trainer.dm.dataset, "prompt_template", DATASET_REGISTRY.get(dataset).prompt_template)
    trainer.cfg.defrost()
    trainer.cfg.DATASET.NAME = dataset
    learned, hand_made = PROMPTS[dataset]
    learner = trainer.prompted_clip(trainer.clip_model, list(CLASSES)).prompt_learner
    texts = [learned.replace("{}", name.replace("_", " ")) for name in CLASSES]
    assert torch.equal(learner.layout.tokens, tokenize(texts))
    assert trainer.templates() == (hand_made,)


@pytest.mark.parametrize(("given", "block"), [(0, 8), (3, 3), (11, 11)])
def test_the_vectors_enter_before_block_8_of_12_unless_another_is_named(given, block):
    knowledge = torch.ones(len(CLASSES), 32)
    learner = tcp.PromptLearner(twelve_blocks(torch.float32), list(CLASSES), knowledge, block=given, n_ctx=2)
    *before, vectors = learner.deep()
    assert before == [None] * (block - 1)
    assert vectors.shape == (len(CLASSES), 2, 64)


@pytest.mark.parametrize("block", [-1, N_BLOCKS])
def test_a_block_that_the_tower_has_not_is_refused(trainer, block):
    with pytest.raises(ValueError, match=rf"BLOCK is {block}, but the text tower has 3 blocks; .* from 1 to 2\."):
        trainer("TRAINER.TCP.BLOCK", block)


def test_a_checkpoint_for_another_block_is_refused(trainer, tmp_path):
    trained = trainer("TRAINER.TCP.BLOCK", 1, "TEST.NO_TEST", True)
    trained.train()
    trainer("TRAINER.TCP.BLOCK", 1).load_model(str(tmp_path), 2)
    with pytest.raises(ValueError, match=r"TRAINER\.TCP\.BLOCK is 2, but it was 1 when .* Set it so"):
        trainer("TRAINER.TCP.BLOCK", 2).load_model(str(tmp_path), 2)


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_a_negative_weight_is_refused(weight):
    errors = TRAINER_REGISTRY.get("TCP").config_errors(valid_cfg(TRAINER__TCP__W=weight))
    assert errors == [f"TRAINER.TCP.W is {weight}; it must be 0 (the cross entropy alone) or more."]
