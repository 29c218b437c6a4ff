"""CoOp end to end through its scripts: trained, parsed, done, refused, killed and resumed, tested elsewhere.

A folder of four generated images per class and a CLIP of random weights stand for the real ones.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.tiny_clip import golden_state_dict

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("red_ball", "green_box", "blue_kite")
PARAMETERS = "folder tiny end 4 2 False"
RUNS = "folder/CoOp/tiny_2shots/nctx4_cscFalse_ctpend"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images/, clip.pt and, in time, the runs."""
    place = tmp_path_factory.mktemp("coop")
    torch.save(golden_state_dict("vit"), place / "clip.pt")
    rng = np.random.default_rng(0)
    for split, n_images in (("train", 4), ("test", 2)):
        for name in CLASSES:
            folder = place / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(n_images):
                pixels = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return place


def command(place, script, arguments, *pairs):
    fixed = f"MODEL.BACKBONE.NAME {place}/clip.pt INPUT.SIZE (32,32) USE_CUDA False".split()
    return ["bash", str(ROOT / "scripts/coop" / script), *arguments.split(), *fixed, *pairs]


def environment(place, **more):
    own = {"DATA": f"{place}/images", "OUTPUT": f"{place}/output", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, **more}


def call(place, script, arguments, *pairs, **more):
    call = command(place, script, arguments, *pairs)
    return subprocess.run(call, env=environment(place, **more), cwd=place, capture_output=True, text=True, timeout=200)


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def trained(place):
    """The folder of two runs of one epoch, seeds 1 and 2."""
    result = call(place, "main.sh", PARAMETERS, "OPTIM.MAX_EPOCH", "1", SEEDS="1 2")
    assert result.returncode == 0, result.stderr
    return place / "output" / RUNS


def test_every_seed_leaves_a_complete_folder(trained):
    for seed in (1, 2):
        folder = trained / f"seed{seed}"
        there = {path.name for path in folder.iterdir()}
        assert {"log.txt", "config.yaml", "results.json", "tensorboard", "prompt_learner"} <= there
        assert (folder / "prompt_learner/model.pth.tar-1").is_file()
        run = results(folder)
        expected = {"trainer": "CoOp", "dataset": "Folder", "source": "Folder", "seed": seed, "shots": 2, "cfg": "tiny"}
        expected |= {
            "n_ctx": 4,
            "csc": False,
            "class_token_position": "end",
            "subsample": "all",
            "epoch": 1,
            "total": 6,
        }
        assert {key: run[key] for key in expected} == expected
        assert run["accuracy"] == pytest.approx(100 * run["correct"] / 6)


def test_the_results_are_parsed(trained):
    parse = [sys.executable, "parse_test_res.py", str(trained)]
    printed = subprocess.run(parse, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    first, second = (results(trained / f"seed{seed}")["accuracy"] for seed in (1, 2))
    assert f"* accuracy: {(first + second) / 2:.2f}% +- {abs(first - second) / 2:.2f}%" in printed


def test_a_second_call_says_so_and_changes_nothing(place, trained):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    result = call(place, "main.sh", PARAMETERS, "OPTIM.MAX_EPOCH", "1", SEEDS="1")
    assert (result.returncode, result.stdout) == (0, f"Done already: {trained}/seed1 holds the results of this run.\n")
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()} == before


def test_another_configuration_in_the_same_folder_is_refused(place, trained):
    before = results(trained / "seed1")
    result = call(place, "main.sh", PARAMETERS, "OPTIM.MAX_EPOCH", "2", "OPTIM.LR", "0.1", SEEDS="1")
    assert result.returncode == 1
    assert "OPTIM.MAX_EPOCH is 1 there, 2 was asked for" in result.stderr
    assert "OPTIM.LR is 0.002 there, 0.1 was asked for" in result.stderr
    assert f"Failed: {trained}/seed1" in result.stderr
    assert results(trained / "seed1") == before


def test_what_was_learned_is_tested_on_another_data_set(place, trained):
    """`folder` stands for the source and for the target; the model is the trained one, so the accuracy is too."""
    which = {"SOURCE": "folder", "SHOTS": "2", "NCTX": "4", "SEEDS": "1"}
    result = call(place, "eval.sh", "folder tiny", **which)
    assert result.returncode == 0, result.stderr
    folder = place / "output/evaluation/CoOp/tiny_2shots/nctx4_cscFalse_ctpend/folder/seed1"
    assert f"Load {trained}/seed1/prompt_learner/model.pth.tar-1 (epoch 1)" in (folder / "log.txt").read_text()
    expected = {key: results(trained / "seed1")[key] for key in ("accuracy", "macro_f1", "source", "epoch", "n_ctx")}
    assert {key: results(folder)[key] for key in expected} == expected


def test_zero_shot_and_again(place):
    folder = place / "output/ZeroshotCLIP/tiny/folder"
    assert call(place, "zeroshot.sh", "folder tiny").returncode == 0
    assert results(folder)["total"] == 6
    again = call(place, "zeroshot.sh", "folder tiny")
    assert (again.returncode, again.stdout[:12]) == (0, "Done already")


def test_zero_shot_with_an_ensemble_of_prompts(place):
    assert call(place, "zeroshot.sh", "folder tiny", TRAINER="ZeroshotCLIP2").returncode == 0
    assert results(place / "output/ZeroshotCLIP2/tiny/folder")["trainer"] == "ZeroshotCLIP2"


def test_a_killed_run_is_not_done_and_goes_on(place):
    """Killed in epoch 3 of 20 and called again, it ends with the very context of a run that was left alone."""
    pairs = ("OPTIM.MAX_EPOCH", "20", "TRAIN.RESUME_EVERY_S", "0.1")
    main = command(place, "main.sh", PARAMETERS, *pairs)
    killed = {"SEEDS": "1", "OUTPUT": f"{place}/killed"}
    folder = place / "killed" / RUNS / "seed1"
    with subprocess.Popen(
        main, env=environment(place, **killed), start_new_session=True, stdout=subprocess.DEVNULL
    ) as process:
        wait_for(folder / "log.txt", "epoch [3/20]")
        os.killpg(process.pid, signal.SIGKILL)
    assert not (folder / "results.json").exists()

    again = call(place, "main.sh", PARAMETERS, *pairs, **killed)
    assert again.returncode == 0, again.stderr
    assert "Resume after epoch" in again.stdout
    assert results(folder)["epoch"] == 20

    untouched = call(place, "main.sh", PARAMETERS, *pairs, SEEDS="1", OUTPUT=f"{place}/untouched")
    assert untouched.returncode == 0, untouched.stderr
    assert torch.equal(context(folder), context(place / "untouched" / RUNS / "seed1"))


def wait_for(path, text):
    deadline = time.monotonic() + 120
    while not (path.is_file() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{path} never said {text}"
        time.sleep(0.01)


def context(folder):
    """The learned vectors (M, D) after the last epoch."""
    return torch.load(folder / "prompt_learner/model.pth.tar-20", weights_only=True)["state_dict"]["ctx"]


@pytest.mark.parametrize(
    ("arguments", "pairs", "message"),
    [
        ("folder tyny end 4 2 False", (), "Did you mean tiny.yaml?"),
        ("folder tiny end 4 2 False", ("DATASET.ROOT", "/nowhere"), "/nowhere is missing"),
    ],
)
def test_bad_input_ends_before_anything_is_trained(place, arguments, pairs, message):
    result = call(place, "main.sh", arguments, *pairs, SEEDS="1 2", OUTPUT=f"{place}/bad")
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("Error: ") == 1, "once, not for every seed"
    assert not list((place / "bad").rglob("results.json"))
