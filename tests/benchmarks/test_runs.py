"""Benchmarks of whole runs: both sides compute the same, and what runs take is added up from their parts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import checkpoints, evaluation, parts, runs, sweep, train_run
from clip.model import build_model
from tests.benchmarks.checks import SMALL, check_rows, rows_of
from tests.support.naive import naive_features
from tests.support.tiny_clip import golden_state_dict
from tests.support.tolerance import assert_near, rounding_tolerance


def test_checkpoints(tiny_files, tmp_path, capsys):
    data, clips = tiny_files
    words = "--shots 1 --repeats 1 --steps 20 --seconds 10 --json".split() + [str(tmp_path / "results.json")]
    pairs = ["DATASET.NAME", "Folder", "DATASET.ROOT", str(data), "MODEL.BACKBONE.NAME", str(clips["vit"])]
    checkpoints.main([*words, *pairs, *SMALL, "INPUT.SIZE", "(32, 32)", "DATALOADER.TRAIN_X.BATCH_SIZE", "1"])
    content, [row] = rows_of(words)
    assert row["note"].startswith("3 steps; a write takes ") and ", one in 10 s is " in row["note"]
    early, late = content["rows"][1:]
    assert (early["case"], late["case"]) == ("after 3 steps", "after 21 steps")
    assert 0 < late["resident_gb"] < early["resident_gb"] + 0.1
    assert late["case"] in capsys.readouterr().out


def test_evaluation(run_words, capsys):
    evaluation.main([*run_words, *SMALL])
    _, [first, again] = rows_of(run_words)
    check_rows([first, again])
    assert first["images"] == [8, 8] and again["images"] == [8, 0]
    assert first["positions"][0] == 2 * 3 * 77  # two batches
    assert "all 9 images, extrapolated" in first["note"]
    assert "images encoded: 8 -> 0" in capsys.readouterr().out


def test_train_run(run_words):
    train_run.main([*run_words, "--views", "3", "OPTIM.WARMUP_EPOCH", "-1", *SMALL])
    _, rows = rows_of(run_words)
    check_rows(rows)
    fresh, views = rows[-2:]
    assert (fresh["case"], views["case"]) == ("fresh views", "INPUT.VIEWS 3")
    # three seeds of 8 epochs with one batch of three images, and nine test images in three batches
    assert fresh["images"] == [3 * (8 * 3 + 9), 3 * 8 * 3 + 9]
    assert views["images"] == [3 * (8 * 3 + 9), 3 * 3 * 3 + 9]
    assert fresh["positions"][0] == 3 * (8 + 3) * 3 * 77


def test_ours_in_bf16_is_compared_with_both_naive_runs(run_words):
    """The difference from float32 is bfloat16's rounding, far above what `check_rows` allows."""
    train_run.main([*run_words, "--prec", "bf16", *SMALL])
    _, rows = rows_of(run_words)
    both = {row["case"]: row for row in rows}
    assert len(both) == len(rows) == 2 * 7
    for case in ("epoch, fresh views", "first test"):
        assert rounding_tolerance() < both[f"{case}, naive fp32"]["difference"] < 0.1
        assert both[case]["ours_s"] == both[f"{case}, naive fp32"]["ours_s"]
        assert both[case]["naive_s"] != both[f"{case}, naive fp32"]["naive_s"]


@pytest.mark.parametrize("benchmark", (evaluation, sweep))
def test_benchmarks_of_whole_runs_have_a_naive_run_in_float32(benchmark, run_words):
    benchmark.main([*run_words, "--prec", "bf16", *SMALL])
    cases = [row["case"] for row in rows_of(run_words)[1]]
    in_float32 = [case for case in cases if case.endswith(", naive fp32")]
    assert in_float32 and {case.removesuffix(", naive fp32") for case in in_float32} == {*cases} - {*in_float32}


def test_sweep(run_words):
    sweep.main(["--shots", "1", "4", "--seeds", "1", "2", *run_words, "--views", "3", *SMALL])
    _, rows = rows_of(run_words)
    check_rows(rows)
    # of two seeds each: one batch of three images, three batches of four
    assert rows[-1]["case"] == "4 runs, INPUT.VIEWS 3"
    assert rows[-1]["images"] == [2 * 8 * (3 + 12) + 4 * 9, 2 * 3 * (3 + 12) + 9]
    assert rows[-1]["positions"][0] == (2 * 8 * (1 + 3) + 4 * 3) * 3 * 77


def test_the_grid_has_the_papers_epochs(run_words, tmp_path):
    words = ["--shots", "1", "2", "4", "--seeds", "1", *run_words, *SMALL[:-2]]
    assert {run.n_epochs for run in sweep.grid(sweep.parse_args(words), tmp_path)} == {50, 100}


def test_the_naive_run_is_the_formula(run_args, tmp_path):
    trainer = runs.build_run(run_args, tmp_path)
    naive, ctx = runs.NaiveRun(trainer), trainer.model.prompt_learner.ctx
    clip_model = build_model(golden_state_dict("rn"))
    naive.test()
    images = torch.cat([batch["img"] for batch in trainer.test_loader])
    texts = naive_features(clip_model, ctx, trainer.dm.dataset.classnames, "end")
    expected = (
        clip_model.logit_scale.exp()
        * F.normalize(clip_model.encode_image(images), dim=-1)
        @ F.normalize(texts, dim=-1).t()
    )
    assert_near(naive.logits, expected)


def test_what_runs_take_is_added_up_from_their_parts():
    epoch, test, *seconds = (np.array([s, 10.0 * s]) for s in (100.0, 300.0, 20.0, 21.0, 2.0, 200.0, 1.0))
    naive = {"": (epoch, test), ", naive fp32": (2 * epoch, test)}
    measured = parts.Parts(naive, *seconds, 5.0, parts.Run(50, 3, 96, 100), (7700, 363), (2465, 25))
    seeds, grid = [measured.run] * 3, [parts.Run(50, 3, 96, 100), parts.Run(200, 6, 192, 220)]
    assert measured.naive_time(seeds).tolist() == [3 * (5 + 50 * 100 + 300), 3 * (5 + 50 * 1000 + 3000)]
    assert measured.naive_time(seeds, ", naive fp32")[0] == 3 * (5 + 50 * 200 + 300)
    assert measured.our_time(seeds, views=0, start_s=15.0)[0] == 15 + 3 * 50 * 20 + 200 + 2 * 1
    assert measured.our_time(seeds, views=8, start_s=15.0)[0] == 15 + 3 * (8 * 21 + 50 * 2) + 200 + 2 * 1
    assert measured.our_time(seeds, views=99, start_s=15.0)[0] == 15 + 3 * 50 * (21 + 2) + 200 + 2 * 1
    assert measured.naive_time(grid)[0] == 2 * (5 + 300) + 50 * 100 + 200 * 2 * 100
    views_s, epochs_s = 8 * (1 + 2.2) * 21, (50 + 200 * 2) * 2  # by images, by batches
    assert measured.our_time(grid, views=8, start_s=6.0)[0] == pytest.approx(6 + views_s + epochs_s + 200 + 1)
    assert measured.all_positions(grid) == (7700 * (150 + 1200 + 2 * 25), 363 * (150 + 1200 + 2))
