"""What the tests of features start from."""

import pytest

from tests.support.tiny_run import tiny_cfg


@pytest.fixture
def cfg(tiny_files, tmp_path):
    """Returns a function from KEY, VALUE, ... to the config of a tiny run with a cache of its own."""
    data, clips = tiny_files

    def build(*pairs, kind="vit", name="run"):
        keys = ("FEATURES.DIR", str(tmp_path / "cache"), "TRAINER.COCOOP.PREC", "fp32", "TRAINER.COCOOP.N_CTX", 2)
        keys += ("TRAINER.LINEAR_PROBE.PREC", "fp32")
        return tiny_cfg(data, clips[kind], tmp_path / name, *keys, *pairs, kind=kind)

    return build
