"""sweep.py --grid: values are compared on validation items alone, the best is tested; and what it refuses."""

import json
import re
import shlex
import statistics
import subprocess
import sys

import pytest

import sweep
from datasets.folder import Folder
from engine import DATASET_REGISTRY
from launch.grid import best_values
from tests.support.script_calls import ROOT

TINY = (
    "INPUT.SIZE (32,32) OPTIM.MAX_EPOCH 3 OPTIM.WARMUP_EPOCH 0 DATALOADER.TRAIN_X.BATCH_SIZE 2 "
    "DATALOADER.NUM_WORKERS 0 FEATURES.DIR '' USE_CUDA False"
)
RATES = ("0.0001", "0.1", "0.5")
FOLDER = "folder/CoOp/tiny_1shots/nctx2_cscFalse_ctpend"


@pytest.fixture
def swept(tiny_files, tmp_path, sweep_here, capsys):
    """Sweeps the tiny folder in this process; returns the exit code and what was printed."""
    data, clips = tiny_files

    def call(words, *pairs):
        words = f"--dataset folder --shots 1 --seeds 1 2 --cfg tiny --nctx 2 --root {data} {words}"
        words += f" --output-dir {tmp_path} {TINY} MODEL.BACKBONE.NAME {clips['vit']}"
        return sweep.main([*shlex.split(words), *pairs]), *capsys.readouterr()

    return call


def results(path):
    return json.loads((path / "results.json").read_text())


def test_values_are_compared_on_validation_items_and_the_best_is_tested(swept, tmp_path):
    assert swept(f"--grid OPTIM.LR {' '.join(RATES)}")[0] == 0
    runs = {rate: [tmp_path / FOLDER / f"val/OPTIM.LR={rate}/seed{seed}" for seed in (1, 2)] for rate in RATES}
    assert {results(run)["split"] for folders in runs.values() for run in folders} == {"val"}
    assert {results(run)["total"] for folders in runs.values() for run in folders} == {3}  # one of each class
    assert [results(folders[0])["settings"]["OPTIM.LR"] for folders in runs.values()] == [0.0001, 0.1, 0.5]
    validated = {rate: [results(run)["accuracy"] for run in folders] for rate, folders in runs.items()}
    best = max(RATES, key=lambda rate: statistics.fmean(validated[rate]))
    assert best != RATES[0]
    [folder] = (tmp_path / FOLDER / "test").iterdir()
    assert folder.name == f"OPTIM.LR={best}"
    tested = [results(folder / f"seed{seed}") for seed in (1, 2)]
    assert [(result["split"], result["total"], result["source"]) for result in tested] == [("test", 9, "Folder")] * 2
    assert [result["trained_with"] for result in tested] == [results(run)["settings"] for run in runs[best]]
    assert [result["selection"] for result in tested] == 2 * [
        {"epoch": "none", "hyperparameters": "few-shot validation"}
    ]
    assert "have chosen" not in str(tested)  # none of the images tested on

    code, out, _ = swept(f"--grid OPTIM.LR {' '.join(RATES)}")
    assert code == 0 and "0 of 6 runs are left" in out and "0 of 2 runs are left" in out
    table = {words[1]: words[2:] for words in map(str.split, out.splitlines()) if words[:1] == ["1"]}
    for rate in RATES:
        numbers = [validated[rate]] + [[result["accuracy"] for result in tested]] * (rate == best)
        spreads = (f"{statistics.fmean(of):.2f} +- {statistics.pstdev(of):.2f}".split() for of in numbers)
        assert table[rate] == [word for words in spreads for word in words] + ["best"] * (rate == best)


def test_axes_multiply(swept):
    code, out, _ = swept("--grid OPTIM.LR 0.1 0.2 --grid OPTIM.MOMENTUM 0.5 0.9 --dry-run")
    assert code == 0 and out.splitlines()[-2] == "8 of 8 runs are left."
    folders = re.findall(r"/val/(\S+)/seed1", out)
    assert folders == [f"OPTIM.LR={rate},OPTIM.MOMENTUM={m}" for rate in (0.1, 0.2) for m in (0.5, 0.9)]
    assert out.count(" TEST.SPLIT val ") == 8


def test_views_are_an_axis_too(swept):
    code, out, _ = swept("--grid INPUT.VIEWS 1 2 --dry-run")
    assert code == 0 and out.count(" INPUT.VIEWS 2 ") == 2


def test_best_values():
    one, two, three = ((("K", str(i)),) for i in range(3))
    cells = {(1, one, 1): 60.0, (1, one, 2): 70.0, (1, two, 1): 65.0, (1, two, 2): 65.0}
    cells |= {(1, three, 1): 99.0, (1, three, 2): "failed"}  # over other seeds than the others
    assert best_values(cells, 1, [1, 2]) == one
    assert best_values(cells, 1, [1]) == three
    assert best_values({(1, three, 2): "failed"}, 1, [2]) is None


class NoVal(Folder):
    @classmethod
    def read_items(cls, root):
        train, _, test = super().read_items(root)
        return train, [], test


class ValIsTest(NoVal):
    val_is_test = True  # as ImageNet's


@pytest.mark.parametrize(
    "dataset, said", [(ValIsTest, "validates on its test items"), (NoVal, "has no validation items")]
)
def test_without_validation_items_of_its_own_nothing_is_chosen(swept, register, tmp_path, dataset, said):
    register(DATASET_REGISTRY, dataset)
    code, _, err = swept("--grid OPTIM.LR 1 2", "DATASET.NAME", dataset.__name__)
    assert code == 1 and f"--grid chooses by validation items, but {dataset.__name__} {said}." in err
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize(
    "words, message",
    [
        ("--grid OPTIM.LR", "--grid OPTIM.LR: an axis is a config key and its values, such as --grid OPTIM.LR 0.002"),
        ("--grid 0.1 0.2", "--grid 0.1 0.2: an axis is a config key and its values"),
        ("--grid OPTIM.LR 0.1 OPTIM.NAME sgd", "OPTIM.NAME is a key. Put KEY VALUE pairs behind another flag"),
        ("--grid SEED 1 2", "--grid SEED 1 2: --seeds sets SEED. Leave one of them out."),
        ("--grid TEST.SPLIT val test", "--grid sets TEST.SPLIT"),
        (
            "--grid OPTIM.LR 1 2 --views 2 TEST.SPLIT test",
            "TEST.SPLIT is among the KEY VALUE pairs, but --grid sets it",
        ),
        ("--grid OPTIM.LR 1 2 --views 2 OPTIM.LR 3", "a KEY VALUE pair sets OPTIM.LR. Leave one of them out."),
        ("--grid OPTIM.LR 1 --grid OPTIM.LR 2", "Give each key once, with all its values."),
    ],
)
def test_flags(words, message, capsys):
    with pytest.raises(SystemExit):
        sweep.parse_args(f"--dataset folder --shots 1 --cfg tiny {words}".split())
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_value_that_no_run_can_use_is_refused_before_anything_runs(swept, tmp_path):
    code, _, err = swept("--grid OPTIM.LR 0.1 -1")
    assert code == 1 and "OPTIM.LR is -1" in err and not any(tmp_path.iterdir())


def test_a_new_process_finds_what_is_done(swept, tiny_files, tmp_path):
    """Planning registers the trainers: their keys are no plug-in's, which would count at their defaults too."""
    assert swept("")[0] == 0
    words = f"--dataset folder --shots 1 --seeds 1 2 --cfg tiny --nctx 2 --root {tiny_files[0]} --dry-run"
    words += f" --output-dir {tmp_path} {TINY} MODEL.BACKBONE.NAME {tiny_files[1]['vit']}"
    command = [sys.executable, "sweep.py", *shlex.split(words)]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.stdout.splitlines()[-1] == "0 of 2 runs are left.", again.stderr
