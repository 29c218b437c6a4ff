"""Every registered trainer: predictions.csv gives the accuracy of results.json, and predict.py the same answers."""

import csv

import pytest

import predict
from engine import TRAINER_REGISTRY
from tests.support.tiny_run import run_train, tiny_cfg


def read(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("name", TRAINER_REGISTRY.registered_names())
def test_predictions_of_a_run_are_those_of_predict(tiny_files, tmp_path, name):
    data, run = tiny_files[0], tmp_path / "run"
    pairs = ("TRAINER.NAME", name, "RUN.EVAL_ONLY", name.startswith("Zeroshot"), "OPTIM.MAX_EPOCH", 2)
    results = run_train(tiny_cfg(data, tiny_files[1]["vit"], run, "FEATURES.DIR", "", *pairs))

    out = tmp_path / "answers.csv"
    assert predict.main([str(run), str(data / "test"), "--format", "csv", "--topk", "2", "--out", str(out)]) == 0

    rows, answers = read(run / "predictions.csv"), {row["path"]: row for row in read(out)}
    assert 100 * sum(row["prediction"] == row["true"] for row in rows) / len(rows) == pytest.approx(results["accuracy"])
    assert [str(data / row["path"]) for row in rows] == list(answers)
    for row in rows:
        answer = answers[str(data / row["path"])]
        assert (row["true"], row["prediction"], row["second"]) == (
            answer["true"],
            answer["prediction"],
            answer["class_2"],
        )
        for ours, theirs in (("probability", "probability_1"), ("second_probability", "probability_2")):
            assert float(row[ours]) == pytest.approx(float(answer[theirs]), abs=2e-6)
