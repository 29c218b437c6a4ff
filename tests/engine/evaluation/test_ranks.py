"""Several ranks leave of a test what one process leaves."""

import csv

import pytest

from engine.distributed import process_group
from tests.support.ranks import run_ranks
from tests.support.tiny_run import own_warnings, run_train, tiny_cfg, write_images


def do_runs(n, data, clip, folder):
    """The results, on the first of n ranks, and the rows of predictions.csv: of CoOp in random order, and of CoCoOp."""
    keys = ("FEATURES.DIR", "", "OPTIM.MAX_EPOCH", 1, "DATALOADER.TEST.SAMPLER", "RandomSampler")
    runs = {"CoOp": ("OPTIM.LR", 0.002), "CoCoOp": ("TRAINER.NAME", "CoCoOp")}

    def work(rank):
        with process_group(use_cuda=False):
            for name, pairs in runs.items():
                run = run_train(tiny_cfg(data, clip, folder / name, *keys, *pairs))
                done.append((run, read_rows(folder / name)))
        return done

    done = []
    outcomes = run_ranks(n, work, folder / "said")
    assert [code for code, _ in outcomes] == [0] * n, (folder / "said/rank0.err").read_text()
    return outcomes[0][1]


def read_rows(folder):
    with (folder / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_measures_temperature_and_predictions_are_those_of_one_process(tiny_files, tmp_path):
    data, clip = tiny_files[0], tiny_files[1]["vit"]
    alone, together = (do_runs(n, data, clip, tmp_path / str(n)) for n in (1, 2))
    assert alone[0][0]["temperature"] is not None
    for (one, rows), (several, found) in zip(alone, together, strict=True):
        for measure in ("accuracy", "balanced_accuracy", "nll", "brier", "ece", "temperature"):
            assert several[measure] == pytest.approx(one[measure], rel=1e-4)
        for expected, row in zip(rows, found, strict=True):
            for name in ("probability", "second_probability"):
                assert float(row.pop(name)) == pytest.approx(float(expected.pop(name)), abs=1e-5)
            assert row == expected


def test_a_selection_image_that_cannot_be_read_leaves_no_rank_waiting(tiny_files, tmp_path):
    data = write_images(tmp_path / "data")
    (data / "val/face/0.png").write_bytes(b"no image")
    for results, rows in do_runs(2, data, tiny_files[1]["vit"], tmp_path):
        assert results["temperature"] is None and len(rows) == 9
        assert own_warnings(results)[0].startswith("No temperature is fitted: a selection image cannot be read.")
