"""reproduce.py: what a table needs, what is left of it, the order of the runs, failures, and the command line."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import reproduce
import train
from engine.interruption import Interrupted
from engine.run.folder import read_results
from launch import plan as job_runs
from launch import workers as jobs
from reports.tables import catalogue as tables
from tests.support.script_calls import ROOT, call, fake_python
from tests.support.tiny_run import repeatable, write_clip, write_images

MAIN = "bash scripts/coop/main.sh folder tiny end 2 1 False"
EVAL = "SOURCE=folder SHOTS=1 NCTX=2 bash scripts/coop/eval.sh folder tiny RUN.LOAD_EPOCH 1"
WORDS = (
    '"${PYTHON:-python3}" interpret_prompt.py "${OUTPUT:-output}/RUN/prompt_learner/model.pth.tar-1" 3 --json '
    '--output "${OUTPUT:-output}/RUN/nearest_words.json"'
)
NAME = "CoOp/tiny_1shots/nctx2_cscFalse_ctpend"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SEEDS", "1 2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("TRAINER", "SOURCE", "SHOTS", "PLUGIN", "PLUGIN_CONFIG"):
        monkeypatch.setenv(name, "of the caller, not of the commands")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images and a small CLIP."""
    folder = tmp_path_factory.mktemp("my files")
    write_images(folder / "data")
    write_clip(folder / "vit.pt")
    return folder


@pytest.fixture
def lines(files, monkeypatch):
    """Command lines of the scripts, with what makes their runs tiny."""
    monkeypatch.setenv("DATA", str(files / "data"))
    pairs = f"MODEL.BACKBONE.NAME '{files}/vit.pt' INPUT.SIZE '(32, 32)' DATALOADER.NUM_WORKERS 0 USE_CUDA False"
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
        commands = [*lines(MAIN, EVAL), WORDS.replace("RUN", f"folder/{NAME}/seed2")]
        planned = reproduce.plan(commands, str(tmp_path / "my runs"))
        trained = [tmp_path / "my runs/folder" / NAME / f"seed{seed}" for seed in (1, 2)]
        tested = [tmp_path / "my runs/evaluation" / NAME / f"folder/seed{seed}" for seed in (1, 2)]
        words = trained[1] / "nearest_words.json"
        assert [job.target for job in planned] == [*trained, *tested, words]
        assert [job.needs for job in planned] == [None, None, *trained, trained[1]]
        assert [job.program for job in planned] == ["train"] * 4 + ["interpret_prompt"]
        assert not any(job.done for job in planned)
        assert planned[-1].argv == (
            f"{trained[1]}/prompt_learner/model.pth.tar-1",
            "3",
            "--json",
            "--output",
            str(words),
        )

    @pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
    def test_any_folder_whatever_bash_can_print(self, lines, tmp_path, monkeypatch, locale):
        monkeypatch.setenv("LC_ALL", locale)
        output = tmp_path / 'Läufe, a\'b "c" $HOME'
        for command in (*lines(f"{MAIN} TRAINER.COOP.CTX_INIT ''"), WORDS.replace("RUN", "run")):
            assert reproduce.plan([command], str(output))[0].target.is_relative_to(output)

    def test_a_call_that_two_tables_need_is_there_once(self, lines, tmp_path):
        assert len(reproduce.plan(lines(MAIN) + lines(f"{MAIN} SEED 1"), str(tmp_path))) == 2

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
        assert (
            "bash scripts/cocoop/xd_train.sh 1 rn51\nError: CFG is rn51, expected one of configs/trainers/CoCoOp"
            in error
        )
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
        for seed in (1, 2):
            write_as_done(tmp_path, lines(MAIN)[0], seed)
        reproduced(commands)
        assert reproduce.main(["t", "--output-dir", str(tmp_path), "--dry-run"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"{commands[0]}    # done",
            f"{commands[1]}    # 2 left",
            "2 of 4 runs are left.",
        ]

    def test_an_unknown_table(self, capsys):
        assert reproduce.main(["base_to_nwe"]) == 1
        assert "Did you mean base_to_new?" in capsys.readouterr().err


def write_as_done(output, command, seed):
    """Writes what a run of the command leaves in its folder."""
    [job] = [job for job in reproduce.plan([command], str(output)) if job.target.name == f"seed{seed}"]
    cfg = train.setup_cfg(train.parse_args(list(job.argv)))
    train.write_config(cfg)
    train.write_results(cfg, {"accuracy": 50.0})


PROGRAM = """
import multiprocessing, os, pathlib, signal, sys, time
def is_there(path):
    try:
        os.kill(int(path.read_text().split()[1]), 0)
    except ProcessLookupError:
        return False
    except (FileNotFoundError, IndexError):  # not written yet
        pass
    return True
def main(argv):
    print("not to be seen")
    target, *what = argv
    if "fail" in what:
        print("A warning.", "Error: it fails.", "For good.", sep="\\n", file=sys.stderr)
        return 1
    if "raise" in what:
        raise RuntimeError("unexpected")
    if "die" in what:
        os._exit(9)
    if "interrupt" in what:
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)
    while "alone" in what and is_there(pathlib.Path(target).with_name("a")):
        time.sleep(0.01)
    method = multiprocessing.get_start_method(allow_none=True)
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    pathlib.Path(target).write_text(f"{time.monotonic()} {os.getpid()} {method} {gpu}")
    return 0
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes jobs of a small program, in forked processes: they have no torch to import."""
    monkeypatch.setattr(jobs, "CONTEXT", multiprocessing.get_context("fork"))
    (tmp_path / "small_program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)

    def job(name, *what, needs=None):
        target = tmp_path / name
        return jobs.Job("", "small_program", (str(target), *what), target, needs and tmp_path / needs)

    return job


class TestJobs:
    def ended(self, planned, n_workers=2):
        return {job.target.name: error for job, error, _ in jobs.finish_all(planned, n_workers)}

    def test_each_after_the_one_that_it_needs_whatever_their_order(self, make, tmp_path):
        planned = [make("c", needs="b"), make("b", needs="a"), make("d", needs="not a job"), make("a")]
        assert self.ended(planned) == dict.fromkeys("abcd", "")
        times = {name: float((tmp_path / name).read_text().split()[0]) for name in "abc"}
        assert times["a"] < times["b"] < times["c"]

    def test_a_process_does_many_and_there_are_no_more_than_asked_for(self, make, tmp_path):
        self.ended([make(f"job{i}") for i in range(6)])
        assert len({(tmp_path / f"job{i}").read_text().split()[1] for i in range(6)}) <= 2

    def test_processes_take_the_gpus_in_turn(self, make, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,4")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert [error for _, error, _ in job_runs.finish_here([make("a"), make("b"), make("c")], 3)] == [""] * 3
        assert [(tmp_path / name).read_text().split()[3] for name in "abc"] == ["7", "4", "7"]
        assert jobs.free_number([SimpleNamespace(number=number) for number in (0, 3, 1)]) == 2

    def test_the_gpus_are_those_that_may_be_used(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert job_runs.gpus() == ["0", "1"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5f,3,9")
        assert job_runs.gpus() == ["GPU-5f", "3"]

    def test_a_process_without_a_job_ends(self, make):
        """What it holds may be what another waits for."""
        assert self.ended([make("a"), make("b", "alone")]) == {"a": "", "b": ""}

    def test_the_processes_of_a_program_start_as_outside_of_a_worker(self, make, tmp_path):
        """A spawned process would spawn its loaders' processes too, which import torch in every epoch."""
        multiprocessing.set_start_method("spawn", force=True)
        try:
            self.ended([make("a")])
        finally:
            multiprocessing.set_start_method(None, force=True)
        assert (tmp_path / "a").read_text().split()[2] == "None"

    def test_a_failure_is_reported_and_stops_only_what_needs_it(self, make, capfd):
        planned = [make("a", "fail"), make("b", needs="a"), make("c", needs="b"), make("d", "raise"), make("e")]
        errors = self.ended(planned)
        assert errors["a"] == "Error: it fails.\nFor good."
        assert errors["b"] == errors["c"] == "Not run, because what it needs failed."
        assert errors["d"].startswith("Traceback") and errors["d"].endswith("RuntimeError: unexpected")
        assert errors["e"] == ""
        assert capfd.readouterr() == ("", "")

    def test_a_process_that_is_killed_fails_its_job_alone(self, make):
        errors = self.ended([make("a", "die"), make("b"), make("c")], n_workers=1)
        assert errors == {
            "a": "The process was ended from outside (exit code 9). Where memory is short, lower --jobs.",
            "b": "",
            "c": "",
        }

    @pytest.mark.parametrize("reads_late", [False, True], ids=["it is given its job", "it has read its job"])
    def test_a_process_that_is_killed_before(self, make, monkeypatch, reads_late):
        start = jobs.Worker.start

        def die(pipe, gpu):
            time.sleep(0.3 * reads_late)
            os._exit(9)

        def start_late(worker, job):
            if not reads_late:
                worker.process.join()
            start(worker, job)

        monkeypatch.setattr(jobs, "work", die)
        monkeypatch.setattr(jobs.Worker, "start", start_late)
        assert self.ended([make("a")])["a"].startswith("The process was ended from outside (exit code 9).")

    def test_an_interrupt_while_a_job_ends(self, make, monkeypatch):
        started = []

        def interrupted(worker):
            started.append(worker)
            raise KeyboardInterrupt

        monkeypatch.setattr(jobs.Worker, "outcome", interrupted)
        with pytest.raises(KeyboardInterrupt):
            self.ended([make("a")])
        assert not started[0].process.is_alive()

    def test_an_interrupt_ends_every_process(self, make, monkeypatch, capsys):
        started, start = [], jobs.Worker.start
        monkeypatch.setattr(jobs.Worker, "start", lambda worker, job: started.append(worker) or start(worker, job))
        monkeypatch.setattr(tables, "commands", lambda name: [])
        monkeypatch.setattr(reproduce, "plan", lambda *_: [make("a"), make("b", "interrupt"), make("c", needs="b")])
        handler = signal.getsignal(signal.SIGINT)
        assert reproduce.main(["t", "--jobs", "2"]) == 130
        assert signal.getsignal(signal.SIGINT) == handler
        # Not is_alive(): it is wrong for good where the interrupt came between waitpid and what notes its answer.
        ends = {worker.process.sentinel for worker in started}
        assert set(wait(ends, timeout=0)) == ends
        assert "Interrupted. What is done is kept: the same command does only what is left." in capsys.readouterr().err


def test_an_interrupt_before_anything_runs(monkeypatch, capsys):
    def interrupted(*_):
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(reproduce, "dry_run", interrupted)
    assert reproduce.main(["shapes"]) == 130
    assert capsys.readouterr().err.startswith("\nInterrupted. What is done is kept")


def test_failures_of_one_reason_are_listed_together(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/log.txt").touch()
    failed = {
        jobs.Job("", "train", (), tmp_path / name): error for name, error in (("a", "Error: x"), ("b", "Error: x"))
    }
    job_runs.print_failures(failed)
    assert capsys.readouterr().err.splitlines() == [
        "",
        "Error: x",
        f"Failed: {tmp_path}/a (its log: {tmp_path}/a/log.txt)",
        f"Failed: {tmp_path}/b",
        "Finished runs are kept: the same command does only what is left.",
    ]


@pytest.mark.slow
def test_runs_in_one_process_are_those_of_a_process_each(lines, tmp_path, reproduced, capsys):
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

    [alone] = [job for job in reproduce.plan(lines(MAIN), str(tmp_path / "alone")) if job.target.name == "seed2"]
    subprocess.run([sys.executable, "train.py", *alone.argv], check=True, capture_output=True)
    beside = tmp_path / "folder" / NAME / "seed2"
    assert repeatable(alone.target) == repeatable(beside)
    contexts = [
        torch.load(run / "prompt_learner/model.pth.tar-1")["state_dict"]["ctx"] for run in (alone.target, beside)
    ]
    assert torch.equal(*contexts)

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

    def test_a_dry_run(self, tmp_path):
        result = call("reproduce.sh", "shapes", python=fake_python(tmp_path, 'echo "$@"'))
        assert result.stdout == "reproduce.py --output-dir output --dry-run shapes\n"

    def test_without_a_table(self):
        result = call("reproduce.sh")
        assert (result.returncode, result.stdout) == (2, "")
        assert "there are 0 arguments, expected a TABLE." in result.stderr
        assert "  bash scripts/reproduce.sh TABLE" in result.stderr


def test_the_number_of_jobs(monkeypatch, capsys):
    monkeypatch.setattr(job_runs, "n_cores", lambda: 16)
    for n_gpus, n_jobs in ((0, 4), (1, 1), (3, 3)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda n=n_gpus: n)
        assert reproduce.parse_args(["t"]).jobs == n_jobs
    with pytest.raises(SystemExit):
        reproduce.parse_args(["t", "--jobs", "0"])
    assert "--jobs is 0, expected at least 1." in capsys.readouterr().err


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
        for experiment in dict.fromkeys(
            experiment for table in tables.TABLES.values() for experiment in table.experiments
        ):
            cfg = configs[output / experiment.folder / ("seed1" if experiment.seeded else "")]
            trained = configs[Path(cfg.RUN.MODEL_DIR)] if cfg.RUN.MODEL_DIR else cfg
            coop = cfg.TRAINER.COOP
            says = {
                "trainer": cfg.TRAINER.NAME,
                "cfg": cfg.RUN.CFG,
                "dataset": cfg.DATASET.NAME,
                "source": trained.DATASET.NAME if experiment.seeded else None,
                "shots": trained.DATASET.NUM_SHOTS,
                "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
                "split": cfg.TEST.SPLIT,
                "n_ctx": coop.N_CTX,
                "csc": coop.CSC,
                "class_token_position": coop.CLASS_TOKEN_POSITION,
            }
            assert experiment.promised == {key: says[key] for key in experiment.promised}, experiment
            assert len(experiment.promised) >= 6

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
            elif job.needs and configs[job.target].TRAINER.NAME != "LinearProbe":  # that one saves its best only
                assert configs[job.target].RUN.LOAD_EPOCH == configs[job.needs].OPTIM.MAX_EPOCH, command
