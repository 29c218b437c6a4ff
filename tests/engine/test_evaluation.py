"""Testing and loading through the real trainers; every registered trainer does its work once."""

import hashlib
import json
import shutil

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from engine import load_checkpoint, save_checkpoint
from engine.checkpoint import BEST
from engine.config.identity import config_digest
from engine.config.load import ConfigError
from engine.log import close_logging, environment
from engine.run.results import MEASURES, results_of
from tests.resume.stopping import save_at
from tests.support.tiny_run import N_ITEMS, build_trainer, tiny_cfg, write_images
from tests.support.tolerance import assert_near


@pytest.fixture
def cfg(tiny_files, tmp_path):
    """Makes a config whose folder is tmp_path/run; KEY, VALUE, ... change it."""
    return lambda *pairs, kind="vit", folder="run": tiny_cfg(
        tiny_files[0], tiny_files[1][kind], tmp_path / folder, *pairs, kind=kind
    )


@pytest.fixture
def make(cfg):
    return lambda *pairs, **options: build_trainer(cfg(*pairs, **options))


def curve(run, name):
    """The points (step, value) of a scalar that TensorBoard shows."""
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def saved(folder, **state_dict):
    """A checkpoint of epoch 2 in a run's folder; shapes given, values drawn."""
    state_dict = {name: torch.randn(shape) for name, shape in state_dict.items()}
    save_checkpoint({"state_dict": state_dict, "epoch": 2}, folder / "prompt_learner")
    return state_dict


class TestEvaluation:
    @pytest.mark.parametrize("split", ["test", "val"])
    def test_split(self, make, split):
        trainer = make("TEST.SPLIT", split)
        assert trainer.test() == trainer.results["accuracy"]
        assert trainer.results["total"] == 3 * N_ITEMS[split]
        assert not trainer.model.prompt_learner.training

    def test_text_features_are_computed_once(self, make):
        trainer = make("DATALOADER.TEST.BATCH_SIZE", 2)
        calls = []
        trainer.model.encode_prompts.register_forward_hook(lambda *args: calls.append(1))
        for n_evaluations in (1, 2):
            trainer.test()
            assert len(calls) == n_evaluations
        images = torch.randn(2, 3, 32, 32)
        trainer.model_inference(images)
        assert len(calls) == 3  # outside of an evaluation the context may have changed
        assert_near(trainer.model_inference(images), trainer.model(images))

    def test_a_split_that_is_not_there(self, tiny_files, tmp_path):
        data = write_images(tmp_path / "data", splits=("train", "test"))
        for key, value, items in (
            ("TEST.SPLIT", "val", "such items"),
            ("TEST.FINAL_MODEL", "best_val", "validation items"),
        ):
            with pytest.raises(ValueError, match=f"{key} is {value}, but the data set Folder has no {items}"):
                build_trainer(tiny_cfg(data, tiny_files[1]["vit"], tmp_path / "run", key, value))

    def test_nothing_to_train_on(self, tiny_files, tmp_path):
        arguments = write_images(tmp_path / "data", splits=("test",)), tiny_files[1]["vit"], tmp_path / "run"
        with pytest.raises(ValueError, match="Folder has no training items. .* give --eval-only"):
            build_trainer(tiny_cfg(*arguments))
        assert build_trainer(tiny_cfg(*arguments, "RUN.EVAL_ONLY", True)).test() >= 0

    def test_input_size_of_another_backbone(self, make):
        with pytest.raises(ValueError, match=r"SIZE is \(224, 224\), but the resolution of .*rn.pt is \(64, 64\)"):
            make("INPUT.SIZE", (224, 224), kind="rn")


class TestLoading:
    def test_the_trained_context(self, make, tmp_path):
        trained = make()
        trained.train()
        trainer = make("SEED", 5, folder="eval")
        trainer.load_model(tmp_path / "run", epoch=2)
        assert torch.equal(trainer.model.prompt_learner.ctx, trained.model.prompt_learner.ctx)
        assert trainer.epochs_done == 2
        trainer.test()
        assert trainer.results == trained.results

    def test_without_an_epoch_the_best_though_it_is_a_state_dict_alone(self, make, tmp_path):
        saved(tmp_path / "run", ctx=(2, 64))
        torch.save({"state_dict": {"ctx": torch.ones(2, 64)}}, tmp_path / "run" / "prompt_learner" / BEST)
        trainer = make()
        trainer.load_model(tmp_path / "run")
        assert (trainer.model.prompt_learner.ctx == 1).all()
        trainer.test()
        assert trainer.epochs_done is None and trainer.results["total"] == 9

    def test_class_names_of_the_checkpoint_are_ignored(self, make, tmp_path):
        """A context that was learned on other classes is tested on these."""
        state_dict = saved(tmp_path / "run", ctx=(2, 64), token_prefix=(10, 1, 64), token_suffix=(10, 74, 64))
        trainer = make()
        suffix = trainer.model.prompt_learner.token_suffix.clone()
        trainer.load_model(tmp_path / "run", epoch=2)
        assert torch.equal(trainer.model.prompt_learner.ctx, state_dict["ctx"])
        assert torch.equal(trainer.model.prompt_learner.token_suffix, suffix)

    def test_the_number_of_context_vectors_is_the_checkpoints(self, make, tmp_path, caplog):
        state_dict = saved(tmp_path / "run", ctx=(5, 64))
        saved(tmp_path / "start", ctx=(4, 64))
        start = ("MODEL.INIT_WEIGHTS", str(tmp_path / "start" / "prompt_learner" / "model.pth.tar-2"))
        trainer = make("TRAINER.COOP.CTX_INIT", "a photo of a", "TRAINER.COOP.N_CTX", 4, *start)
        trainer.load_model(tmp_path / "run", epoch=2)
        assert torch.equal(trainer.model.prompt_learner.ctx, state_dict["ctx"])
        assert trainer.result_fields()["n_ctx"] == 5
        assert "The checkpoint has 5 context vectors, the config 4" in caplog.messages
        assert trainer.test() >= 0

    @pytest.mark.parametrize(
        ("options", "state_dict"),
        [
            ((), {"ctx": (2, 512)}),  # another backbone
            (("TRAINER.COOP.CSC", True), {"ctx": (10, 2, 64)}),  # another number of classes
            (("TRAINER.COOP.CSC", True), {"ctx": (2, 64)}),
            ((), {"ctx": (3, 2, 64)}),
            ((), {"ctx": (2, 64), "meta_net.linear1.weight": (2, 32)}),  # another trainer
            ((), {"linear.weight": (3, 32)}),
            ((), {"ctx": (64,)}),  # no context vectors
        ],
        ids=["width", "classes", "unified", "csc", "CoCoOp", "probe", "none"],
    )
    def test_a_checkpoint_that_does_not_fit(self, make, tmp_path, options, state_dict):
        saved(tmp_path / "run", **state_dict)
        with pytest.raises(ValueError) as error:
            make(*options).load_model(tmp_path / "run", epoch=2)
        for name, shape in state_dict.items():
            assert f"{name} {shape}" in str(error.value)
        assert "expected ctx (" in str(error.value)
        assert "another trainer, backbone, context or class list" in str(error.value)

    def test_a_context_for_another_position_is_refused(self, make, tmp_path):
        make("TRAINER.COOP.CLASS_TOKEN_POSITION", "middle").train()
        trainer = make(folder="eval")
        with pytest.raises(ValueError, match="CLASS_TOKEN_POSITION is 'end', but it was 'middle' when"):
            trainer.load_model(tmp_path / "run", epoch=2)
        make("TRAINER.COOP.CLASS_TOKEN_POSITION", "middle", folder="eval").load_model(tmp_path / "run", epoch=2)
        path = tmp_path / "run/prompt_learner/model.pth.tar-2"
        checkpoint = load_checkpoint(path)
        torch.save({**checkpoint.pop("learned_with"), **checkpoint}, path)  # as they were written before
        with pytest.raises(ValueError, match="CLASS_TOKEN_POSITION is 'end', but it was 'middle' when"):
            trainer.load_model(tmp_path / "run", epoch=2)
        saved(tmp_path / "original", ctx=(2, 64))  # which does not say
        trainer.load_model(tmp_path / "original", epoch=2)

    @pytest.mark.parametrize("method", ["CoOp", "LinearProbe"])
    def test_weights_of_another_clip_are_doubted(self, make, tiny_files, tmp_path, method):
        pairs = ("TRAINER.NAME", method, "TRAINER.LINEAR_PROBE.PREC", "fp32")
        make(*pairs).train()
        weights = torch.load(tiny_files[1]["vit"])
        shutil.copy(tiny_files[1]["vit"], tmp_path / "copy.pt")
        torch.save({**weights, "logit_scale": weights["logit_scale"] + 1}, tmp_path / "other.pt")
        warnings = {}
        for name in ("copy.pt", "other.pt"):
            trainer = make(*pairs, "MODEL.BACKBONE.NAME", str(tmp_path / name), folder="eval")
            trainer.load_model(tmp_path / "run", epoch=2 if method == "CoOp" else None)
            trainer.test()
            warnings[name] = [text for text in results_of(trainer)["warnings"] if "whose weights are others" in text]
        assert warnings["copy.pt"] == []
        [warning] = warnings["other.pt"]
        assert f"trained with '{tiny_files[1]['vit']}' and is tested with {tmp_path}/other.pt" in warning

    def test_init_weights_start_the_context_and_nothing_else(self, make, tmp_path, caplog):
        caplog.set_level("INFO", logger="engine")
        shapes = {"token_prefix": (3, 1, 64), "token_suffix": (3, 74, 64)}
        state_dict = saved(tmp_path / "old", ctx=(2, 64), **shapes)
        path = tmp_path / "old" / "prompt_learner" / "model.pth.tar-2"
        learner = make("MODEL.INIT_WEIGHTS", str(path)).model.prompt_learner
        assert f"Start from {path}: ctx; as it starts otherwise: nothing" in caplog.messages
        assert torch.equal(learner.ctx, state_dict["ctx"])
        assert not torch.equal(learner.token_suffix, state_dict["token_suffix"])
        make("TRAINER.NAME", "CoCoOp", "TRAINER.COCOOP.N_CTX", 2, "MODEL.INIT_WEIGHTS", str(path))
        assert "otherwise: meta_net.linear1.bias, meta_net.linear1.weight, meta_net.linear2" in caplog.text
        message = r"No entry of .* fits the model: it has ctx \(2, 64\), .*; expected ctx \(4, 64\)\."
        with pytest.raises(ValueError, match=message):
            make("MODEL.INIT_WEIGHTS", str(path), "TRAINER.COOP.N_CTX", 4)


def test_nothing_is_saved_that_is_no_number(make, tmp_path):
    """The update of the last step, after which no loss is computed."""
    trainer = make()
    trainer.save_model(1)
    there = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.tar-*")}
    trainer.model.prompt_learner.ctx.data[1, 3] = torch.nan
    for save in (lambda: trainer.save_model(2), lambda: save_at(trainer, 1, 2)):
        message = "prompt_learner's ctx holds NaN after epoch 1, batch 1, so it is not saved"
        with pytest.raises(FloatingPointError, match=message):
            save()
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.tar*")} == there


def test_a_model_that_was_trained_anew_is_tested_anew(argv, tmp_path, capsys):
    def call(folder, *flags):
        assert train.main([*flags, *argv(folder, "DATALOADER.NUM_WORKERS", "0", "OPTIM.MAX_EPOCH", "1")]) == 0
        return capsys.readouterr().out

    def test():
        said = call("eval", "--eval-only", f"--model-dir={tmp_path}/run", "--load-epoch=1")
        return said, json.loads((tmp_path / "eval" / "results.json").read_text())

    call("run")
    _, first = test()
    said, again = test()
    assert "Done already" in said and again == first
    shutil.rmtree(tmp_path / "run")
    torch_file = tmp_path / "run/prompt_learner/model.pth.tar-1"
    call("run")
    said, same = test()  # the same bits
    digest = hashlib.sha256(torch_file.read_bytes()).hexdigest()
    assert same["provenance"]["model_sha256"] == digest
    ctx = load_checkpoint(torch_file)
    save_checkpoint({**ctx, "state_dict": {**ctx["state_dict"], "ctx": -ctx["state_dict"]["ctx"]}}, torch_file.parent)
    said, other = test()
    assert "has changed, and they are made anew: the model that was tested" in said
    assert json.loads((tmp_path / "eval" / "results-before.json").read_text()) == same
    assert other["provenance"]["model_sha256"] not in (first["provenance"]["model_sha256"], digest)
    torch_file.unlink()
    assert "Done already" in test()[0]  # what is not there cannot be tested


class TestFilesOfARun:
    def test_results_log_and_config(self, cfg, tmp_path, capsys):
        config = cfg("RUN.CFG", "tiny", "DATASET.NUM_SHOTS", 2)
        train.run(config)
        close_logging()
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        assert results["accuracy"] == pytest.approx(100 * results["correct"] / 9)
        assert results["error_rate"] == pytest.approx(100 - results["accuracy"])
        accuracy = results["accuracy"]
        for measure in MEASURES:  # evaluation/test_evaluator.py
            del results[measure]
        del results["warnings"], results["provenance"], results["cost"]  # test_warnings.py, test_provenance.py
        del results["selection"], results["setting"], results["digests"]  # test_selection.py
        settings = results.pop("settings")
        assert settings["OPTIM.LR"] == 0.02 and not settings.keys() & {"SEED", "RUN.MODEL_DIR", "OUTPUT_DIR", "RUN.CFG"}
        assert results == {
            "split": "test",
            "trainer": "CoOp",
            "dataset": "Folder",
            "source": "Folder",
            "seed": 1,
            "shots": 2,
            "cfg": "tiny",
            "backbone": config.MODEL.BACKBONE.NAME,
            "n_ctx": 2,
            "n_params": 128,
            "csc": False,
            "epoch": 2,
            "class_token_position": "end",
            "subsample": "all",
            "trained_with": None,
            "config_digest": config_digest(config),
        }
        log = (tmp_path / "run" / "log.txt").read_text()
        for line in ("=> result\n* total: 9\n", "\n* accuracy: ", "\nFinish training\n", "\nSeed: 1\n"):
            assert line in log
        assert "epoch [2/2] batch [1/1] time " in log
        before, _, after = capsys.readouterr().out.partition("Config, where it differs from the defaults:\n")
        shown, _, after = after.partition(f"{environment()}\n")
        assert "  OPTIM: NAME sgd, LR 0.02, LR_SCHEDULER cosine, MAX_EPOCH 2\n" in shown
        assert log == f"{config}\n{environment()}\n{before}{after}"  # the whole config is in the log alone
        assert curve(tmp_path / "run", "test/accuracy") == [(1, pytest.approx(accuracy))]
        assert curve(tmp_path / "run", "train/lr") == [(0, pytest.approx(0.02)), (1, pytest.approx(0.01))]

        with pytest.raises(ConfigError, match="OPTIM.LR is 0.02 there, 0.5 was asked for"):
            train.run(cfg("RUN.CFG", "tiny", "DATASET.NUM_SHOTS", 2, "OPTIM.LR", 0.5))
        train.run(config)
        assert capsys.readouterr().out.startswith("Done already: ")
        assert (tmp_path / "run" / "log.txt").read_text() == log
