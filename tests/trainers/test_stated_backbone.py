"""MODEL.BACKBONE.HEADS and ACTIVATION through a run: used, warned of, part of what it is, found again by an export."""

import json

import pytest
import torch
import torch.nn.functional as F

import clip
import export
from engine.checkpoint import backbone_warning
from engine.config.identity import config_digest
from engine.process_cache import sharing
from inference.classifier import Classifier
from tests.support.tiny_run import build_trainer, run_train, tiny_cfg
from tests.support.tolerance import assert_near

STATED = ("MODEL.BACKBONE.HEADS", "(2, 4)", "MODEL.BACKBONE.ACTIVATION", "gelu")


@pytest.fixture
def cfg_of(tiny_files, tmp_path):
    """cfg_of(name of a folder, KEY, VALUE, ...): the config of a zero-shot run on the small files."""

    def cfg_of(name, *pairs):
        own = ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True, "FEATURES.DIR", "", "TRAINER.ZSCLIP.PREC", "fp32")
        return tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / name, *own, *pairs)

    return cfg_of


def test_a_run_uses_and_tells_what_is_stated_and_its_export_remembers_it(cfg_of, tiny_files, tmp_path):
    results = run_train(cfg_of("run", *STATED))
    assert "The weights vit.pt are not OpenAI's: gelu is stated, and heads, 2 and 4, are stated." in results["warnings"]
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    facts = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (facts["backbone_heads"], facts["backbone_activation"]) == ([2, 4], "gelu")

    images = sorted((tiny_files[0] / "test").glob("*/*.png"))
    model = clip.load(tiny_files[1]["vit"], "cpu", heads=(2, 4), activation="gelu")[0].requires_grad_(False)
    for classifier in (Classifier.from_run(tmp_path / "run"), Classifier.from_export(tmp_path / "out")):
        tower = classifier.trainer.clip_model.visual
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        assert_near(tower(x), model.encode_image(x))
        texts = [f"a photo of a {name.replace('_', ' ')}." for name in classifier.classnames]
        text_features = model.encode_text(clip.tokenize(texts))
        features = classifier.image_features(images)
        cosines = F.normalize(features, dim=-1) @ F.normalize(text_features, dim=-1).t()
        assert_near(classifier.logits(images), model.logit_scale.exp() * cosines)


def test_runs_of_one_process_share_no_clip_that_is_stated_otherwise(cfg_of):
    with sharing():
        models = [build_trainer(cfg_of(str(i), *pairs)).clip_model for i, pairs in enumerate(((), STATED, STATED))]
    assert models[0] is not models[1] is models[2]
    assert [model.transformer.resblocks[0].attn.num_heads for model in models] == [1, 4, 4]


def test_what_is_stated_is_part_of_a_run_and_of_its_checkpoints(cfg_of, tmp_path):
    plain, stated = (cfg_of("run", *pairs) for pairs in ((), STATED))
    assert config_digest(plain) != config_digest(stated)
    learned_with, here = (build_trainer(cfg).backbone_fields(cfg) for cfg in (plain, stated))
    assert backbone_warning(here, here, tmp_path / "model") == ""
    found = backbone_warning(learned_with, here, tmp_path / "model")
    assert "of which other heads or activations are stated: what was learned there means little here." in found
