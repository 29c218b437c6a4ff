"""Within `sharing`, runs in one process use one CLIP and one set of features, and end as they would alone."""

import pytest
import torch

from engine.sharing import shared, sharing
from tests.tiny_run import build_trainer, tiny_cfg
from trainers import base


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


@pytest.mark.parametrize("method", ["CoOp", "CoCoOp", "LinearProbe"])
def test_runs_that_share_end_as_alone(tiny_files, tmp_path, method, monkeypatch):
    data, clips = tiny_files
    loaded = []
    load = base.load_clip_to_cpu
    monkeypatch.setattr(base, "load_clip_to_cpu", lambda cfg: loaded.append(cfg.MODEL.BACKBONE.NAME) or load(cfg))

    def run(name, seed, kind="vit"):
        pairs = ("TRAINER.NAME", method, "SEED", seed, "DATASET.NUM_SHOTS", 2, "FEATURES.DIR", "")
        pairs += ("TRAINER.COCOOP.PREC", "fp32", "TRAINER.LINEAR_PROBE.PREC", "fp32", "INPUT.VIEWS", 0)
        trainer = build_trainer(tiny_cfg(data, clips[kind], tmp_path / name, *pairs, kind=kind))
        trainer.train()
        [model] = trainer.models.values()
        return {**model.state_dict(), "results": trainer.results}

    alone = [run("1", 1), run("2", 2), run("rn", 1, "rn"), run("1 again", 1)]
    assert len(loaded) == 4
    loaded.clear()
    with sharing():
        together = [run("s1", 1), run("s2", 2), run("srn", 1, "rn"), run("s1 again", 1)]
    assert loaded == [str(clips["vit"]), str(clips["rn"]), str(clips["vit"])]
    for one, other in zip(alone, together):
        assert one["results"] == other["results"]
        for name in one.keys() - {"results"}:
            # A feature differs in its last bits with the images that are encoded beside it.
            torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)
