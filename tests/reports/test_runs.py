"""How parse_test_res.py reads one run: logs of this project and of the original, results.json, unfinished runs."""

import json

import pytest

from parse_test_res import parse_run
from tests.reports.test_parse_test_res import LOG, parse, write_runs

# The original prints one decimal, tabs, and its evaluator's line between two others.
ORIGINAL_LOG = """** Arguments **
trainer: CoOp
epoch [200/200][50/50]\ttime 0.118 (0.123)\tdata 0.000 (0.012)\teta 0:00:00\tloss 0.0512 (0.1203)\tlr 1.2337e-07
Checkpoint saved to "output/caltech101/CoOp/rn50_16shots/seed1/prompt_learner/model.pth.tar-200"
Finish training
Deploy the last-epoch model
Do evaluation on test set
=> result
* total: 2,465
* correct: 2,268
* accuracy: 92.0%
* error: 8.0%
* macro_f1: 88.9%
Elapsed: 0:21:36
"""


def test_log_of_the_original(tmp_path):
    (tmp_path / "log.txt").write_text(ORIGINAL_LOG)
    assert parse_run(tmp_path).value == 92.0
    assert parse_run(tmp_path, keyword="macro_f1").value == 88.9


@pytest.mark.parametrize(
    "number, value", [("1e+02", 100.0), ("100", 100.0), (".5", 0.5), ("9.2E1", 92.0), ("0.0", 0.0)]
)
def test_numbers(number, value, tmp_path):
    (tmp_path / "log.txt").write_text(LOG.format(accuracy=number))
    assert parse_run(tmp_path).value == value


def test_only_a_result_after_the_end_of_training_counts(tmp_path):
    validation = "=> result\n* accuracy: 10.0%\n"
    (tmp_path / "log.txt").write_text(validation + LOG.format(accuracy="92.0") + "Loading checkpoint\n")
    assert parse_run(tmp_path).value == 92.0


def test_the_last_of_several_results_counts(tmp_path):
    (tmp_path / "log.txt").write_text(LOG.format(accuracy="50.0") + LOG.format(accuracy="60.0"))
    assert parse_run(tmp_path).value == 60.0


def test_test_log(tmp_path, capsys):
    write_runs(tmp_path, ["91.0"])
    path = tmp_path / "seed1" / "log.txt"
    path.write_text(path.read_text().replace("Finish training\n", ""))
    code, lines, error = parse(capsys, tmp_path)
    assert code == 1 and "add --test-log" in lines[1] and "holds no finished run (run folders: 1)" in error
    assert "* accuracy: 91.00% +- 0.00%" in parse(capsys, tmp_path, "--test-log")[1]


def test_a_run_cut_short_is_left_out_and_said(tmp_path, capsys):
    write_runs(tmp_path, ["91.0", "93.0", "92.0", "94.0"])
    (tmp_path / "seed3" / "log.txt").write_text("=> result\n* accuracy: 10.0%\nepoch [3/50] loss 0.5\n")
    (tmp_path / "seed4" / "log.txt").write_text("Finish training\nDo evaluation on test set\n")
    (tmp_path / "seed5").mkdir()
    code, lines, _ = parse(capsys, tmp_path)
    assert code == 0
    left_out = [line.removeprefix(f"Warning: left out {tmp_path}/") for line in lines if line.startswith("Warning")]
    assert left_out == [
        'seed3: log.txt: no line "Finish training", so the run is not finished.',
        'seed4: log.txt: no line "* accuracy: NUMBER%" after "Finish training".',
        "seed5: it has neither log.txt nor results.json.",
    ]
    assert lines[-3:] == ["* accuracy: 92.00% +- 1.00%", "(over 2 of 5 runs)", "==="]


def test_unknown_keyword_names_the_results_there_are(tmp_path, capsys):
    write_runs(tmp_path, ["91.0"])
    code, lines, _ = parse(capsys, tmp_path, "--keyword", "acc")
    assert code == 1
    assert lines[1].endswith('no line "* acc: NUMBER%" after "Finish training"; there are accuracy, error, macro_f1.')


@pytest.mark.parametrize(
    "line", ["Loading CLIP (backbone: RN50)", "Resume after epoch 3 from out", "epoch [4/50] batch"]
)
@pytest.mark.parametrize(
    ("args", "end"), [([], "Finish training"), (["--test-log"], "=> result")], ids=["", "test-log"]
)
def test_a_run_started_again_and_cut_short_is_left_out(tmp_path, capsys, line, args, end):
    write_runs(tmp_path, ["91.0", "93.0"])
    with (tmp_path / "seed2" / "log.txt").open("a") as log:
        log.write(f"Seed: 2\n{line}\n")
    lines = parse(capsys, tmp_path, *args)[1]
    warning = f'Warning: left out {tmp_path}/seed2: log.txt: it goes on after "{end}" with "{line}", so the run is not'
    assert [line for line in lines if line.startswith(warning)]
    assert "* accuracy: 91.00% +- 0.00%" in lines
    with (tmp_path / "seed2" / "log.txt").open("a") as log:
        log.write(LOG.format(accuracy="95.0"))
    assert "* accuracy: 93.00% +- 2.00%" in parse(capsys, tmp_path, *args)[1]


def test_results_json_decides_where_it_is(tmp_path):
    write_runs(tmp_path, ["91.0"])
    with (tmp_path / "seed1" / "log.txt").open("a") as log:
        log.write("Loading CLIP (backbone: RN50)\n")
    (tmp_path / "seed1" / "results.json").write_text('{"accuracy": 91.04}')
    assert parse_run(tmp_path / "seed1").value == 91.04


def test_results_json_is_read_where_there_is_no_log(tmp_path, capsys):
    results = {"accuracy": 91.5, "error_rate": 8.5, "trainer": "CoOp"}
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / "results.json").write_text(json.dumps(results))
    assert f"file: {tmp_path}/seed1/results.json. accuracy: 91.50%. " in parse(capsys, tmp_path)[1]
    assert parse_run(tmp_path / "seed1", keyword="error").value == 8.5
    problem = parse_run(tmp_path / "seed1", keyword="trainer").problem
    assert problem == 'results.json: no number under the key "trainer"; there are accuracy, error_rate'
    (tmp_path / "seed1" / "results.json").write_text("[91.5]")
    assert parse_run(tmp_path / "seed1").problem == 'results.json: no number under the key "accuracy"'
    (tmp_path / "seed1" / "results.json").write_text('{"accuracy": 91')
    assert parse_run(tmp_path / "seed1").problem.startswith("results.json: Expecting")
