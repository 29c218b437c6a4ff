"""Runs beside the YAML that their folder names: what the command line changed is said wherever the result stands."""

import json
from pathlib import Path

import pytest

import parse_test_res
import report
import train
from engine.run.folder import write_config
from engine.run.results import settings_of
from reports.experiments import base_classes, coop, few_shot, new_classes, transfer_source, zero_shot
from reports.figures.few_shot import find_curves
from reports.runs import parse_run
from reports.statistics import warnings_of
from tests.support.made_up_results import write_logs, write_results
from tests.support.script_calls import ROOT

CONFIGS = sorted((ROOT / "configs/trainers").glob("*/*.yaml"))
TINY = coop("shapes", "tiny").folder


def config(trainer, cfg, folder, *pairs, flags=()):
    """The config of a call of train.py, as the scripts make it, on `shapes`."""
    files = ["--dataset-config-file", "configs/datasets/shapes.yaml", "--config-file"]
    words = ["--output-dir", str(folder), "--seed", "1", "--trainer", trainer, *files]
    yaml = f"configs/trainers/{'CoOp' if trainer.startswith('Zero') else trainer}/{cfg}.yaml"
    return train.setup_cfg(train.parse_args([*words, yaml, *flags, *map(str, pairs)]))


def results(cfg, accuracy=60.0, **more):
    """What a run of this config leaves, but for what was measured."""
    said = {"trainer": cfg.TRAINER.NAME, "cfg": cfg.RUN.CFG, "dataset": cfg.DATASET.NAME, "seed": cfg.SEED}
    settings = json.loads(json.dumps(settings_of(cfg)))
    epoch = {"epoch": 0 if cfg.RUN.EVAL_ONLY else cfg.OPTIM.MAX_EPOCH}
    return {"accuracy": accuracy, **said, **epoch, "settings": settings, "trained_with": None, **more}


def write(output, folder, *pairs, seed=1, trainer="CoOp", cfg="tiny", **more):
    run = output / folder / f"seed{seed}"
    run.mkdir(parents=True)
    made = config(trainer, cfg, run, *pairs)
    made.SEED = seed
    write_config(made)
    (run / "results.json").write_text(json.dumps(results(made, **more)))
    return run


def warned(*folders):
    return warnings_of([parse_run(folder) for folder in folders])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_config_differs_from_itself(path, tmp_path):
    """With what the scripts set, and what changes no accuracy."""
    made = {"DATASET.NUM_SHOTS": 4, "DATALOADER.TEST.BATCH_SIZE": 7, "DATALOADER.NUM_WORKERS": 0, "SEED": 3}
    pairs = [word for pair in made.items() for word in pair]
    folder = "x" if path.parent.name != "CoOp" else TINY
    pairs += ["TRAINER.COOP.N_CTX", 5, "TRAINER.COOP.CSC", True] if path.parent.name == "CoOp" else []
    pairs += ["RUN.EVAL_ONLY", True] if path.parent.name == "TPT" else []  # it trains nothing
    assert warned(write(tmp_path, folder, *pairs, trainer=path.parent.name, cfg=path.stem)) == []


def test_what_a_methods_authors_set_for_a_data_set_is_meant(tmp_path, capsys):
    """And said below the table; what is neither is warned of."""
    cfg, found = "vit_b16_c2_ep50_batch4_4+4ctx_few_shot", {"imagenet": (30, 30), "dtd": (45, 5), "eurosat": (30, 5)}
    for dataset, (mean, std) in found.items():
        pairs = "TRAINER.PROMPTSRC.GPA_MEAN", mean, "TRAINER.PROMPTSRC.GPA_STD", std
        settings = json.loads(json.dumps(settings_of(config("PromptSRC", cfg, tmp_path / "x", *pairs))))
        said = {"trainer": "PromptSRC", "cfg": cfg, "settings": settings}
        write_results(tmp_path, few_shot(dataset, "PromptSRC", "vit_b16").folder, {1: 60.0}, **said)
    assert report.main(["methods_few_shot_vit", "--output-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("made with") == 1
    assert "eurosat/PromptSRC/" in out.split("made with")[0].splitlines()[-1]
    assert "made with TRAINER.PROMPTSRC.GPA_MEAN 30.0 (45 is meant here)." in out
    assert "PromptSRC: TRAINER.PROMPTSRC.GPA_MEAN is 45.0 on DTD, 30.0 on the others." in out


def test_the_epochs_that_authors_steps_need_are_meant_of_a_test_of_the_model_too(tmp_path, capsys):
    """Of the 19 base classes of Pets and the 24 of DTD: 9 and 12 batches of 32, 4,800 steps."""
    for dataset, n_epochs in {"oxford_pets": 533, "dtd": 96}.items():
        experiment = new_classes(dataset, "TwoStage", "vit_b16")
        training = config("TwoStage", "vit_b16", tmp_path / "x", "OPTIM.MAX_EPOCH", n_epochs)
        said = {"trained_with": settings_of(training), "settings": settings_of(config("TwoStage", "vit_b16", "x"))}
        said |= {"trainer": "TwoStage", "cfg": "vit_b16", "subsample": "new", "shots": 16, "epoch": n_epochs}
        write_results(tmp_path, experiment.folder, {1: 60.0}, **json.loads(json.dumps(said)))
    assert report.main(["methods_base_to_new", "--output-dir", str(tmp_path)]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "made with" in line]
    assert "/dtd/" in line and "made with OPTIM.MAX_EPOCH 96 (400 is meant here)." in line


@pytest.mark.parametrize("kind", report.FORMATS)
def test_a_key_of_the_command_line_is_said_in_every_report(tmp_path, capsys, kind):
    for seed in (1, 2):
        write(tmp_path, TINY, "OPTIM.MAX_EPOCH", 1, seed=seed)
    said = "seed1, seed2: made with OPTIM.MAX_EPOCH 1 (tiny.yaml says 12)."
    assert report.main(["shapes_prompts", "--output-dir", str(tmp_path), "--format", kind]) == 0
    assert f"{TINY}: {said}" in capsys.readouterr().out
    assert parse_test_res.main([str(tmp_path / TINY)]) == 0
    assert f"Warning: {said}" in capsys.readouterr().out
    assert f"{tmp_path / TINY}: {said[:-1]}" in find_curves(tmp_path).notes


@pytest.mark.parametrize(
    "pairs, said",
    [
        (("OPTIM.WEIGHT_DECAY", 0.0), "OPTIM.WEIGHT_DECAY 0.0 (tiny.yaml says 0.0005)"),
        (("OPTIM.LR", 0.0003), "OPTIM.LR 0.0003 (tiny.yaml says 0.002)"),  # the default
        (("TRAINER.COOP.CTX_INIT", "a photo"), 'TRAINER.COOP.CTX_INIT "a photo" (tiny.yaml does not set it)'),
        (("INPUT.VIEWS", 8), "INPUT.VIEWS 8 (tiny.yaml says 0)"),
    ],
    ids=["default in the file", "default made", "trainer's key", "views"],
)
def test_a_difference(tmp_path, pairs, said):
    assert warned(write(tmp_path, TINY, *pairs)) == [f"seed1: made with {said}."]


def test_a_trainers_key_that_is_back_at_its_default(tmp_path):
    """results.json leaves it out; config.yaml has it."""
    found = warned(write(tmp_path, TINY, "TRAINER.COOP.CTX_INIT", "''", cfg="tiny_ctxv1"))
    assert found == ['seed1: made with TRAINER.COOP.CTX_INIT "" (tiny_ctxv1.yaml says "a photo of a").']


def test_where_no_folder_shows_the_context_its_length_is_compared(tmp_path):
    folder = transfer_source("CoCoOp", "tiny", source="shapes").folder
    found = warned(write(tmp_path, folder, "TRAINER.COCOOP.N_CTX", 9, trainer="CoCoOp"))
    assert found == ["seed1: made with TRAINER.COCOOP.N_CTX 9 (tiny.yaml says 4)."]


def test_the_model_of_a_test_and_its_epoch(tmp_path):
    folder = new_classes("shapes", "CoCoOp", "tiny").folder
    train_folder = base_classes("shapes", "CoCoOp", "tiny").folder
    training = config("CoCoOp", "tiny", train_folder, "OPTIM.LR", 0.5)
    last = training.OPTIM.MAX_EPOCH
    for epoch, said in ((last, ""), (1, f", OPTIM.MAX_EPOCH 1 (tiny.yaml says {last})")):
        model = {"trained_with": settings_of(training), "epoch": epoch}
        run = write(tmp_path / str(epoch), folder, "OPTIM.MOMENTUM", 0.5, trainer="CoCoOp", **model)
        assert warned(run) == [f"seed1: made with OPTIM.LR 0.5 (tiny.yaml says 0.002){said}."]


def test_the_keys_of_a_plug_in_are_in_the_settings_at_their_defaults(tmp_path):
    """So a key that the config does not set says nothing, and one that it sets is compared."""
    made = results(config("CoOp", "tiny", "x", "TRAINER.COOP.PREC", "fp16"))
    made["settings"] |= {"RUN.PLUGINS": ["mine.py"], "TRAINER.MINE.ALPHA": 0.5, "TRAINER.COOP.PREC": "bf16"}
    write_results(tmp_path, "birds/CoOp/tiny_16shots", {1: 60.0}, **{**made, "dataset": "Birds"})
    found = warned(tmp_path / "birds/CoOp/tiny_16shots/seed1")
    assert found == ['seed1: made with TRAINER.COOP.PREC "bf16" (tiny.yaml says "fp32").']


def test_a_config_of_ones_own_is_not_there(tmp_path):
    write_results(tmp_path, TINY, {1: 60.0}, trainer="CoOp", cfg="mine", settings={"OPTIM.LR": 5.0})
    write_results(tmp_path, "x", {1: 60.0}, trainer="Mine", cfg="../CoOp/tiny", settings={"OPTIM.LR": 5.0})
    assert warned(tmp_path / TINY / "seed1") == warned(tmp_path / "x/seed1") == []


def test_zero_shot_has_coops_config_and_the_file_of_a_backbone_is_that_backbone(tmp_path):
    run = tmp_path / zero_shot("shapes", "rn50").folder
    for pairs, said in (((), []), (("INPUT.SIZE", "(64, 64)"), ["INPUT.SIZE [64, 64] (rn50.yaml says [224, 224])"])):
        made = config("ZeroshotCLIP", "rn50", run, *pairs, flags=("--eval-only", "--backbone", "/weights/RN50.pt"))
        write_results(tmp_path, zero_shot("shapes", "rn50").folder, 60.0, **results(made))
        assert warned(run) == [f"shapes: made with {sentence}." for sentence in said]


def test_the_preprocessing_of_another_librarys_model_is_its_own(tmp_path):
    """What a pair has changed of it, the run has warned of."""
    made = results(config("CoOp", "tiny", "x", "INPUT.SIZE", "(384, 384)", "INPUT.RESIZE", "squash"))
    made["settings"]["MODEL.BACKBONE.NAME"] = "hf:OWNER/NAME"
    write_results(tmp_path, TINY, {1: 60.0}, **made)
    said = 'MODEL.BACKBONE.NAME "hf:OWNER/NAME" (tiny.yaml says "ViT-T/8-shapes")'
    assert warned(tmp_path / TINY / "seed1") == [f"seed1: made with {said}."]


def test_a_plug_in_in_a_row_that_needs_none(tmp_path):
    """It may replace what the row is named after."""
    made = results(config("CoOp", "tiny", "x"))
    made["settings"]["RUN.PLUGINS"] = ["mine.py"]
    for trainer, said in (("CoOp", ['seed1: made with RUN.PLUGINS ["mine.py"] (tiny.yaml says []).']), ("Mine", [])):
        write_results(tmp_path, TINY, {1: 60.0}, **{**made, "trainer": trainer})
        assert warned(tmp_path / TINY / "seed1") == said


class TestLogs:
    """Of the original, which prints its arguments and its config before it starts."""

    LOG = """** Arguments **
config_file: configs/trainers/CoOp/{cfg}.yaml
** Config **
{config}
Loading CLIP (backbone: RN50)
epoch [50/50] batch [50/50] loss 0.1234
Finish training
=> result
* total: 2,465
* accuracy: 81.02%
"""
    FOLDER = coop("caltech101", "rn50_ep50", shots=1).folder

    def write(self, output, folder=FOLDER, *, cfg="rn50_ep50", **changes):
        made = config("CoOp", "rn50_ep50", "x", "DATASET.NUM_SHOTS", 1, "DATASET.NAME", "Caltech101")
        for key, value in changes.items():
            node, name = made, key
            while "__" in name:
                group, name = name.split("__", 1)
                node = node[group]
            node[name] = value
        write_logs(output, folder, {1: ""}, self.LOG.format(cfg=cfg, config=made).replace("{", "{{").replace("}", "}}"))
        return output / folder / "seed1"

    def cells(self, output, capsys):
        code = report.main(["few_shot", "--output-dir", str(output), "--format", "csv"])
        out, err = capsys.readouterr()
        return code, out + err

    @pytest.mark.parametrize(
        "changes, said",
        [
            ({"DATASET__NAME": "DescribableTextures"}, "dataset is 'DescribableTextures', not 'Caltech101'"),
            ({"DATASET__NUM_SHOTS": 16}, "shots is 16, not 1"),
            ({"DATASET__SUBSAMPLE_CLASSES": "base"}, "subsample is 'base', not 'all'"),
            ({"MODEL__BACKBONE__NAME": "ViT-B/16"}, "backbone is 'ViT-B/16', not 'RN50'"),
            ({"SEED": 3}, "seed is 3, not 1"),
            ({"TRAINER__NAME": "CoCoOp"}, "trainer is 'CoCoOp', not 'CoOp'"),
            ({"cfg": "rn50"}, "cfg is 'rn50', not 'rn50_ep50'"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_of_another_run_is_named_and_not_counted(self, tmp_path, capsys, changes, said):
        self.write(tmp_path, **changes)
        code, out = self.cells(tmp_path, capsys)
        assert code == 1 and f"{self.FOLDER}/seed1: log.txt is of another run: {said}" in out

    def test_of_its_own_run_counts(self, tmp_path, capsys):
        self.write(tmp_path)
        code, out = self.cells(tmp_path, capsys)
        assert code == 0 and '"CoOp, end",1 shot' in out.replace("Caltech101, ", "") and ",81.02," in out
        assert "warning" not in out

    def test_with_another_key_than_its_config_is_warned_of(self, tmp_path, capsys):
        self.write(tmp_path, OPTIM__MAX_EPOCH=1)
        assert "seed1: made with OPTIM.MAX_EPOCH 1 (rn50_ep50.yaml says 50)." in self.cells(tmp_path, capsys)[1]

    def test_of_a_test_the_shots_are_not_known(self, tmp_path):
        run = self.write(tmp_path, DATASET__NUM_SHOTS=-1)
        assert "shots" not in parse_run(run, end_signal="=> result").identity

    def test_what_is_no_config_is_none(self, tmp_path):
        strange = "SEED: [\nLR: {{1: 2, 'a': 3}}\nTRAINER:\n  NAME: {{1, 2}}\n" + "X: " + "(" * 5000
        write_logs(
            tmp_path, self.FOLDER, {1: "60.0"}, strange + "\n  NAME: x\nFinish training\n* accuracy: {accuracy}%\n"
        )
        assert parse_run(tmp_path / self.FOLDER / "seed1").value == 60.0


def test_a_log_that_the_original_began_beside_an_unfinished_one_is_named(tmp_path, capsys):
    write_logs(tmp_path, "", {1: "90.0"}, TestLogs.LOG.replace("{cfg}", "").replace("{config}", ""))
    run = tmp_path / "seed2"
    run.mkdir()
    (run / "log.txt").write_text("Loading CLIP (backbone: RN50)\n")
    (run / "log.txt-2024-07-02-10-21-35").write_text((tmp_path / "seed1/log.txt").read_text())
    (run / "log.txt-2024-07-03-10-21-35").write_text("Loading CLIP (backbone: RN50)\n")
    assert parse_test_res.main([str(tmp_path)]) == 0
    said = "; log.txt-2024-07-02-10-21-35 beside it ended with 81.02%: rename it to log.txt if it counts."
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Warning")]
    assert line.startswith(f"Warning: left out {run}: log.txt: ") and line.endswith(said)
    assert Path(run, "log.txt").is_file()


@pytest.mark.parametrize("folder", [TestLogs.FOLDER, base_classes("caltech101", "CoOp", "rn50_ep50").folder])
def test_the_mean_of_a_folder_leaves_out_a_log_of_another_run(tmp_path, capsys, folder):
    run = TestLogs().write(tmp_path, folder, DATASET__NAME="DescribableTextures")
    assert parse_test_res.main([str(run.parent)]) == 1
    assert f"left out {run}: log.txt is of another run: dataset is 'DescribableTextures'" in capsys.readouterr().out
