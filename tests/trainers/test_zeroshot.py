"""Zero-shot CLIP: one hand-made prompt and ensembles, by hand from CLIP's text tower."""

import json
from pathlib import Path

import pytest
import torch

from clip import build_model, tokenize
from engine import DATASET_REGISTRY
from tests.support.tiny_clip import golden_state_dict
from tests.support.tiny_run import CLASSES, build_trainer, tiny_cfg, write_clip, write_images
from tests.support.tolerance import GOLDEN_TOLERANCE, assert_near
from trainers import class_features
from trainers.class_features import ensemble_features
from trainers.templates import IMAGENET_TEMPLATES_SELECT

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())
NAMES = ["face", "wine_bottle", "Boeing 737-300"]


@pytest.fixture(scope="module")
def clip_model():
    return build_model(golden_state_dict("vit")).requires_grad_(False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return write_images(folder / "data", splits=("test",)), write_clip(folder / "vit.pt")


@pytest.fixture
def make(files, tmp_path):
    return lambda name, *pairs: build_trainer(
        tiny_cfg(*files, tmp_path / "run", "TRAINER.NAME", name, "RUN.EVAL_ONLY", True, *pairs)
    )


def unit(vectors):
    return vectors / vectors.pow(2).sum(dim=-1, keepdim=True).sqrt()


def by_hand(clip_model, names, templates):
    """Class by class: the mean of the normalised features of its prompts, normalised."""
    rows = []
    for name in names:
        prompts = [template.replace("{}", name.replace("_", " ")) for template in templates]
        features = torch.cat([clip_model.encode_text(tokenize(prompt)) for prompt in prompts])
        rows.append(unit(unit(features).mean(dim=0)))
    return torch.stack(rows)


def accuracy(trainer, classify):
    """Share of the test images, in percent, whose largest logit is their label's."""
    hits = [classify(batch["img"]).argmax(dim=1) == batch["label"] for batch in trainer.test_loader]
    return 100 * torch.cat(hits).double().mean().item()


@pytest.mark.parametrize("kind", ["vit", "rn"])
def test_one_prompt_gives_the_originals_features(kind):
    model = build_model(golden_state_dict(kind))
    expected = torch.tensor(GOLDEN[kind]["text_features_a_photo_of_a"]).view(9, 32)
    with torch.no_grad():
        found = ensemble_features(model, GOLDEN["classnames"], ("a photo of a {}.",))
    assert_near(found, unit(expected), GOLDEN_TOLERANCE)


@pytest.mark.parametrize("at_once", [1, 2, 1024])
def test_ensemble_is_the_formula(clip_model, monkeypatch, at_once):
    monkeypatch.setattr(class_features, "TEXTS_AT_ONCE", at_once)
    found = ensemble_features(clip_model, NAMES, IMAGENET_TEMPLATES_SELECT)
    assert_near(found, by_hand(clip_model, NAMES, IMAGENET_TEMPLATES_SELECT))


def test_logits_are_scaled_cosines(make, clip_model):
    trainer = make("ZeroshotCLIP")
    text_features = by_hand(clip_model, CLASSES, ["a photo of a {}."])

    def classify(images):
        return 20 * unit(clip_model.encode_image(images)) @ text_features.T  # logit_scale is ln 20

    images = torch.randn(2, 3, 32, 32)
    assert_near(trainer.model_inference(images), classify(images), 1e-3)  # the weights behind ln 20 are float16
    assert trainer.test() == pytest.approx(accuracy(trainer, classify))
    assert trainer.results["total"] == 9


class TestTemplates:
    def test_zeroshot_uses_the_data_sets_prompt(self, make, monkeypatch, clip_model):
        monkeypatch.setattr(DATASET_REGISTRY.get("Folder"), "prompt_template", "a centered satellite photo of {}.")
        trainer = make("ZeroshotCLIP")
        expected = by_hand(clip_model, CLASSES, ["a centered satellite photo of {}."])
        assert_near(trainer.text_features, expected)

    def test_ensemble_adds_the_data_sets_prompt_to_the_seven(self, make, clip_model):
        trainer = make("ZeroshotCLIP2")
        assert trainer.templates() == (*IMAGENET_TEMPLATES_SELECT, "a photo of a {}.")
        assert_near(trainer.text_features, by_hand(clip_model, CLASSES, trainer.templates()))

    def test_imagenet_has_the_seven_alone(self, make, register):
        register(DATASET_REGISTRY, DATASET_REGISTRY.get("Folder"), "ImageNet")
        assert make("ZeroshotCLIP2", "DATASET.NAME", "ImageNet").templates() == IMAGENET_TEMPLATES_SELECT

    def test_the_full_list(self, make):
        open_clip = pytest.importorskip("open_clip", reason="open_clip holds the 80 templates")
        found = make("ZeroshotCLIP2", "TRAINER.ZSCLIP.TEMPLATES", "full").templates()
        assert len(found) == len(set(found)) == 80
        assert len(set(IMAGENET_TEMPLATES_SELECT)) == 7 and set(IMAGENET_TEMPLATES_SELECT) <= set(found)
        assert [template.format("cat") for template in found] == [f("cat") for f in open_clip.OPENAI_IMAGENET_TEMPLATES]


class TestConfig:
    @pytest.mark.parametrize("name", ["ZeroshotCLIP", "ZeroshotCLIP2", "TPT"])
    def test_training_is_refused(self, make, name):
        with pytest.raises(ValueError, match=f"{name}, which trains nothing. Add --eval-only."):
            make(name, "RUN.EVAL_ONLY", False)

    def test_unknown_templates(self, make):
        with pytest.raises(ValueError, match="TRAINER.ZSCLIP.TEMPLATES is 'ful', expected one of: select, full"):
            make("ZeroshotCLIP2", "TRAINER.ZSCLIP.TEMPLATES", "ful")

    def test_bf16(self, make, clip_model):
        trainer = make("ZeroshotCLIP", "TRAINER.ZSCLIP.PREC", "bf16")
        expected = by_hand(clip_model, CLASSES, ["a photo of a {}."])
        assert_near(trainer.text_features, expected, 4 * torch.finfo(torch.bfloat16).eps)
        assert trainer.test() == pytest.approx(accuracy(trainer, trainer.model_inference))
