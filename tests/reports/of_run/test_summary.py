"""report.py --run as a text, and every call of it that is refused."""

import json

import pytest

from report import main
from tests.reports.of_run.made_up_run import write_run

ROWS = [
    ["a.jpg", "cat", "cat", "0.900000", "dog", "0.100000", 1],
    ["b.jpg", "cat", "dog", "0.800000", "cat", "0.100000", 2],
    ["c.jpg", "dog", "dog", "0.700000", "cat", "0.200000", 1],
    ["d.jpg", "fox", "dog", "0.600000", "cat", "0.300000", 3],
    ["e.jpg", "fox", "dog", "0.600000", "cat", "0.300000", 3],
]


def test_text(tmp_path, call):
    write_run(tmp_path / "run", ROWS, classnames=["cat", "dog", "fox", "owl"], warnings=["Chance is near."])
    code, out, err = call(main, "--run", tmp_path / "run")
    assert (code, err) == (0, "")
    assert (
        out
        == f"""CoOp on Folder
  Run         {tmp_path / "run"}
  Trained on  Folder
  Shots       16
  Epochs      2
  Seed        1
  Tested on   5 images (test)

  Accuracy  40.00%
  Macro F1  50.00%

Warning: Chance is near.
1 of 4 classes have no image in this test.

Worst classes:
     0.0%  0 of 2  fox
    50.0%  1 of 2  cat
   100.0%  1 of 1  dog

Most confused:
  2 of 2  fox taken for dog
  1 of 2  cat taken for dog
"""
    )


def test_classes_of_one_name_are_said_and_counted_as_one(tmp_path, call):
    write_run(tmp_path / "run", ROWS, classnames=["cat", "dog", "fox", "fox"], correct=1)
    code, out, _ = call(main, "--run", tmp_path / "run")
    assert code == 0 and "Classes of one name are one class below: 1 of 4 have the name of another." in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "latex"), "--format is latex; with --run it must be one of text, html."),
        (("--output-dir", "output"), "--run shows one run; tables, --output-dir, --ci and --baseline are for many"),
        (("--ci",), "--run shows one run; tables, --output-dir, --ci and --baseline are for many"),
        (("--baseline", "CoOp"), "--run shows one run; tables, --output-dir, --ci and --baseline are for many"),
        (("shapes",), "--run shows one run; tables, --output-dir, --ci and --baseline are for many"),
        (("--out", "no/such/page.html"), "the folder"),
    ],
)
def test_calls_that_make_no_sense(tmp_path, call, words, message):
    write_run(tmp_path / "run", ROWS)
    code, out, err = call(main, *words, "--run", tmp_path / "run")
    assert (code, out) == (1, "") and err.startswith("Error: ") and message in err


def gone(folder):
    (folder / "predictions.csv").rename(folder.parent / "elsewhere.csv")
    folder.rename(folder.parent / "renamed")


def to_file(folder):
    gone(folder)
    folder.write_text("")


def above(folder):
    folder.rename(folder.parent / "seed1")
    folder.mkdir()
    (folder.parent / "seed1").rename(folder / "seed1")


def cut(folder):
    path = folder / "predictions.csv"
    path.write_bytes(path.read_bytes()[:-9])


def short(folder):
    path = folder / "predictions.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))


def replace(old, new):
    def change(folder):
        text = (folder / "predictions.csv").read_text()
        assert old in text
        (folder / "predictions.csv").write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (gone, "does not exist"),
        (to_file, "Name the run's folder, which holds config.yaml"),
        (above, "is no run's folder: it has no config.yaml and no results.json. It holds the runs seed1: name one."),
        (lambda folder: (folder / "results.json").unlink(), "is not finished: it has no results.json. Finish it with"),
        (lambda folder: (folder / "results.json").write_text("[]"), "is not JSON as a run writes it"),
        (lambda folder: (folder / "classes.json").write_text("[]"), "does not hold class names"),
        (lambda folder: (folder / "config.yaml").write_text("!!python/name:os.system"), "is not valid YAML"),
        (cut, "predictions.csv, line 6: there are 6 values, expected 7: perhaps the file is cut short"),
        (short, 'predictions.csv has 4 under "total", results.json 5: it is cut short, or of another test'),
        (replace("cat,cat", "cat,dog"), 'predictions.csv has 1 under "correct", results.json 2'),
        (replace("path,true", "true,path"), "line 1: the columns are true,path,"),
        (replace("0.900000", "nan"), "line 2: a probability is nan, expected 0 to 1. Delete the file and test again."),
        (replace("0.900000", "1.2"), "line 2: a probability is 1.2, expected 0 to 1"),
        (replace("0.900000", "much"), "line 2: a probability is much, expected 0 to 1"),
        (replace("0.100000,1", "0.100000,0"), "line 2: the rank is 0, expected a number from 1"),
        (replace("a.jpg", "a" * 200_000), "field larger than field limit"),
    ],
)
def test_folders_that_are_refused(tmp_path, call, damage, message):
    folder = write_run(tmp_path / "run", ROWS)
    damage(folder)
    code, out, err = call(main, "--run", folder)
    assert (code, out) == (1, "") and err.startswith("Error: ") and message in err
    assert "Traceback" not in err


def test_a_run_of_an_older_version(tmp_path, call):
    folder = write_run(tmp_path / "run", ROWS)
    for name in ("predictions.csv", "classes.json", "log.txt"):
        (folder / name).unlink()
    code, out, _ = call(main, "--run", folder)
    assert code == 0 and "Accuracy  40.00%" in out
    command = f"python train.py --config-file {folder}/config.yaml --output-dir {folder}/test --eval-only --model-dir"
    assert f"need predictions.csv, which this run has not left. Test it again: {command} {folder}" in out
    (folder / "config.yaml").unlink()
    (folder / "results.json").write_text(json.dumps({"accuracy": float("nan"), "warnings": 7, "total": "many"}))
    code, out, _ = call(main, "--run", folder)
    assert code == 0 and out.startswith("a run on a run\n") and "Nothing was measured" in out
