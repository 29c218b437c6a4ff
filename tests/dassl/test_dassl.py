"""The facade `dassl`: a trainer file in the original's form runs unmodified, and computes what our CoOp computes."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode as CN

import train
from clip import clip
from dassl.engine import SimpleTrainer, TrainerBase, TrainerX, build_trainer
from dassl.utils import (
    listdir_nohidden,
    load_checkpoint,
    save_checkpoint,
)
from engine import TRAINER_REGISTRY
from engine.config.plugins import plugins
from tests.clip.test_load import SAVERS
from tests.support.tiny_clip import golden_state_dict
from tests.support.tiny_run import tiny_cfg
from tests.support.tolerance import assert_near

# The original's files call what torch has deprecated since.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated", "ignore:.*CUDA is not available")

ROOT = Path(__file__).parents[2]
PLUGIN = Path(__file__).parent / "original_trainer.py"
LR_CASES = json.loads((Path(__file__).parents[1] / "golden" / "lr.json").read_text())
TRAINING = (
    "DATALOADER: {NUM_WORKERS: 0, TRAIN_X: {BATCH_SIZE: 4}}\n"
    'INPUT: {SIZE: "(32, 32)", TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]}\n'
    "OPTIM: {NAME: sgd, LR: 0.1, MAX_EPOCH: 3, LR_SCHEDULER: cosine}\n"
    "TRAIN: {CHECKPOINT_FREQ: 1, PRINT_FREQ: 1}\n"
    "TRAINER: {COOP: {N_CTX: 2, PREC: fp32}}\n"
)
OPTIONS = "TRAINER: {PLAINCOOP: {N_CTX: 2, PREC: fp32}}\n"
EXTEND_CFG = """

def extend_cfg(cfg):
    from yacs.config import CfgNode as CN

    cfg.TRAINER.COOP = CN()
    cfg.TRAINER.COOP.N_CTX = 16
    cfg.TRAINER.PLAINCOOP = CN()
    cfg.TRAINER.PLAINCOOP.N_CTX = 2
    cfg.TRAINER.PLAINCOOP.PREC = "fp32"
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The YAML files of a run, a context to start from, and the plug-in with its options in it."""
    folder = tmp_path_factory.mktemp("dassl")
    (folder / "training.yaml").write_text(TRAINING)
    (folder / "folder.yaml").write_text("DATASET: {NAME: Folder}\n")
    (folder / "options.yaml").write_text(OPTIONS)
    (folder / "with_options.py").write_text(PLUGIN.read_text() + EXTEND_CFG)
    ctx = 0.02 * torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    torch.save(
        {"state_dict": {"ctx": ctx, "token_prefix": torch.zeros(3, 1, 64)}, "epoch": 0}, folder / "start.pth.tar"
    )
    return folder


@pytest.fixture
def call(files, tiny_files, tmp_path, capsys):
    """Calls train.py for a trainer; returns the exit code, standard output and error."""
    data, clips = tiny_files

    def run(trainer, *pairs, output="run", plugin=PLUGIN, options="options.yaml", extra=()):
        words = [f"--trainer={trainer}", f"--root={data}", f"--backbone={clips['vit']}", "--seed=1"]
        words += [f"--output-dir={tmp_path / output}", f"--config-file={files}/training.yaml"]
        words += [f"--dataset-config-file={files}/folder.yaml"]
        words += [f"--plugin={plugin}"] if plugin else []
        words += [f"--plugin-config={files}/{options}"] if options else []
        code = train.main([*words, *map(str, extra), "USE_CUDA", "False", *map(str, pairs)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def make(files, tiny_files, tmp_path):
    """Builds the plug-in's trainer; KEY, VALUE, ... change its config."""
    data, clips = tiny_files

    def build(*pairs, folder="run"):
        return build_trainer(tiny_cfg(data, clips["vit"], tmp_path / folder, "TRAINER.NAME", "PlainCoOp", *pairs))

    with plugins([PLUGIN.as_posix()], [files / "options.yaml"]):
        yield build


def results_in(folder):
    return json.loads((folder / "results.json").read_text())


def context_in(folder, epoch):
    return load_checkpoint(folder / "prompt_learner" / f"model.pth.tar-{epoch}")["state_dict"]["ctx"]


class TestRun:
    """Through train.py, from the command line to results.json."""

    def test_it_learns_what_our_coop_learns(self, call, files, tmp_path):
        """The same start, images and steps: its 77 positions and our shared ones give the same context."""
        start = ("MODEL.INIT_WEIGHTS", files / "start.pth.tar")
        code, out, err = call("PlainCoOp", *start, output="plain")
        assert code == 0, err
        assert "Number of context words (tokens): 2" in out
        assert call("CoOp", *start, output="ours", plugin=None, options=None)[0] == 0
        contexts = [load_checkpoint(files / "start.pth.tar")["state_dict"]["ctx"]]
        for epoch in (1, 2, 3):
            plain, ours = (context_in(tmp_path / name, epoch) for name in ("plain", "ours"))
            assert_near(plain, ours)
            contexts.append(plain)
        assert (contexts[3] - contexts[0]).abs().max() > 1e-2
        plain, ours = results_in(tmp_path / "plain"), results_in(tmp_path / "ours")
        for key in ("accuracy", "macro_f1", "total", "epoch", "source", "dataset", "seed", "n_params"):
            assert plain[key] == ours[key], key
        assert (plain["trainer"], plain["n_params"]) == ("PlainCoOp", 2 * 64)

    def test_the_originals_own_coop(self, call, files, tmp_path):
        """A file that defines CoOp goes before ours and finds its options without declaring any."""
        text = PLUGIN.read_text().replace("PLAINCOOP", "COOP").replace("PlainCoOp", "CoOp")
        (files / "coop.py").write_text(text)
        code, out, err = call("CoOp", "OPTIM.MAX_EPOCH", 1, plugin=files / "coop.py", options=None)
        assert code == 0, err
        assert "Number of context words (tokens): 2" in out
        assert results_in(tmp_path / "run")["trainer"] == "CoOp"

    def test_evaluation_of_a_trained_run(self, call, tmp_path):
        assert call("PlainCoOp", "TEST.FINAL_MODEL", "best_val")[0] == 0
        trained = results_in(tmp_path / "run")
        for epoch, output in ((2, "second"), (None, "best")):
            extra = ["--eval-only", f"--model-dir={tmp_path}/run"] + ([f"--load-epoch={epoch}"] if epoch else [])
            code, out, err = call("PlainCoOp", output=output, extra=extra)
            assert code == 0, err
            tested = results_in(tmp_path / output)
            assert tested["epoch"] == (epoch or trained["epoch"])
            assert tested["source"] == "Folder"
            if not epoch:
                assert (tested["accuracy"], tested["macro_f1"]) == (trained["accuracy"], trained["macro_f1"])

    @pytest.mark.slow
    def test_the_file_in_trainers(self, tmp_path, files, tiny_files):
        """Without --plugin: a copy of the project with the file among ours, and its options in it.

        `extend_cfg` resets the group of CoOp: the keys there are stay.
        """
        data, clips = tiny_files
        for name in ("clip", "dassl", "datasets", "engine", "trainers"):
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "train.py", tmp_path)
        shutil.copy(files / "with_options.py", tmp_path / "trainers" / "plain_coop.py")
        words = f"--trainer PlainCoOp --root {data} --backbone {clips['vit']} --seed 1 --output-dir run".split()
        words += ["--config-file", files / "training.yaml", "--dataset-config-file", files / "folder.yaml"]
        done = subprocess.run(
            [sys.executable, "train.py", *words, "USE_CUDA", "False", "TRAINER.COOP.CHUNK_ROWS", "8"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert results_in(tmp_path / "run")["trainer"] == "PlainCoOp"
        assert "PLAINCOOP:\n    N_CTX: 2\n    PREC: fp32\n" in (tmp_path / "run" / "config.yaml").read_text()

    def test_the_example_in_contributing(self, files, tiny_files, tmp_path, monkeypatch, capsys):
        page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        section = page.split("## Run a trainer written for the original\n")[1].split("\n## ")[0]
        [options], [command] = (re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("yaml", "bash"))
        text = PLUGIN.read_text().replace("PLAINCOOP", "MYMETHOD").replace("PlainCoOp", "MyMethod")
        (tmp_path / "my_trainer.py").write_text(text)
        (tmp_path / "my_options.yaml").write_text(options)
        monkeypatch.chdir(tmp_path)
        data, clips = tiny_files
        command = (
            command.replace("$DATA", str(data)).replace("caltech101", "folder").replace("configs/", f"{ROOT}/configs/")
        )
        words = shlex.split(command.replace("\\\n", " "))
        assert words[:2] == ["python", "train.py"]
        small = f"MODEL.BACKBONE.NAME {clips['vit']} OPTIM.MAX_EPOCH 1 DATALOADER.NUM_WORKERS 0 USE_CUDA False".split()
        assert train.main([*words[2:], "INPUT.SIZE", "(32, 32)", *small]) == 0, capsys.readouterr().err
        assert results_in(tmp_path / "output/my_method")["n_params"] == 16 * 64


class TestMessages:
    def refused(self, call, *pairs, trainer="PlainCoOp", **options):
        code, _, err = call(trainer, *pairs, **options)
        assert code == 1 and err.startswith("Error: ") and "Traceback" not in err
        return err

    def test_options_that_nothing_declares(self, call):
        err = self.refused(call, options=None)
        assert "PlainCoOp reads the option TRAINER.PLAINCOOP, which nothing declares" in err
        assert "--plugin-config FILE.yaml" in err

    @pytest.mark.parametrize(
        ("pairs", "message"),
        [
            (["TRAINER.PLAINCOOP.PREC", "fp64"], 'assert cfg.TRAINER.PLAINCOOP.PREC in ["fp16", "fp32", "amp"] ('),
            (["INPUT.SIZE", "(48, 48)"], "INPUT.SIZE (48) must be CLIP's (32) ("),
        ],
    )
    def test_what_the_method_asserts(self, call, pairs, message):
        err = self.refused(call, *pairs)
        assert f"PlainCoOp refuses the config: {message}" in err and "original_trainer.py, line" in err

    def test_an_epoch_that_was_not_saved(self, call, tmp_path):
        call("PlainCoOp")
        err = self.refused(call, output="eval", extra=["--eval-only", f"--model-dir={tmp_path}/run", "--load-epoch=9"])
        assert "model.pth.tar-9 does not exist" in err and "Saved epochs: 1, 2, 3" in err

    def test_a_checkpoint_of_another_shape(self, call, tmp_path):
        save_checkpoint({"state_dict": {"ctx": torch.zeros(5, 64)}, "epoch": 1}, tmp_path / "old" / "prompt_learner")
        err = self.refused(call, output="eval", extra=["--eval-only", f"--model-dir={tmp_path}/old", "--load-epoch=1"])
        assert "model.pth.tar-1 does not fit PlainCoOp" in err and "size mismatch for ctx" in err

    def test_a_run_of_a_plugin_is_no_other_run(self, call, files):
        """Its options are part of what it is, at their defaults too; and so is the plug-in."""
        assert call("PlainCoOp", "OPTIM.MAX_EPOCH", 1)[0] == 0
        (files / "others.yaml").write_text(OPTIONS.replace("2", "3"))
        err = self.refused(call, "OPTIM.MAX_EPOCH", 1, options="others.yaml")
        assert "TRAINER.PLAINCOOP.N_CTX is 2 there, 3 was asked for" in err
        err = self.refused(call, "OPTIM.MAX_EPOCH", 1, trainer="CoOp", plugin=None, options=None)
        assert "original_trainer.py',) there, () was asked for" in err
        assert "TRAINER.NAME is 'PlainCoOp' there, 'CoOp' was asked for" in err
        err = self.refused(call, "OPTIM.MAX_EPOCH", 1, plugin=None, options=None)
        assert "The trainer is 'PlainCoOp', expected one of:" in err
        assert "Name a trainer outside trainers/ with --plugin." in err

    def test_the_key_is_the_flags(self, call):
        err = self.refused(call, "RUN.PLUGINS", "('a.py',)", trainer="CoOp", plugin=None)
        assert "RUN.PLUGINS is ('a.py',), but only --plugin sets it. Give the flag." in err


class TestTrainer:
    @pytest.mark.parametrize("case", [LR_CASES[1], LR_CASES[3]], ids=lambda case: case["warmup_type"])
    def test_the_method_alone_steps_the_schedule(self, make, case):
        trainer = make(
            *("OPTIM.MAX_EPOCH", case["max_epoch"], "OPTIM.LR", case["lr"], "OPTIM.WARMUP_EPOCH", case["warmup_epoch"]),
            *("OPTIM.WARMUP_TYPE", case["warmup_type"], "DATALOADER.TRAIN_X.BATCH_SIZE", 12, "TEST.NO_TEST", True),
        )
        rates, step = [], trainer.forward_backward

        def watched(batch):
            rates.append(trainer.get_current_lr())
            return step(batch)

        trainer.forward_backward = watched
        trainer.train()
        assert rates == pytest.approx(case["lrs"], rel=1e-9)
        assert trainer._scheds["prompt_learner"].last_epoch == case["max_epoch"]

    @pytest.mark.parametrize("prec", ["fp16", "amp"])
    def test_precisions_of_a_gpu_run_on_a_cpu(self, make, prec):
        trainer = make("TRAINER.PLAINCOOP.PREC", prec, "OPTIM.MAX_EPOCH", 1, "TRAIN.CHECKPOINT_FREQ", 1)
        trainer.train()
        assert not trainer.scaler.is_enabled()
        assert trainer.results["total"] == 9

    def test_what_the_method_evaluates_itself_is_kept(self, make):
        trainer = make()
        trainer.evaluator.reset()
        trainer.evaluator.process(torch.eye(3), torch.tensor([0, 1, 0]))
        trainer.evaluator.evaluate()
        assert trainer.results["accuracy"] == pytest.approx(200 / 3)

    def test_saving_in_both_forms(self, make, tmp_path):
        trainer = make()
        trainer.save_model(2, val_result=50.0)  # the loop's: after two epochs
        trainer.save_model(2, tmp_path / "own", val_result=50.0)  # the method's: in epoch 2, counted from 0
        trainer.save_model(2, tmp_path / "own", model_name="model-best.pth.tar")
        trainer.save_model(5, tmp_path / "own", model_name="last.pth")
        assert listdir_nohidden(tmp_path / "run/prompt_learner", sort=True) == ["checkpoint", "model.pth.tar-2"]
        names = listdir_nohidden(tmp_path / "own/prompt_learner", sort=True)
        assert names == ["checkpoint", "last.pth", "model-best.pth.tar", "model.pth.tar-3"]
        assert (tmp_path / "own/prompt_learner/checkpoint").read_text() == "model.pth.tar-3\n"  # to resume from
        assert load_checkpoint(tmp_path / "own/prompt_learner/last.pth")["epoch"] == 6

    def test_a_step_in_parts_is_the_step_at_once(self, make):
        torch.manual_seed(0)
        parts = make()
        torch.manual_seed(0)
        whole = make()
        images, labels = parts.parse_batch_train(next(iter(parts.train_loader_x)))
        whole.model_backward_and_update(torch.nn.functional.cross_entropy(whole.model_inference(images), labels))
        parts.model_zero_grad()
        parts.model_backward(torch.nn.functional.cross_entropy(parts.model_inference(images), labels))
        parts.model_update("prompt_learner")
        assert torch.equal(parts.model.prompt_learner.ctx, whole.model.prompt_learner.ctx)
        with pytest.raises(FloatingPointError, match=r"The loss is nan"):
            parts.model_backward(torch.tensor(float("nan")))

    def test_scalars_go_to_tensorboard_only_while_training(self, make, tmp_path):
        trainer = make()
        trainer.write_scalar("train/x", 1.0, trainer.epoch)
        trainer.close_writer()
        trainer.init_writer(tmp_path / "board")
        trainer.write_scalar("train/x", 1.0, 0)
        trainer.close_writer()
        assert listdir_nohidden(tmp_path / "board")

    def test_one_class_for_three_names(self):
        assert TrainerX is SimpleTrainer is TrainerBase


class TestLoadClip:
    """The function `load_clip_to_cpu` as the original's files write it, on every kind of weights file."""

    @pytest.mark.parametrize("kind", ["torchscript", "state_dict", "before_torch_1.6", "npz"])
    def test_a_path(self, kind, tmp_path, monkeypatch, make):
        monkeypatch.setenv("HOME", str(tmp_path))
        SAVERS[kind](tmp_path / "weights")
        load = sys.modules[TRAINER_REGISTRY.get("PlainCoOp").__module__].load_clip_to_cpu
        for _ in range(2):  # the second time, the copy of an .npz is there
            model = load(CN({"MODEL": {"BACKBONE": {"NAME": str(tmp_path / "weights")}}}))
            for key, value in model.state_dict().items():
                assert torch.equal(value, golden_state_dict("vit")[key])
        assert (tmp_path / ".cache").exists() == (kind == "npz")

    def test_ours_under_the_name_that_files_in_trainers_import(self, tmp_path):
        from trainers.coop import TextEncoder, load_clip_to_cpu

        SAVERS["state_dict"](tmp_path / "weights")
        model = load_clip_to_cpu(CN({"MODEL": {"BACKBONE": {"NAME": str(tmp_path / "weights")}}}))
        assert model.dtype == torch.float32 and model.positional_embedding.device.type == "cpu"
        tokens = clip.tokenize(["a photo of a face."])
        prompts = model.token_embedding(tokens)
        assert_near(TextEncoder(model)(prompts, tokens), model.encode_text(tokens))

    def test_the_embedded_model_and_unknown_names(self):
        assert clip._MODELS["ViT-T/8-shapes"].endswith("shapes.npz")
        assert "ViT-T/8-shapes" not in clip._MODELS
        with pytest.raises(ValueError, match="'RN5O'. Name one of RN50.*Did you mean RN50"):
            clip._MODELS["RN5O"]
