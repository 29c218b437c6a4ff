"""Within `sharing`, runs in one process use one CLIP and one set of features, and end as they would alone."""

import copy
import os

import pytest
import torch
from torch import nn

from clip.clip import tokenize
from engine import TRAINER_REGISTRY, build_optimizer
from engine.process_cache import shared, sharing
from tests.support.tiny_run import build_trainer, tiny_cfg, write_clip
from tests.support.tolerance import FIT, assert_near
from trainers import backbone
from trainers.base import PromptTrainer


def test_what_is_shared_is_made_once_and_only_within():
    made = []

    def make():
        made.append(len(made))
        return object()

    assert shared("kind", 1, make) is not shared("kind", 1, make)
    with sharing():
        first = shared("kind", 1, make)
        assert shared("kind", 1, make) is first is not shared("other", 1, make)
        second = shared("kind", 2, make, keep=2)
        assert shared("kind", 1, make, keep=2) is first and shared("kind", 2, make, keep=2) is second
        shared("kind", 3, make, keep=2)  # in place of 1, which was used before 2
        assert shared("kind", 2, make, keep=2) is second and shared("kind", 1, make, keep=2) is not first
    assert len(made) == 7
    with sharing():
        assert shared("kind", 2, make) is not second


@pytest.mark.parametrize("method", ["CoOp", "CoCoOp", "KgCoOp", "ProGrad", "LinearProbe"])
def test_runs_that_share_end_as_alone(tiny_files, tmp_path, method, monkeypatch):
    data, clips = tiny_files
    loaded = []
    load = backbone.load_clip_to_cpu

    def count(cfg, **options):
        loaded.append(cfg.MODEL.BACKBONE.NAME)
        return load(cfg, **options)

    monkeypatch.setattr(backbone, "load_clip_to_cpu", count)

    def run(name, seed, kind="vit"):
        pairs = ("TRAINER.NAME", method, "SEED", seed, "DATASET.NUM_SHOTS", 2, "FEATURES.DIR", "")
        pairs += ("TRAINER.COCOOP.PREC", "fp32", "TRAINER.LINEAR_PROBE.PREC", "fp32", "INPUT.VIEWS", 0)
        trainer = build_trainer(tiny_cfg(data, clips[kind], tmp_path / name, *pairs, kind=kind))
        trainer.train()
        [model] = trainer.models.values()
        return {**model.state_dict(), "results": trainer.results}

    alone = [run("1", 1), run("2", 2), run("rn", 1, "rn")]
    assert len(loaded) == 3
    loaded.clear()
    with sharing():
        together = [run("s1", 1), run("s2", 2), run("srn", 1, "rn"), run("s1 again", 1)]
    assert loaded == [str(clips["vit"]), str(clips["rn"]), str(clips["vit"])]
    for one, other in zip([*alone, alone[0]], together, strict=True):
        assert one["results"]["correct"] == other["results"]["correct"]
        values, others = ({**run.pop("results"), **run} for run in (dict(one), dict(other)))
        for name in values:
            # A feature differs in its last bits with the images that are encoded beside it.
            assert_near(values[name], others[name], FIT if method == "LinearProbe" else None)


def test_weights_that_change_are_loaded_again(tiny_files, tmp_path):
    """Of one size, in a file whose time of change is set back."""
    data, _ = tiny_files
    path = write_clip(tmp_path / "clip.pt")
    cfg, content, changed_ns = tiny_cfg(data, path, tmp_path / "run"), torch.load(path), path.stat().st_mtime_ns
    with sharing():
        first = backbone.load_clip(cfg, "fp32", torch.device("cpu"))
        assert backbone.load_clip(cfg, "fp32", torch.device("cpu")) is first
        torch.save({**content, "visual.proj": -content["visual.proj"]}, path)
        os.utime(path, ns=(changed_ns, changed_ns))
        second = backbone.load_clip(cfg, "fp32", torch.device("cpu"))
    assert torch.equal(second.visual.proj, -first.visual.proj)


class TunedCLIP(nn.Module):
    """A CLIP of whose image tower the last layer norm is trained."""

    def __init__(self, clip_model, texts):
        super().__init__()
        self.clip_model, self.texts = clip_model, texts
        self.prompt_learner = clip_model.visual.ln_post

    def forward(self, images):
        return self.clip_model(images, self.texts)[0]


class Tuned(PromptTrainer):
    """Trains a part of the CLIP that it gets, or of a copy."""

    node, copies = "COOP", True

    def prompted_clip(self, clip_model, classnames, **changes):
        return TunedCLIP(copy.deepcopy(clip_model) if self.copies else clip_model, tokenize(classnames))


class TestTrainingAPartOfCLIP:
    @pytest.fixture
    def run(self, tiny_files, tmp_path, register):
        """Trains a method, which is registered for it, and returns what it has learned."""
        data, clips = tiny_files

        def train(method, name):
            register(TRAINER_REGISTRY, method, "Method")
            pairs = ("TRAINER.NAME", "Method", "DATASET.NUM_SHOTS", 2)
            trainer = build_trainer(tiny_cfg(data, clips["vit"], tmp_path / name, *pairs))
            trainer.train()
            return copy.deepcopy(trainer.models["prompt_learner"].state_dict())

        return train

    def test_on_a_copy_the_second_run_of_a_process_is_one_alone(self, run):
        alone = run(Tuned, "alone")
        with sharing():
            for name in ("first", "second"):
                again = run(Tuned, name)
                assert all(torch.equal(again[key], value) for key, value in alone.items())

    @pytest.mark.parametrize("how", ["a layer norm", "a parameter around its weight", "another model", "a buffer"])
    def test_of_the_loaded_clip_it_is_refused_alone_too(self, run, how):
        class Refused(Tuned):
            copies = how != "a layer norm"

            def prompted_clip(self, clip_model, classnames, **changes):
                model, norm = super().prompted_clip(clip_model, classnames), clip_model.visual.ln_post
                if how == "a parameter around its weight":
                    model.prompt_learner.weight = nn.Parameter(norm.weight.data)
                if how == "a buffer":
                    model.prompt_learner.register_buffer("part", norm.bias[:4])
                return model

            def build_learner(self, **changes):
                super().build_learner(**changes)
                if how == "another model":
                    norm = self.clip_model.visual.ln_post.requires_grad_(True)
                    self.register_model("norm", norm, build_optimizer(norm, self.cfg.OPTIM))

        name, tensor = ("norm" if how == "another model" else "prompt_learner"), r"visual\.ln_post\.(weight|bias)"
        message = rf"^Method's {name} holds {tensor} of the loaded CLIP \(\d tensor\(s\)\), which other "
        with pytest.raises(ValueError, match=message):
            run(Refused, "refused")
