"""sweep.py: its runs are those of the scripts and of train.py, in one process; the table, failures, what it refuses."""

import json
import re
import shlex
import shutil
import signal
from math import ceil
from unittest.mock import Mock

import pytest
import torch

import sweep
import train
from datasets.folder import Folder
from engine.config.identity import config_digest
from engine.config.load import ConfigError
from engine.config.plugins import plugins
from engine.data.datum import data_digests
from engine.interruption import Interrupted
from engine.run.folder import is_done, read_results, write_config, write_results
from launch import workers as jobs
from tests.support.script_calls import call, commands
from tests.support.tiny_run import repeatable, valid_cfg, write_images
from tests.support.tolerance import assert_near, distance

GRID = "--dataset folder --shots 1 2 --seeds 1 2 --cfg tiny"


def planned(words):
    """The runs of a command line, by shots and seed."""
    return sweep.plan(sweep.parse_args(shlex.split(words)))


def identities(calls):
    """The folder, its config's digest and name, of each call of train.py."""
    cfgs = [train.setup_cfg(train.parse_args(list(argv))) for argv in calls]
    return {(cfg.OUTPUT_DIR, config_digest(cfg), cfg.RUN.CFG, cfg.DATASET.ROOT) for cfg in cfgs}


class TestPlan:
    @pytest.mark.parametrize(
        "words, scripts",
        [
            (
                "--cfg rn50 --nctx 4 --csc True --ctp middle --views 3",
                ["coop/main.sh dtd rn50 middle 4 {} True INPUT.VIEWS 3"],
            ),
            ("--cfg rn50", ["coop/main.sh dtd rn50 end 16 {} False"]),
            (
                "--cfg vit_b16_c4_ep10_batch1 --trainer CoCoOp",
                [f"cocoop/xd_train.sh {seed} vit_b16_c4_ep10_batch1" for seed in (5, 7)],
            ),
            ("--cfg rn101 --trainer LinearProbe", ["linear_probe/main.sh dtd rn101 {}"]),
        ],
        ids=["CoOp", "CoOp's defaults", "CoCoOp", "LinearProbe"],
    )
    def test_the_runs_are_those_of_the_scripts(self, words, scripts):
        pairs = "OPTIM.LR 0.01 TRAINER.COOP.CTX_INIT 'a photo'"
        grid = planned(f"--dataset dtd --shots 2 16 --seeds 5 7 --root /data --output-dir /runs {words} {pairs}")
        environment = {"SEEDS": "5 7", "DATA": "/data", "OUTPUT": "/runs", "SOURCE": "dtd"}
        lines = [(script.format(shots), shots) for script in scripts for shots in (2, 16)]
        printed = [call(*f"{line} {pairs}".split(" ", 1), **environment, SHOTS=str(shots)) for line, shots in lines]
        made = [command[2:] for result in printed for command in commands(result)]
        assert len(made) == 4
        assert identities(job.argv for job in grid.values()) == identities(made)
        assert {str(job.target) for job in grid.values()} == {folder for folder, *_ in identities(made)}

    def test_a_plug_in_goes_on_to_every_run(self, tmp_path):
        plugin, options = write_plugin(tmp_path)
        words = f"--dataset dtd --shots 1 --seeds 4 --cfg rn50 --plugin {plugin} --plugin-config {options}"
        grid = planned(f"{words} --output-dir /runs --views 2 TRAINER.MINE.ALPHA 0.7")
        environment = {"SEEDS": "4", "OUTPUT": "/runs", "PLUGIN": str(plugin), "PLUGIN_CONFIG": str(options)}
        pairs = "INPUT.VIEWS 2 TRAINER.MINE.ALPHA 0.7"
        [made] = commands(call("coop/main.sh", f"dtd rn50 end 16 1 False {pairs}", **environment))
        with plugins([str(plugin)], [str(options)]):
            assert identities(job.argv for job in grid.values()) == identities([made[2:]])
        [job] = grid.values()
        with pytest.raises(ConfigError, match="TRAINER.MINE.ALPHA is unknown"):
            identities([job.argv])

    def test_seeds_one_after_another_many_shots_first_each_once(self):
        grid = planned("--dataset dtd --shots 1 16 4 1 --seeds 2 1 2 --cfg rn50")
        assert list(grid) == [(16, 2), (4, 2), (1, 2), (16, 1), (4, 1), (1, 1)]

    def test_the_papers_epochs(self):
        grid = planned("--dataset dtd --shots 1 2 4 8 16 --seeds 1 --paper-epochs --cfg vit_b16_ctxv1")
        for shots, epochs in ((1, "_ep50"), (2, "_ep100"), (4, "_ep100"), (8, ""), (16, "")):
            assert grid[shots, 1].target.parent.parent.name == f"vit_b16{epochs}_ctxv1_{shots}shots"

    def test_a_dry_run_lists_the_calls_and_counts_what_is_left(self, tmp_path, capsys):
        words = f"{GRID} --output-dir {tmp_path} --dry-run"
        grid = planned(words)
        write_as_done(grid[2, 1])
        assert sweep.main(words.split()) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("python train.py --output-dir ") and lines[0].endswith("    # done")
        assert [line.rsplit("    # ", 1)[1] for line in lines[:-1]] == ["done", "1 left", "1 left", "1 left"]
        assert lines[-1] == "3 of 4 runs are left."

    def test_what_was_made_from_other_data_is_left_and_what_cannot_be_compared_too(self, tmp_path):
        data, other = write_images(tmp_path / "data"), "0" * 64
        listed = data_digests(Folder(valid_cfg(DATASET__NAME="Folder", DATASET__ROOT=str(data))), ["test"])
        for name, digests, done in (("same", listed, True), ("others", {"test": other}, False)):
            words = f"{GRID} --output-dir {tmp_path}/{name} --root {data} DATASET.NAME Folder RUN.EVAL_ONLY True"
            for job in planned(words).values():
                write_as_done(job, provenance={"data_sha256": digests})
            assert [job.done for job in planned(words).values()] == [done] * 4
        shutil.rmtree(data)
        assert [job.done for job in planned(words.replace("others", "same")).values()] == [False] * 4


def write_plugin(folder):
    """Writes a CoOp that goes before ours and an option with its default; returns the paths of both."""
    plugin, options = folder / "mine.py", folder / "mine.yaml"
    plugin.write_text(
        "from engine import TRAINER_REGISTRY\nfrom trainers import coop\n\n"
        "@TRAINER_REGISTRY.register()\nclass CoOp(coop.CoOp):\n"
        "    def result_fields(self):\n"
        "        return {**super().result_fields(), 'alpha': self.cfg.TRAINER.MINE.ALPHA}\n"
    )
    options.write_text("TRAINER: {MINE: {ALPHA: 0.5}}\n")
    return plugin, options


def write_as_done(job, accuracy=50.0, **more):
    """Writes what a run leaves in its folder."""
    cfg = train.setup_cfg(train.parse_args(list(job.argv)))
    assert not is_done(cfg)
    write_config(cfg)
    write_results(cfg, {"accuracy": accuracy, **more})


class TestRefused:
    @pytest.mark.parametrize(
        "words, message",
        [
            ("--dataset dtdd --shots 1 --cfg rn50", r"dtdd.yaml does not exist .* Did you mean dtd.yaml\?"),
            ("--dataset dtd --shots 1 --cfg rn51", r"rn51.yaml does not exist .* Did you mean rn50.yaml\?"),
            ("--dataset dtd --shots 1 --cfg rn50 --trainer CoOpp", r"configs/trainers/CoOpp/rn50.yaml does not exist"),
            ("--dataset dtd --shots 1 --cfg rn50 --ctp begin", "CLASS_TOKEN_POSITION is 'begin'"),
            ("--dataset dtd --shots 1 --cfg rn50 --views -1", "INPUT.VIEWS is -1"),
            ("--dataset dtd --shots 1 --cfg rn50 OPTIM.LRR 1", r"OPTIM.LRR is unknown. Did you mean OPTIM.LR\?"),
        ],
    )
    def test_by_train_before_anything_runs(self, words, message, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(sweep, "run", None)
        assert sweep.main(f"--output-dir {tmp_path} {words}".split()) == 1
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.startswith("Error: The config has 1 error:\n")
        assert re.search(message, captured.err)
        assert not any(tmp_path.iterdir())

    def test_a_folder_with_another_run(self, tmp_path, capsys):
        words = f"{GRID} --output-dir {tmp_path}"
        write_as_done(planned(words)[1, 2])
        assert sweep.main([*words.split(), "--views", "4"]) == 1
        error = capsys.readouterr().err
        assert "holds a run of another configuration" in error and "INPUT.VIEWS is 0 there, 4 was asked for" in error

    @pytest.mark.parametrize(
        "words, message",
        [
            ("--shots 1 0", "--shots is 0; a number of shots is 1 or more, or -1 for all images."),
            ("--jobs 0", "--jobs is 0; it is the number of runs side by side, 1 or more."),
            ("--gpus-per-run 2", "--gpus-per-run is 2.0; it is a part of one GPU, above 0 and up to 1."),
            ("--views 2 SEED 3", "SEED is among the KEY VALUE pairs, but --seeds sets it. Leave the pair out."),
            ("--views 2 OPTIM.LR 1 OUTPUT_DIR x", "OUTPUT_DIR is among the KEY VALUE pairs, but --output-dir sets it."),
            ("--views 2 INPUT.VIEWS 3", "INPUT.VIEWS is among the KEY VALUE pairs, but --views sets it."),
            ("--trainer CoCoOp --csc False", "--trainer CoCoOp takes no --csc. Leave it out."),
            ("--trainer LinearProbe --paper-epochs", "--paper-epochs is for CoOp, with a CFG that leaves"),
            ("--cfg rn50_ep50 --paper-epochs", "this is --trainer CoOp --cfg rn50_ep50. Leave --paper-epochs out, or"),
            ("--shots 1 3 --paper-epochs", "--shots is 1 3; --paper-epochs takes 1 2 4 8 16. Leave --paper-epochs or"),
            ("--seeds 1 OPTIM.LR 1", "OPTIM.LR is no whole number. Put KEY VALUE pairs behind another flag, or behind"),
        ],
    )
    def test_flags(self, words, message, capsys):
        with pytest.raises(SystemExit):
            sweep.parse_args(f"{GRID} {words}".split())
        assert message in " ".join(capsys.readouterr().err.split())

    def test_pairs_may_stand_behind_the_sign_for_them(self):
        assert sweep.parse_args([*GRID.split(), "--seeds", "4", "--", "OPTIM.LR", "1"]).opts == ["OPTIM.LR", "1"]


METHODS = """
from yacs.config import CfgNode as CN
from engine import TRAINER_REGISTRY
from trainers import coop
from trainers.base import PromptTrainer

@TRAINER_REGISTRY.register()
class NoContext(PromptTrainer):
    node = "NOCONTEXT"

    @staticmethod
    def add_config(cfg):
        cfg.TRAINER.NOCONTEXT = CN({"PREC": "fp32", "N_CTX": 3})

@TRAINER_REGISTRY.register()
class OwnContext(coop.CoOp):
    node = "OWNCONTEXT"

    @staticmethod
    def add_config(cfg):
        keys = {"N_CTX": 5, "CSC": False, "CLASS_TOKEN_POSITION": "end", "CTX_INIT": "", "PREC": "fp32"}
        cfg.TRAINER.OWNCONTEXT = CN({**keys, "CHUNK_ROWS": 0})
"""


class TestContextFlags:
    """--nctx, --csc and --ctp set the options of the method that is trained, or are refused."""

    @pytest.fixture
    def argv(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("NoContext", "OwnContext"):
            folder = tmp_path / "configs/trainers" / name
            folder.mkdir(parents=True)
            (folder / "tiny.yaml").write_text("MODEL: {BACKBONE: {NAME: RN50}}\n")
        (tmp_path / "configs/datasets").mkdir()
        (tmp_path / "configs/datasets/dtd.yaml").write_text("DATASET: {NAME: DescribableTextures}\n")
        (tmp_path / "methods.py").write_text(METHODS)
        words = "--dataset dtd --shots 1 --seeds 1 --cfg tiny --plugin methods.py --output-dir out"
        return lambda trainer, flags="": [*words.split(), "--trainer", trainer, *flags.split()]

    @pytest.mark.parametrize("flag", ["--nctx 4", "--csc True", "--ctp middle"])
    def test_a_method_without_them_refuses_them(self, argv, flag, capsys):
        assert sweep.main(argv("NoContext", flag)) == 1
        said = (
            f"{flag.split()[0]} is given, but --trainer NoContext has not all options that --nctx, --csc and --ctp set"
        )
        assert said in capsys.readouterr().err

    @pytest.mark.parametrize(
        "flags", ["TRAINER.OWNCONTEXT.N_CTX 4", "--nctx 4 --grid TRAINER.OWNCONTEXT.N_CTX 4 8 --views 2"]
    )
    def test_their_keys_are_not_set_in_another_way(self, argv, flags, capsys):
        """The folder would be called nctx16, or nctx4, whatever the number is."""
        assert sweep.main(argv("OwnContext", flags)) == 1
        assert "--nctx sets TRAINER.OWNCONTEXT.N_CTX, and the run's folder names it." in capsys.readouterr().err

    def test_the_folder_of_a_method_without_them_names_none(self, argv):
        [job] = sweep.plan(sweep.parse_args(argv("NoContext"))).values()
        assert str(job.target).endswith("/out/dtd/NoContext/tiny_1shots/seed1")
        assert not any("COOP" in word for word in job.argv)

    def test_a_method_with_its_own_gets_them(self, argv):
        [job] = sweep.plan(sweep.parse_args(argv("OwnContext", "--nctx 4 --ctp middle"))).values()
        assert str(job.target).endswith("/OwnContext/tiny_1shots/nctx4_cscFalse_ctpmiddle/seed1")
        group = "TRAINER.OWNCONTEXT"
        said = f"{group}.N_CTX 4 {group}.CSC False {group}.CLASS_TOKEN_POSITION middle DATASET.NUM_SHOTS 1"
        assert list(job.argv[-8:]) == said.split()


class TestTable:
    def test_means_and_words(self):
        cells = {(1, 1): 50.0, (1, 2): 53.0, (1, 3): 56.0, (2, 1): 60.0, (2, 2): "failed", (4, 3): "done"}
        lines = sweep.table_text(cells, [1, 2, 4, 8], [1, 2, 3]).splitlines()
        assert [line.split() for line in (lines[0], *lines[2:])] == [
            ["shots", "seed", "1", "seed", "2", "seed", "3", "mean", "+-", "std"],
            ["1", "50.00", "53.00", "56.00", "53.00", "+-", "2.45"],  # sqrt((9 + 0 + 9) / 3)
            ["2", "60.00", "failed", "60.00", "+-", "0.00", "(1", "of", "3", "seeds)"],
            ["4", "done"],
            ["8"],
        ]

    @pytest.fixture
    def swept(self, tmp_path, monkeypatch):
        """Sweeps with runs that only pretend: 50 % and the seed; with 2 shots the second seed fails."""

        def finish(left, n_workers):
            for job in left:
                shots, seed = (job.argv[job.argv.index(word) + 1] for word in ("DATASET.NUM_SHOTS", "--seed"))
                failed = shots == seed == "2"
                if not failed:
                    write_as_done(job, 50.0 + int(seed))
                yield job, "Error: it fails." if failed else "", 1.0

        monkeypatch.setattr(sweep, "launcher", lambda args: (1, finish))
        return lambda: sweep.main([*GRID.split(), "--output-dir", str(tmp_path)])

    def test_a_line_for_each_run_then_the_table(self, swept, tmp_path, capsys):
        assert swept() == 1
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert lines[:3] == [
            "4 of 4 runs are left; 1 side by side.",
            " 51.00 %      1 s     3 left   folder/CoOp/tiny_2shots/nctx16_cscFalse_ctpend/seed1",
            " 51.00 %      1 s     2 left   folder/CoOp/tiny_1shots/nctx16_cscFalse_ctpend/seed1",
        ]
        assert lines[3].startswith("  failed ") and lines[5] == ""
        assert lines[8].split() == ["1", "51.00", "52.00", "51.50", "+-", "0.50"]
        assert lines[9].split() == ["2", "51.00", "failed", "51.00", "+-", "0.00", "(1", "of", "2", "seeds)"]
        assert err.splitlines() == [
            "",
            "Error: it fails.",
            f"Failed: {tmp_path}/folder/CoOp/tiny_2shots/nctx16_cscFalse_ctpend/seed2",
            "First do what the errors say. What is done is kept: the same command does only what is left.",
        ]
        assert swept() == 1
        assert capsys.readouterr().out.startswith("1 of 4 runs are left")

    def test_what_makes_a_mean_doubtful_is_said_below(self, tmp_path, monkeypatch, capsys):
        """Here the test set has grown between the seeds."""

        def finish(left, n_workers):
            for job in left:
                write_as_done(job, 50.0)
                path = job.target / "results.json"
                total = 40 + int(job.target.name.removeprefix("seed"))
                path.write_text(json.dumps({**json.loads(path.read_text()), "total": total}))
                yield job, "", 1.0

        monkeypatch.setattr(sweep, "launcher", lambda args: (1, finish))
        assert sweep.main([*GRID.split(), "--output-dir", str(tmp_path)]) == 0
        said = "The runs of this average were tested on other items: 41 in seed1, 42 in seed2."
        assert f"Warning: shots 1, 2: {said}" in capsys.readouterr().out

    @pytest.mark.parametrize("columns, height", [(80, 5), (20, 9)], ids=["wide", "narrow: it folds lines"])
    def test_a_terminal_shows_the_table_from_the_start_and_redraws_it(
        self, swept, capsys, monkeypatch, columns, height
    ):
        monkeypatch.setattr(sweep.sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        swept()
        out = capsys.readouterr().out
        assert out.startswith("4 of 4 runs are left; 1 side by side.\n\n  shots ")
        tables = re.split("\033\\[\\d+F\033\\[J", out.split("side by side.\n")[1])
        heights = [sum(max(1, ceil(len(line) / columns)) for line in table.splitlines()) for table in tables]
        assert [int(n) for n in re.findall("\033\\[(\\d+)F", out)] == heights[:-1]
        assert heights[0] == height
        assert [table.count("51.00") + table.count("52.00") for table in tables[1:3]] == [2, 4]
        assert len(tables) == 6 and tables[5] == tables[4]


def test_an_interrupt(monkeypatch, capsys):
    monkeypatch.setattr(sweep, "plan", Mock(side_effect=Interrupted(signal.SIGINT)))
    assert sweep.main(GRID.split()) == 130
    assert capsys.readouterr().err.startswith("\nInterrupted. What is done is kept")


def test_runs_of_a_plug_in_in_one_process(tiny_files, tmp_path, sweep_here, capsys):
    data, clips = tiny_files

    plugin, options = write_plugin(tmp_path)
    words = f"--dataset folder --shots 1 --seeds 1 2 --cfg tiny --plugin {plugin} --plugin-config {options}"
    words += f" --root {data} --nctx 2 --output-dir {tmp_path}/swept {tiny_pairs(clips['vit'])}"
    assert sweep.main([*shlex.split(words), "TRAINER.MINE.ALPHA", "0.7"]) == 0
    results = [read_results(path.parent) for path in (tmp_path / "swept").rglob("results.json")]
    assert [(result["alpha"], result["total"]) for result in results] == [(0.7, 9), (0.7, 9)]
    assert sweep.main([*shlex.split(words), "TRAINER.MINE.ALPHA", "0.7"]) == 0
    assert "0 of 2 runs are left" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["--shots 1 2", "--shots 1 --views 2"])
def test_runs_in_one_process_are_those_of_train(tiny_files, tmp_path, flags, monkeypatch):
    data, clips = tiny_files
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # the worker's; another number, other last bits
    started, start = [], jobs.Worker.start
    monkeypatch.setattr(jobs.Worker, "start", lambda worker, job: started.append(worker) or start(worker, job))
    words = f"--dataset folder --seeds 1 2 --cfg tiny {flags} --nctx 2 --root {data} --output-dir {tmp_path}/swept"
    words += f" --jobs 1 {tiny_pairs(clips['vit'])}"
    assert sweep.main(shlex.split(words)) == 0
    swept, alone = planned(words), planned(words.replace("/swept", "/alone"))
    assert len(started) == len(swept) and len({worker.process.pid for worker in started}) == 1
    contexts = []
    for key, job in alone.items():
        assert train.main(list(job.argv)) == 0
        assert repeatable(swept[key].target) == repeatable(job.target)
        ctx, same = (context(run.target) for run in (job, swept[key]))
        # With views, a run may find some that another has encoded, beside other images: the last bits differ.
        assert_near(same, ctx, None if "views" in flags else 0.0)
        contexts.append(ctx)
    assert all(distance(contexts[0], ctx) > 0.01 for ctx in contexts[1:])
    assert all(job.done for job in swept.values())


def tiny_pairs(clip):
    """KEY VALUE pairs of a tiny run with a CLIP's file; it shares nothing through files."""
    pairs = "INPUT.SIZE (32,32) OPTIM.MAX_EPOCH 3 OPTIM.LR 0.1 OPTIM.WARMUP_EPOCH 0 DATALOADER.TRAIN_X.BATCH_SIZE 2"
    return f"MODEL.BACKBONE.NAME {clip} {pairs} USE_CUDA False FEATURES.DIR '' DATALOADER.NUM_WORKERS 0"


def context(run, epoch=3):
    """What a tiny run has learned."""
    return torch.load(run / f"prompt_learner/model.pth.tar-{epoch}")["state_dict"]["ctx"]
