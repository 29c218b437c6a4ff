"""Runs of methods on features that are stopped end with the same bits as those that are left alone."""

import pytest

from tests.resume.stopping import assert_same, before_step, ended, kill, terminate, train
from tests.support.tiny_run import build_trainer, tiny_cfg

EVERY_STEP = ("TRAIN.RESUME_EVERY_S", 1e-9)
METHODS = {
    "TipAdapterF": ("TEST.FINAL_MODEL", "best_val", "OPTIM.NAME", "adamw"),
    "CLAP": ("TRAINER.CLAP.CONSTRAINT", "adaptative"),
}


@pytest.mark.parametrize("act", [terminate, kill])
@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_goes_on_to_the_same_bits(tiny_files, tmp_path, name, act):
    """In the second of three epochs of three batches; the state is saved after every step."""
    data, clips = tiny_files
    pairs = ("TRAINER.NAME", name, "OPTIM.MAX_EPOCH", 3, "INPUT.VIEWS", 2, *EVERY_STEP, *METHODS[name])

    def build(folder):
        return build_trainer(tiny_cfg(data, clips["vit"], tmp_path / folder, *pairs))

    alone = build("alone")
    assert train(alone)
    expected, stopped = ended(alone), build("stopped")
    before_step(stopped, 5, act)
    assert not train(stopped)
    again = build("stopped")
    assert train(again)
    assert again.resumed is None and again.start_epoch == 1
    assert_same(ended(again), expected)
