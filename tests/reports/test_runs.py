"""How one run is read: logs of this project and of the original, results.json, unfinished runs."""

import json

import pytest

from reports.runs import END_OF_TEST, END_OF_TRAINING, parse_run
from tests.support.made_up_results import LOG, TEST_LOG

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


@pytest.fixture
def read(tmp_path):
    """Writes a log, or results.json, and reads the run."""

    def read(text, name="log.txt", **options):
        (tmp_path / name).write_text(text)
        return parse_run(tmp_path, **options)

    return read


def test_log_of_the_original(read):
    assert read(ORIGINAL_LOG).value == 92.0
    assert read(ORIGINAL_LOG, keyword="macro_f1").value == 88.9


def test_numbers(read):
    for number, value in {"1e+02": 100.0, "100": 100.0, ".5": 0.5, "9.2E1": 92.0, "0.0": 0.0}.items():
        assert read(LOG.format(accuracy=number)).value == value


def test_the_last_result_after_the_end_of_training_counts(read):
    validation, log = "=> result\n* accuracy: 10.0%\n", LOG.format(accuracy="50.0")
    assert read(validation + log + "Loading checkpoint\n").value == 50.0
    assert read(log + LOG.format(accuracy="60.0")).value == 60.0


@pytest.mark.parametrize(
    "text, problem",
    [
        ("* accuracy: 10.0%\nepoch [3/50] loss 0.5\n", 'no line "Finish training", so the run is not finished'),
        ("Finish training\nDo evaluation\n", 'no line "* accuracy: NUMBER%" after "Finish training"'),
        (
            TEST_LOG.format(accuracy=50.0),
            'no line "Finish training", so the run is not finished; for logs of testing only add --test-log',
        ),
    ],
)
def test_a_log_that_is_cut_short(read, text, problem):
    assert (read(text).value, read(text).problem) == (None, f"log.txt: {problem}")


def test_a_test_has_no_end_of_training(read):
    assert read(TEST_LOG.format(accuracy="57.03"), end_signal=END_OF_TEST).value == 57.03


@pytest.mark.parametrize(
    "line", ["Loading CLIP (backbone: RN50)", "Resume after epoch 3 from out", "epoch [4/50] batch"]
)
@pytest.mark.parametrize("end", [END_OF_TRAINING, END_OF_TEST])
def test_a_run_started_again_and_cut_short(read, line, end):
    again = LOG.format(accuracy="93.0") + f"Seed: 2\n{line}\n"
    problem = f'log.txt: it goes on after "{end}" with "{line}", so the run is not finished'
    assert read(again, end_signal=end).problem == problem
    assert read(again + LOG.format(accuracy="95.0"), end_signal=end).value == 95.0


def test_nothing_there(tmp_path):
    assert parse_run(tmp_path).problem == "it has neither log.txt nor results.json"


def test_results_json_counts_before_the_log(read):
    read(LOG.format(accuracy="91.0") + "Loading CLIP (backbone: RN50)\n")
    assert read('{"accuracy": 91.04}', "results.json").value == 91.04


def test_results_json(read):
    text = json.dumps({"accuracy": 91.5, "error_rate": 8.5, "perclass_accuracy": 90.0, "trainer": "CoOp"})
    assert read("[91.5]", "results.json").problem == 'results.json: no number under the key "accuracy"'
    for keyword, value in {"accuracy": 91.5, "error": 8.5, "average": 90.0}.items():
        assert read(text, "results.json", keyword=keyword).value == value
    assert read(text, "results.json", keyword="trainer").problem == (
        'results.json: no number under the key "trainer"; there are accuracy, error_rate, perclass_accuracy'
    )
