"""reproduce.py: what a table needs, what is left of it, and that the report finds what is run."""

import os
import re
from pathlib import Path

import pytest

import reproduce
import train
from engine.config.load import flatten
from engine.run.folder import read_results
from reports.tables import catalogue as tables
from tests.launch.test_sweep import write_as_done
from tests.support.script_calls import ROOT, call, fake_python

MAIN = "bash scripts/coop/main.sh folder tiny end 2 1 False"
EVAL = "SOURCE=folder SHOTS=1 NCTX=2 bash scripts/coop/eval.sh folder tiny RUN.LOAD_EPOCH 1"
WORDS = (
    '"${PYTHON:-python3}" interpret_prompt.py "${OUTPUT:-output}/RUN/prompt_learner/model.pth.tar-1" 3 --json '
    '--output "${OUTPUT:-output}/RUN/nearest_words.json"'
)
NAME = "CoOp/tiny_1shots/nctx2_cscFalse_ctpend"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("SEEDS", "1 2")
    for name in ("TRAINER", "SOURCE", "SHOTS", "PLUGIN", "PLUGIN_CONFIG"):
        monkeypatch.setenv(name, "of the caller, not of the commands")


@pytest.fixture
def lines(tmp_path_factory, tiny_files, monkeypatch):
    """Command lines of the scripts, with what makes their runs tiny; the files lie in a folder with a space."""
    folder = tmp_path_factory.mktemp("my files")
    (folder / "data").symlink_to(tiny_files[0])
    (folder / "vit.pt").symlink_to(tiny_files[1]["vit"])
    monkeypatch.setenv("DATA", str(folder / "data"))
    pairs = f"MODEL.BACKBONE.NAME '{folder}/vit.pt' INPUT.SIZE '(32, 32)' DATALOADER.NUM_WORKERS 0 USE_CUDA False"
    return lambda *commands: [f"{command} {pairs} OPTIM.MAX_EPOCH 1" for command in commands]


@pytest.fixture
def reproduced(monkeypatch):
    """Makes the command lines those of every table, and the report the list of its arguments."""

    def prepare(commands):
        monkeypatch.setattr(tables, "commands", lambda name: commands)
        monkeypatch.setattr(reproduce.report, "main", lambda argv: print("report", *argv) or 0)

    return prepare


class TestPlan:
    def test_every_call_with_what_it_makes_and_needs(self, lines, tmp_path):
        twice = lines(f"{MAIN} SEED 1")  # as two tables need it
        commands = [*lines(MAIN, EVAL), *twice, WORDS.replace("RUN", f"folder/{NAME}/seed2")]
        planned = reproduce.plan(commands, str(tmp_path / "my runs"))
        trained = [tmp_path / "my runs/folder" / NAME / f"seed{seed}" for seed in (1, 2)]
        tested = [tmp_path / "my runs/evaluation" / NAME / f"folder/seed{seed}" for seed in (1, 2)]
        words = trained[1] / "nearest_words.json"
        assert [job.target for job in planned] == [*trained, *tested, words]
        assert [job.needs for job in planned] == [None, None, *trained, trained[1]]
        assert [job.program for job in planned] == ["train"] * 4 + ["interpret_prompt"]
        assert not any(job.done for job in planned)
        checkpoint = f"{trained[1]}/prompt_learner/model.pth.tar-1"
        assert planned[-1].argv == (checkpoint, "3", "--json", "--output", str(words))

    @pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
    def test_any_folder_whatever_bash_can_print(self, lines, tmp_path, monkeypatch, locale):
        monkeypatch.setenv("LC_ALL", locale)
        output = tmp_path / 'Läufe, a\'b "c" $HOME'
        for command in (*lines(f"{MAIN} TRAINER.COOP.CTX_INIT ''"), WORDS.replace("RUN", "run")):
            assert reproduce.plan([command], str(output))[0].target.is_relative_to(output)

    def test_the_words_are_done_when_they_are_newer_than_the_checkpoint(self, tmp_path):
        checkpoint, words = tmp_path / "run/prompt_learner/model.pth.tar-1", tmp_path / "run/nearest_words.json"
        checkpoint.parent.mkdir(parents=True)
        done = []
        for written in (None, checkpoint, words, checkpoint):
            if written:
                written.touch()
                os.utime(written, ns=(len(done), len(done)))
            done += [job.done for job in reproduce.plan([WORDS.replace("RUN", "run")], str(tmp_path))]
        assert done == [False, False, True, False]

    def test_all_that_is_wrong_is_said_before_anything_runs(self, lines, tmp_path, reproduced, capsys):
        wrong = lines(MAIN, f"{MAIN} OPTIM.LRR 1", f"{EVAL} OPTIM.LRR 1")
        reproduced([*wrong, "bash scripts/cocoop/xd_train.sh 1 rn51"])
        assert reproduce.main(["t", "--output-dir", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert f"Error: {wrong[1]} (and 1 more)\nThe config has 1 error:\n" in error
        assert error.count("the key OPTIM.LRR is unknown. Did you mean OPTIM.LR?") == 1
        assert "bash scripts/cocoop/xd_train.sh 1 rn51\nError: CFG is rn51" in error
        assert not any(tmp_path.iterdir())

    def test_a_folder_with_another_run_is_refused(self, lines, tmp_path, reproduced, capsys):
        folder = tmp_path / "folder" / NAME / "seed1"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text('{"accuracy": 1.0, "config_digest": "another"}')
        reproduced(lines(MAIN))
        assert reproduce.main(["t", "--output-dir", str(tmp_path)]) == 1
        assert f"The folder {folder} holds results.json of another configuration" in capsys.readouterr().err

    def test_a_dry_run_lists_the_commands_and_counts_what_is_left(self, lines, tmp_path, reproduced, capsys):
        commands = lines(MAIN, EVAL)
        for job in reproduce.plan(commands[:1], str(tmp_path)):
            write_as_done(job)
        reproduced(commands)
        assert reproduce.main(["t", "--output-dir", str(tmp_path), "--dry-run"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"{commands[0]}    # done",
            f"{commands[1]}    # 2 left",
            "2 of 4 runs are left.",
        ]

    def test_wrong_arguments(self, capsys):
        assert reproduce.main(["base_to_nwe"]) == 1
        assert "Did you mean base_to_new?" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            reproduce.parse_args(["t", "--jobs", "0"])
        assert "--jobs is 0; it is the number of runs side by side, 1 or more." in capsys.readouterr().err


@pytest.mark.slow
def test_runs_side_by_side(lines, tmp_path, reproduced, capsys):
    """Two seeds, their tests on another folder, a run that fails with its test: done, told, not done again."""
    failing = lines(f"{MAIN.replace('end', 'front')} DATASET.ROOT /nowhere", f"CTP=front {EVAL}")
    reproduced(lines(MAIN, EVAL) + failing)
    argv = ["t", "--output-dir", str(tmp_path), "--jobs", "1"]
    assert reproduce.main(argv) == 1
    out, err = capsys.readouterr()
    assert out.startswith("8 of 8 runs are left; 1 side by side.\n")
    assert out.endswith(f"\nreport t --output-dir {tmp_path}\n")
    done = re.findall(r"^ *([\d.]+) % +\d+ s +(\d) left   (.*)$", out, re.M)
    assert len(done) == 4
    for accuracy, _, folder in done:
        assert f"{read_results(tmp_path / folder)['accuracy']:.2f}" == accuracy
    assert len(re.findall(r"^ +failed ", out, re.M)) == 4
    assert "/nowhere is missing" in err and err.count("Failed: ") == 4
    assert "Not run, because what it needs failed.\nFailed: " in err

    reproduced(lines(MAIN, EVAL))
    assert reproduce.main(argv) == 0
    assert capsys.readouterr().out.startswith("0 of 4 runs are left; 1 side by side.\n\nreport")


class TestScript:
    def test_it_passes_tables_and_environment_on(self, tmp_path):
        python = fake_python(tmp_path, 'echo "$@"; echo "$DATA $SEEDS"')
        environment = {"DATA": "data", "SEEDS": "4 5", "OUTPUT": "runs", "JOBS": "3", "DRY_RUN": "0"}
        result = call("reproduce.sh", "few_shot coop", cwd=tmp_path, python=python, **environment)
        assert result.stdout.splitlines() == [
            f"reproduce.py --output-dir {tmp_path}/runs --jobs 3 few_shot coop",
            f"{tmp_path}/data 4 5",
        ]

    def test_a_dry_run_and_a_call_without_a_table(self, tmp_path):
        result = call("reproduce.sh", "shapes", python=fake_python(tmp_path, 'echo "$@"'))
        assert result.stdout == "reproduce.py --output-dir output --dry-run shapes\n"
        result = call("reproduce.sh")
        assert (result.returncode, result.stdout) == (2, "")
        assert "  bash scripts/reproduce.sh TABLE" in result.stderr


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The output folder; the job of every command line of every table, for one seed; the config of every run."""
    output, setup_cfg, configs = tmp_path_factory.mktemp("output"), train.setup_cfg, {}

    def recorded(args):
        cfg = setup_cfg(args)
        configs[Path(cfg.OUTPUT_DIR)] = cfg
        return cfg

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("SEEDS", "1")
        patch.setattr(train, "setup_cfg", recorded)
        commands = list(dict.fromkeys(line for group in tables.GROUPS for line in tables.commands(group)))
        planned = {job.command: job for job in reproduce.plan(commands, str(output))}
    assert list(planned) == commands, "one call each, for one seed; what train.py does not accept has been raised"
    return output, planned, configs


@pytest.mark.slow
class TestEveryTable:
    def test_the_runs_lie_where_the_report_looks_for_them(self, planned):
        output, job_of, _ = planned
        for table in tables.TABLES.values():
            for experiment in table.experiments:
                run = output / experiment.folder / ("seed1" if experiment.seeded else "")
                made = [job_of[line] for line in experiment.command_lines(["1"])]
                assert [job.target for job in made if job.program == "train"][-1] == run, experiment

    def test_the_runs_are_configured_as_the_report_expects_them(self, planned):
        """What a test says of the training is what its model's run was trained with."""
        output, _, configs = planned
        for experiment in {e for table in tables.TABLES.values() for e in table.experiments}:
            cfg = configs[output / experiment.folder / ("seed1" if experiment.seeded else "")]
            trained = configs[Path(cfg.RUN.MODEL_DIR)] if cfg.RUN.MODEL_DIR else cfg
            context = cfg.TRAINER.get(cfg.TRAINER.NAME.upper(), cfg.TRAINER.COOP)  # COOP, KGCOOP, PROGRAD
            says = {
                "trainer": cfg.TRAINER.NAME,
                "cfg": cfg.RUN.CFG,
                "dataset": cfg.DATASET.NAME,
                "source": trained.DATASET.NAME if experiment.seeded else None,
                "shots": trained.DATASET.NUM_SHOTS,
                "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
                "split": cfg.TEST.SPLIT,
                "n_ctx": context.get("N_CTX"),
                "csc": context.get("CSC"),
                "class_token_position": context.get("CLASS_TOKEN_POSITION"),
                "settings": {key: flatten(trained)[key] for key in experiment.expected.get("settings", ())},
            }
            assert experiment.expected == {key: says[key] for key in experiment.expected}, experiment
            assert len(experiment.expected) >= 6

    def test_what_a_command_needs_is_made_by_one_before_it(self, planned):
        made = set()
        for command, job in planned[1].items():
            assert job.needs is None or job.needs in made, command
            made.add(job.target)

    def test_the_epochs_that_are_loaded_are_those_that_training_saves(self, planned):
        _, job_of, configs = planned
        for command, job in job_of.items():
            if job.program == "interpret_prompt":
                assert Path(job.argv[0]).name == f"model.pth.tar-{configs[job.needs].OPTIM.MAX_EPOCH}", command
                assert job.target == job.needs / "nearest_words.json"
            elif job.needs:
                trained = configs[job.needs]
                has_one = trained.TRAINER.NAME in ("LinearProbe", "TipAdapter", "GDA")
                last = -1 if has_one or trained.TEST.FINAL_MODEL == "best_val" else trained.OPTIM.MAX_EPOCH
                assert configs[job.target].RUN.LOAD_EPOCH == last, command
