"""A run's folder: what makes two runs the same, done or not done, and no run written over by another."""

import json

import pytest
import yaml
from yacs.config import CfgNode as CN

from engine.config import identity
from engine.config.defaults import NOT_IN_DIGEST
from engine.config.identity import config_digest
from engine.config.load import ConfigError, flatten, full_default, merge, read_yaml, require
from engine.run.folder import is_done, read_config, read_results, resolve_seed, write_config, write_results
from tests.support.tiny_run import valid_cfg


class TestIdentity:
    @pytest.mark.parametrize("key", sorted(NOT_IN_DIGEST))
    def test_where_and_how_fast_leaves_a_run_the_same(self, key):
        value = flatten(full_default())[key]
        change = {bool: lambda v: not v, str: lambda v: "other", tuple: lambda v: ()}
        other = change.get(type(value), lambda v: v + 1)(value)
        assert config_digest(valid_cfg(**{key.replace(".", "__"): other})) == config_digest(valid_cfg())

    @pytest.mark.parametrize(
        "change",
        [{"SEED": 0}, {"OPTIM__LR": 0.1}, {"RUN__LOAD_EPOCH": 5}, {"TEST__SPLIT": "val"}, {"RUN__DETERMINISTIC": True}],
        ids=str,
    )
    def test_what_is_computed_makes_another_run(self, change):
        assert config_digest(valid_cfg(**change)) != config_digest(valid_cfg())

    def test_the_root_is_the_data_set_where_it_has_no_other_name(self):
        digests = {config_digest(valid_cfg(DATASET__NAME="Folder", DATASET__ROOT=root)) for root in ("a", "b")}
        assert len(digests) == 2

    def test_a_key_that_a_later_version_adds_leaves_old_runs_the_same(self, monkeypatch):
        before = config_digest(valid_cfg(SEED=2))
        later = full_default()
        later.OPTIM.LOOKAHEAD, later.TRAINER.NEW = 5, CN({"N": 1})
        monkeypatch.setattr(identity, "full_default", lambda **_: later.clone())
        assert config_digest(valid_cfg(SEED=2)) != config_digest(valid_cfg())
        cfg, names = later.clone(), {"MODEL.BACKBONE.NAME": "RN50", "TRAINER.NAME": "CoOp", "DATASET.NAME": "Shapes"}
        require(merge(cfg, {**names, "SEED": 2}, "test"))
        assert config_digest(cfg) == before

    def test_equal_values_of_two_keys_are_both_written_out(self, tmp_path):
        """Python makes one tuple of both, and YAML would write an alias for the second, which is not read."""
        size = (64, 64)
        cfg = full_default()
        cfg.INPUT.SIZE = cfg.INPUT.RRCROP_SCALE = size
        cfg.OUTPUT_DIR = str(tmp_path)
        assert "*id" in cfg.dump()
        write_config(cfg)
        read = read_config(tmp_path)
        assert read.INPUT.SIZE == read.INPUT.RRCROP_SCALE == size

    def test_a_config_written_and_read_again_is_the_same(self, tmp_path):
        values = {"OPTIM__LR": 1e-7, "INPUT__TRANSFORMS": ("normalize",), "TRAINER__COOP__CTX_INIT": "2024", "SEED": 0}
        cfg = valid_cfg(OUTPUT_DIR=str(tmp_path), **values)
        write_config(cfg)
        assert (tmp_path / "config.yaml").read_text() == cfg.dump(), "as yacs writes it"
        found = full_default()
        require(merge(found, read_yaml(tmp_path / "config.yaml"), "test"))
        assert found == cfg
        assert config_digest(found) == config_digest(cfg)
        assert yaml.safe_load(cfg.dump())["INPUT"]["TRANSFORMS"] == ["normalize"]


class TestRunFolder:
    def cfg(self, tmp_path, **values):
        return valid_cfg(OUTPUT_DIR=str(tmp_path / "run"), **values)

    def test_empty_folder(self, tmp_path):
        cfg = self.cfg(tmp_path)
        assert not is_done(cfg)
        assert read_config(cfg.OUTPUT_DIR) is None and read_results(cfg.OUTPUT_DIR) is None
        assert not (tmp_path / "run").exists()

    def test_done_with_results_of_the_same_config(self, tmp_path):
        cfg = self.cfg(tmp_path)
        write_config(cfg)
        assert not is_done(cfg)  # started, or killed
        (tmp_path / "run" / "results.json").write_text(json.dumps({"accuracy": 50.0, "config_digest": "0"}))
        assert not is_done(cfg)  # the results are another run's
        write_results(cfg, {"accuracy": 91.5})
        assert is_done(cfg) and is_done(self.cfg(tmp_path, DATALOADER__NUM_WORKERS=0, DATASET__ROOT="/moved"))
        assert read_results(cfg.OUTPUT_DIR) == {"accuracy": 91.5, "config_digest": config_digest(cfg)}

    @pytest.mark.parametrize(
        "left", ["results.json", "resume.pth.tar", "one/model.pth.tar-1", "one/model-best.pth.tar"]
    )
    def test_another_configuration_is_refused_with_the_keys(self, tmp_path, left):
        cfg = self.cfg(tmp_path, OPTIM__LR=0.002)
        write_config(cfg)
        assert not is_done(self.cfg(tmp_path, SEED=2))  # nothing is there that it would spoil
        (tmp_path / "run" / left).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / left).touch()
        with pytest.raises(ConfigError) as error:
            is_done(self.cfg(tmp_path, SEED=2))
        assert str(error.value) == (
            f"The folder {tmp_path}/run holds a run of another configuration. Choose another "
            "--output-dir (OUTPUT for the scripts), or move the old run away. What differs:\n"
            "  - OPTIM.LR is 0.002 there, 0.0003 was asked for\n"
            "  - SEED is 1 there, 2 was asked for"
        )

    @pytest.mark.parametrize(
        "content", [b'{"accuracy": 9', b"", b"[1]", b"\xff", b"[" * 100_000, b'{"correct": ' + b"9" * 10_000 + b"}"]
    )
    def test_results_that_were_cut_short_are_named(self, tmp_path, content):
        cfg = self.cfg(tmp_path)
        write_config(cfg)
        (tmp_path / "run" / "results.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"run/results.json is not JSON .* Delete it to test again"):
            is_done(cfg)

    def test_results_of_an_unknown_configuration_are_not_written_over(self, tmp_path):
        cfg = self.cfg(tmp_path)
        (tmp_path / "run").mkdir()
        write_results(cfg, {"accuracy": 91.5})
        assert is_done(cfg)
        with pytest.raises(ConfigError, match="holds results.json of another configuration"):
            is_done(self.cfg(tmp_path, SEED=2))

    def test_config_of_an_older_version_with_a_key_that_is_gone(self, tmp_path):
        cfg = self.cfg(tmp_path)
        write_config(cfg)
        path = tmp_path / "run" / "config.yaml"
        path.write_text(path.read_text() + "GONE: 5\n")
        assert read_config(cfg.OUTPUT_DIR) == cfg
        assert not is_done(cfg)

    @pytest.mark.parametrize(("asked", "seed"), [(-1, 1234), (0, 0), (7, 7)])
    def test_a_negative_seed_is_replaced_by_the_folders(self, tmp_path, asked, seed):
        write_config(self.cfg(tmp_path, SEED=1234))
        cfg = self.cfg(tmp_path, SEED=asked)
        resolve_seed(cfg)
        assert cfg.SEED == seed

    def test_a_negative_seed_is_fresh_in_a_new_folder(self, tmp_path):
        seeds = set()
        for _ in range(3):
            cfg = self.cfg(tmp_path, SEED=-1)
            resolve_seed(cfg)
            seeds.add(cfg.SEED)
        assert len(seeds) == 3 and min(seeds) >= 0
