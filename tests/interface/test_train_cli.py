"""train.py: flags and pairs to the config, exit codes, and a clear message for every wrong input."""

import json
import os
import subprocess
import sys

import pytest
import torch

import train
from engine import save_checkpoint
from engine.config.identity import changed_keys, config_digest
from engine.config.load import ConfigError, full_default, settle_paths
from tests.support.script_calls import ROOT
from tests.support.tiny_run import train_flags, write_images
from train import parse_args, setup_cfg


@pytest.fixture
def call(tiny_files, tmp_path, capsys):
    """Calls train.py; a flag that is given replaces the valid one. Returns the exit code, standard output and error."""
    data, clips = tiny_files
    valid = [*train_flags(tmp_path, data, clips["vit"]), f"--output-dir={tmp_path / 'run'}"]

    def run(*pairs, extra=(), **flags):
        words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        keys = ("USE_CUDA", "False", "DATALOADER.NUM_WORKERS", "0", "OPTIM.MAX_EPOCH", "1")
        code = train.main([*valid, *words, *extra, *keys, *map(str, pairs)])
        return code, *capsys.readouterr()

    return run


BEHIND = "1 error:\n  - command line: {} stands behind KEY VALUE pairs. Flags come first: put it before OPTIM.LR."
NAMED = {"DATASET.NAME": "Folder", "TRAINER.NAME": "CoOp", "MODEL.BACKBONE.NAME": "RN50"}


class TestFlags:
    @pytest.fixture
    def config(self, tmp_path):
        """Returns the config of a data set, a trainer and a backbone, and of more words."""
        train_flags(tmp_path, tmp_path, tmp_path)
        needed = [f"--dataset-config-file={tmp_path}/folder.yaml", "--trainer=CoOp", "--backbone=RN50"]
        return lambda *words: setup_cfg(parse_args([*needed, *words]))

    def test_flags_that_are_not_given_change_nothing(self, config):
        assert changed_keys(config()) == NAMED

    @pytest.mark.parametrize(
        ("words", "changed"),
        [
            (["--seed", "0"], {"SEED": 0}),
            (["--seed", "-5"], {"SEED": -5}),
            (["--root", "images"], {"DATASET.ROOT": "images"}),
            (["--output-dir", "2024"], {"OUTPUT_DIR": "2024"}),
            (["--resume", "old"], {"RESUME": "old"}),
            (["--deterministic"], {"RUN.DETERMINISTIC": True}),
            (["--backbone", "ViT-B/16"], {"MODEL.BACKBONE.NAME": "ViT-B/16"}),
            (["--transforms", "random_flip", "normalize"], {"INPUT.TRANSFORMS": ("random_flip", "normalize")}),
            (
                ["--eval-only", "--model-dir", "old", "--load-epoch", "0"],
                {"RUN.EVAL_ONLY": True, "RUN.MODEL_DIR": "old", "RUN.LOAD_EPOCH": 0},
            ),
            (["OPTIM.LR", "1", "INPUT.SIZE", "(32, 32)"], {"OPTIM.LR": 1.0, "INPUT.SIZE": (32, 32)}),
            (["--seed", "3", "SEED", "4"], {"SEED": 4}),  # pairs come last
        ],
        ids=" ".join,
    )
    def test_a_flag_sets_its_key(self, config, words, changed):
        assert changed_keys(config(*words)) == {**NAMED, **changed}

    @pytest.mark.parametrize(
        ("typed", "settled"),
        [
            ("hf:{}/model", "hf:./model"),
            ("hf:./model/", "hf:./model"),
            ("hf:model", "hf:./model"),
            ("hf:OWNER/NAME", "hf:OWNER/NAME"),
            ("open_clip:ViT-B-32/../other.pt", "open_clip:ViT-B-32/{}/other.pt"),
            ("open_clip:ViT-B-32/model/file.pt", "open_clip:ViT-B-32/./model/file.pt"),
            ("open_clip:ViT-B-32/{}/model/file.pt", "open_clip:ViT-B-32/./model/file.pt"),
            ("open_clip:local-dir:model", "open_clip:local-dir:./model"),
            ("open_clip:ViT-B-32/tag", "open_clip:ViT-B-32/tag"),
            ("open_clip:hf-hub:OWNER/NAME", "open_clip:hf-hub:OWNER/NAME"),
            ("hf:", "hf:"),
        ],
    )
    def test_the_path_in_a_backbones_name_has_one_form(self, tmp_path, monkeypatch, typed, settled):
        """From a folder that holds model/config.json, model/file.pt, and by chance a file `tag`."""
        (tmp_path / "model").mkdir()
        for name in ("model/config.json", "model/file.pt", "tag"):
            (tmp_path / name).touch()
        monkeypatch.chdir(tmp_path)
        cfg = full_default()
        cfg.MODEL.BACKBONE.NAME = typed.format(tmp_path)
        settle_paths(cfg)
        assert cfg.MODEL.BACKBONE.NAME == settled.format(tmp_path.parent)

    def test_a_path_is_the_same_however_it_is_typed(self, config, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path.parent)
        typed = (str(tmp_path / "data"), f"{tmp_path.name}/data", f"../{tmp_path.parent.name}/{tmp_path.name}//data/")
        configs = [config("--root", path) for path in typed]
        assert len({config_digest(cfg) for cfg in configs}) == 1
        assert configs[0].DATASET.ROOT == f"{tmp_path.name}/data"

    def test_order_of_files_flags_and_pairs(self, config, tmp_path):
        cfg = config(f"--config-file={tmp_path}/tiny.yaml", "--trainer", "ZeroshotCLIP", "--eval-only")
        assert (cfg.TRAINER.NAME, cfg.OPTIM.LR, cfg.RUN.CFG) == ("ZeroshotCLIP", 0.1, "tiny")
        assert config(f"--config-file={tmp_path}/tiny.yaml", "OPTIM.LR", "0.5").OPTIM.LR == 0.5

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["OPTIM.LR"], "command line: 'OPTIM.LR' has no value. Give KEY VALUE pairs."),
            (["--head", "linear"], "MODEL.HEAD.NAME is 'linear'; only its default, '', is allowed."),
            (["--source-domains", "real"], "DATASET.SOURCE_DOMAINS is ('real',); only its default, (), is allowed."),
            (["--target-domains", "a", "b"], "DATASET.TARGET_DOMAINS is ('a', 'b'); only its default, (), is allowed."),
            (["OPTIM.LR", "0.1", "--seed", "1"], BEHIND.format("--seed")),
            (["OPTIM.LR", "0.1", "--output-dir=a", "SEED", "1"], BEHIND.format("--output-dir")),
            (["OPTIM.LR", "--no-train", "0.1"], BEHIND.format("--no-train")),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_wrong_words(self, config, words, message):
        with pytest.raises(ConfigError) as error:
            config(*words)
        assert message in str(error.value)

    def test_missing_files_are_named_together(self):
        args = train.parse_args(["--config-file", "no/a.yaml", "--dataset-config-file", "no/b.yaml"])
        with pytest.raises(
            ConfigError, match=r"(?s)has 2 errors.*no/b\.yaml does not exist.*no/a\.yaml does not exist"
        ):
            train.setup_cfg(args)


class TestWrongInput:
    """Exit code 1, one message, no traceback on the terminal, and nothing that looks like a run."""

    def refused(self, call, tmp_path, *pairs, **flags):
        code, _, err = call(*pairs, **flags)
        assert code == 1
        assert err.startswith("Error: ") and "Traceback" not in err
        assert not (tmp_path / "run" / "results.json").exists()
        return err

    @pytest.mark.parametrize(
        ("pairs", "flags", "messages"),
        [
            (["DATASET.NAME", "Foldr"], {}, ["The data set is 'Foldr', expected one of", "Did you mean Folder?"]),
            ([], {"trainer": "Coop"}, ["The trainer is 'Coop', expected one of", "Did you mean CoOp?"]),
            ([], {"backbone": "RN5O"}, ["'RN5O'. Name one of RN50", "Did you mean RN50?"]),
            ([], {"backbone": "/no/vit.pt"}, ["/no/vit.pt is missing", "/ exists"]),
            (["INPUT.SIZE", "(224, 224)"], {}, ["INPUT.SIZE is (224, 224), but the resolution of", "is (32, 32)"]),
            (["DATASET.NUM_SHOTS", 0], {}, ["DATASET.NUM_SHOTS is 0"]),
            ([], {"root": ""}, ["DATASET.ROOT is empty", "Pass --root FOLDER"]),
            ([], {"root": "/no/data"}, ["/no/data is missing", "/ exists"]),
            ([], {"config_file": "rn50.yml"}, ["rn50.yml does not exist"]),
            ([], {"resume": "/no/run"}, ["/no/run/prompt_learner/checkpoint does not exist", "Correct --resume"]),
            (["OPTIM.STEPSIZE", "('a',)"], {}, ["OPTIM.STEPSIZE is ('a',); it must hold numbers of epochs"]),
            ([], {"backbone": ""}, ["MODEL.BACKBONE.NAME is empty"]),
            ([], {"model_dir": "old"}, ["--model-dir is old, but this call trains. Add --eval-only"]),
            ([], {"load_epoch": 7}, ["--load-epoch is 7, but there is no --model-dir"]),
            (["RUN.EVAL_ONLY", "True"], {"resume": "old"}, ["--resume is old, but --eval-only trains nothing"]),
            (
                ["RUN.EVAL_ONLY", "True", "TEST.NO_TEST", "True"],
                {},
                ["TEST.NO_TEST is True, but --eval-only"],
            ),
            (["TRAINER.COOP.CTX_INIT", " "], {}, ["TRAINER.COOP.CTX_INIT is ' '. Give words"]),
            ([], {"output_dir": __file__}, [f"--output-dir is {__file__}, which is a file"]),
            (["TRAINER.COOP.N_CTX", 80], {}, ["has 84 tokens with 80 context vectors; at most 77 are allowed"]),
        ],
        ids=lambda value: " ".join(map(str, value)) if isinstance(value, (dict, list)) else None,
    )
    def test_message(self, call, tmp_path, pairs, flags, messages):
        err = self.refused(call, tmp_path, *pairs, **flags)
        for message in messages:
            assert message in err
        assert not (tmp_path / "run" / "config.yaml").exists() or "resume" in flags

    def test_missing_data_of_a_known_data_set(self, call, tmp_path):
        err = self.refused(call, tmp_path, "DATASET.NAME", "Caltech101", root=tmp_path)
        assert f"{tmp_path}/caltech-101" in err and "python -m datasets.prepare Caltech101" in err

    def test_an_image_that_does_not_decode_is_named(self, call, tmp_path):
        broken = write_images(tmp_path / "data") / "test" / "face" / "1.png"
        broken.write_bytes(broken.read_bytes()[:100])
        err = self.refused(call, tmp_path, root=tmp_path / "data")
        assert f"Image {broken} does not decode" in err
        assert "Traceback" in (tmp_path / "run" / "log.txt").read_text()

    def test_checkpoint_of_another_width_leaves_the_folder_free(self, call, tmp_path):
        for width, folder in ((512, "wide"), (64, "right")):
            state = {"state_dict": {"ctx": torch.zeros(2, width)}, "epoch": 5}
            save_checkpoint(state, tmp_path / folder / "prompt_learner")
        evaluate = ["--eval-only", "--load-epoch=5"]
        err = self.refused(call, tmp_path, model_dir=tmp_path / "wide", extra=evaluate)
        assert "holds ctx (2, 512); CoOp expected ctx (2, 64)" in err
        err = self.refused(call, tmp_path, model_dir=tmp_path / "none", extra=evaluate)
        assert "Train first, or check the folder." in err
        code, _, _ = call(model_dir=tmp_path / "right", extra=evaluate)
        assert code == 0

    def test_unknown_flag(self, capsys):
        with pytest.raises(SystemExit) as error:
            train.main(["--epochs", "5"])
        assert error.value.code != 0


@pytest.mark.slow
@pytest.mark.parametrize(("users", "turns"), [({}, "0"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(users, turns):
    """GNU's OpenMP says, when torch loads it, how many turns a thread spins before it sleeps."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **users}
    done = subprocess.run([sys.executable, "train.py"], cwd=ROOT, env=environment, capture_output=True, text=True)
    if "OPENMP DISPLAY ENVIRONMENT" not in done.stderr:
        pytest.skip("this torch has another OpenMP")
    assert f"GOMP_SPINCOUNT = '{turns}'" in done.stderr


class TestRuns:
    def test_train_then_done_then_refused(self, call, tmp_path):
        code, out, err = call(extra=["--load-epoch=-1"])
        assert (code, err) == (0, "")
        assert "* accuracy: " in out
        results = (tmp_path / "run" / "results.json").read_text()
        (tmp_path / "run" / "resume.pth.tar").touch()  # as a kill between the two leaves it
        code, out, _ = call()
        assert code == 0 and out.startswith("Done already: ")
        assert not (tmp_path / "run" / "resume.pth.tar").exists()
        code, _, err = call("OPTIM.LR", 0.5)
        assert code == 1 and "OPTIM.LR is 0.1 there, 0.5 was asked for" in err
        assert (tmp_path / "run" / "results.json").read_text() == results

    def test_the_terminal_shows_what_differs_and_the_log_the_whole_config(self, call, tmp_path):
        _, out, _ = call()
        assert "\n  OPTIM: NAME sgd, LR 0.1, LR_SCHEDULER cosine, MAX_EPOCH 1\n" in out
        assert "ADAM_BETA1" not in out and len(out.splitlines()) < 60
        log = (tmp_path / "run" / "log.txt").read_text().splitlines()
        keys = [line.strip() for line in (tmp_path / "run" / "config.yaml").read_text().splitlines() if ": " in line]
        assert len(keys) > 100
        names = {line.strip().partition(":")[0] for line in log[: log.index("Seed: 1")]}
        assert [key for key in keys if key.partition(":")[0] not in names] == []

    def test_a_failed_start_shows_its_error_without_the_config(self, call, tmp_path):
        code, out, err = call("DATASET.NUM_SHOTS", 0)
        assert (code, out) == (1, "Seed: 1\n") and err.startswith("Error: DATASET.NUM_SHOTS is 0")
        assert "  ADAM_BETA1: 0.9\n" in (tmp_path / "run" / "log.txt").read_text()

    def test_nothing_is_tested_where_nothing_shall_be(self, call, tmp_path):
        assert call("TEST.NO_TEST", True, "TEST.FINAL_MODEL", "best_val")[0] == 0
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        assert [results[key] for key in ("accuracy", "error_rate", "macro_f1", "total", "correct")] == [None] * 5

    def test_resume_goes_on_with_the_same_run_only(self, call, tmp_path):
        assert call("TEST.NO_TEST", True)[0] == 0
        flags = {"resume": tmp_path / "run", "output_dir": tmp_path / "second"}
        code, _, err = call("TEST.NO_TEST", True, "OPTIM.LR", 0.5, **flags)
        assert code == 1 and f"The folder {tmp_path}/run holds a run of another configuration" in err
        assert call("TEST.NO_TEST", True, **flags)[0] == 0

    def test_a_fresh_seed_is_logged_and_kept(self, call, tmp_path):
        assert call(seed=-1)[0] == 0
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        assert results["seed"] >= 0
        assert f"Seed: {results['seed']}\n" in (tmp_path / "run" / "log.txt").read_text()
        assert call(seed=-1)[1].startswith("Done already: ")

    def test_no_train_builds_everything_and_stops(self, call, tmp_path):
        code, out, _ = call(extra=["--no-train"])
        assert code == 0 and "Parameters to be trained: 128" in out
        assert not (tmp_path / "run" / "config.yaml").exists()
        assert not (tmp_path / "run" / "results.json").exists()
        assert not (tmp_path / "run" / "prompt_learner").exists()
