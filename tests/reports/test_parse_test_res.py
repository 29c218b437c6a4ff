"""parse_test_res.py against numbers worked out by hand."""

import errno
import re
from pathlib import Path

import pytest

from parse_test_res import main, summarise
from tests.support.made_up_results import CUT_LOG, LOG, TEST_LOG, write_logs, write_results


@pytest.fixture
def parse(call):
    """Calls the command; returns its exit code, its lines and its error."""

    def parse(*args):
        code, out, error = call(main, *args)
        return code, out.splitlines(), error

    return parse


def test_report(tmp_path, parse):
    write_logs(tmp_path, "", {1: "91.81", 2: "92.01", 3: "92.17"})
    assert parse(tmp_path) == (
        0,
        [
            f"Parsing files in {tmp_path}",
            f"file: {tmp_path}/seed1/log.txt. accuracy: 91.81%. ",
            f"file: {tmp_path}/seed2/log.txt. accuracy: 92.01%. ",
            f"file: {tmp_path}/seed3/log.txt. accuracy: 92.17%. ",
            "===",
            f"Summary of directory: {tmp_path}",
            "* accuracy: 92.00% +- 0.15%",
            "===",
        ],
        "",
    )


def test_ci95(tmp_path, parse):
    write_logs(tmp_path, "", {1: "80.0", 2: "90.0"})  # population standard deviation 5; 1.96 * 5 / sqrt(2) = 6.93
    assert "* accuracy: 85.00% +- 6.93%" in parse(tmp_path, "--ci95")[1]
    assert summarise([80.0, 90.0]) == (85.0, 5.0)
    assert summarise([80.0, 90.0], ci95=True) == pytest.approx((85.0, 6.92965))
    assert summarise([70.0], ci95=True) == (70.0, 0.0)


def test_keyword(tmp_path, parse):
    (tmp_path / "log.txt").write_text(LOG.format(accuracy="91.81"))  # of the run itself
    (tmp_path / "tensorboard").mkdir()
    assert "* accuracy: 91.81% +- 0.00%" in parse(tmp_path)[1]
    assert "* macro_f1: 91.20% +- 0.00%" in parse(tmp_path, "--keyword", "macro_f1")[1]
    assert "* error: 7.99% +- 0.00%" in parse(tmp_path, "--keyword", "error")[1]
    code, lines, _ = parse(tmp_path, "--keyword", "acc")
    assert code == 1
    assert lines[1].endswith('no line "* acc: NUMBER%" after "Finish training"; there are accuracy, error, macro_f1.')


def test_measures_that_are_no_percentage(tmp_path, parse):
    for seed, nll in ((1, 0.5), (2, 0.7)):
        write_results(tmp_path, "", {seed: 90.0}, nll=nll, top5_accuracy=None)
    assert "* nll: 0.6000 +- 0.1000" in parse(tmp_path, "--keyword", "nll")[1]
    assert parse(tmp_path, "--keyword", "top5_accuracy")[0] == 1


def test_seeds_are_in_the_order_of_their_numbers(tmp_path, parse):
    write_logs(tmp_path, "", dict.fromkeys(range(1, 12), "90.0"))
    lines = parse(tmp_path)[1]
    assert [Path(line.split()[1]).parent.name for line in lines[1:12]] == [f"seed{seed}" for seed in range(1, 12)]


def test_unfinished_runs_are_named_and_left_out(tmp_path, parse):
    write_logs(tmp_path, "", {1: "91.0", 2: "93.0"})
    write_logs(tmp_path, "", {3: ""}, CUT_LOG)
    (tmp_path / "seed4").mkdir()
    code, lines, _ = parse(tmp_path)
    assert code == 0
    assert [line.removeprefix(f"Warning: left out {tmp_path}/") for line in lines if line.startswith("Warning")] == [
        'seed3: log.txt: no line "Finish training", so the run is not finished.',
        "seed4: it has neither log.txt nor results.json.",
    ]
    assert lines[-3:] == ["* accuracy: 92.00% +- 1.00%", "(over 2 of 4 runs)", "==="]


def test_logs_of_tests(tmp_path, parse):
    write_logs(tmp_path, "", {1: "91.0"}, TEST_LOG)
    assert parse(tmp_path)[0] == 1
    assert "* accuracy: 91.00% +- 0.00%" in parse(tmp_path, "--test-log")[1]


def test_several_experiments(tmp_path, parse):
    write_logs(tmp_path, "caltech101", {1: "90.0", 2: "92.0"})
    write_logs(tmp_path, "dtd", {1: "60.0"})
    code, lines, _ = parse(tmp_path, "--multi-exp")
    assert code == 0
    assert "* accuracy: 91.00% +- 1.00%" in lines and "* accuracy: 60.00% +- 0.00%" in lines
    assert lines[-2:] == ["Average performance", "* accuracy: 75.50%"]
    (tmp_path / "eurosat").mkdir()
    code, lines, _ = parse(tmp_path, "--multi-exp")
    assert code == 0 and any(line.startswith(f"Warning: left out {tmp_path}/eurosat: ") for line in lines)
    assert lines[-2:] == ["* accuracy: 75.50%", "(over 2 of 3 experiments)"]


@pytest.mark.parametrize(
    "made, args, message",
    [
        ("seed1", (), "Start the runs or finish them, or name the folder above seed1, seed2, ..."),
        ("coop/seed1/log.txt", (), "Its folders hold runs themselves: name one of them, or {} with --multi-exp."),
        (
            "dtd/seed1",
            ("--multi-exp",),
            "With --multi-exp name the folder above the experiments; without it, the folder above the runs.",
        ),
    ],
)
def test_no_finished_run(tmp_path, parse, made, args, message):
    path = tmp_path / made
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch() if path.suffix else path.mkdir()
    code, _, error = parse(tmp_path, *args)
    what = "experiment with a finished run (folders: 1)" if args else "finished run (run folders: 1)"
    assert (code, error) == (1, f"Error: {tmp_path} holds no {what}. {message.format(tmp_path)}\n")


def test_no_folder(tmp_path, parse):
    assert parse(tmp_path / "output" / "dtd") == (
        1,
        [],
        f"Error: DIRECTORY {tmp_path}/output/dtd does not exist (the part that does: {tmp_path}). "
        "Check the spelling, or start the runs first.\n",
    )
    (tmp_path / "log.txt").touch()
    error = f"Error: DIRECTORY is the file {tmp_path}/log.txt. Name the folder above the runs.\n"
    assert parse(tmp_path / "log.txt") == (1, [], error)


def test_a_folder_that_may_not_be_read(tmp_path, parse, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert parse(tmp_path)[::2] == (1, f"Error: [Errno 13] Permission denied: '{tmp_path}'\n")


def test_with_multi_exp_a_folder_too_high_up_is_not_told_to_add_it(tmp_path, parse):
    """The folders' folders hold the runs: one of these is to be named, with the flag that is there already."""
    write_logs(tmp_path, "base2new/dtd", {1: "90.0"})
    write_logs(tmp_path, "caltech101", {1: "80.0"})
    code, lines, _ = parse(tmp_path, "--multi-exp")
    warning = [line for line in lines if line.startswith("Warning: left out")][1]
    assert code == 0 and "add --multi-exp" not in warning
    assert warning.endswith(f"name one of them, or {tmp_path}/base2new with --multi-exp.")


class TestSideBySide:
    def rows(self, lines):
        start = next(i for i, line in enumerate(lines) if line.startswith("Side by side"))
        return [re.split(r"\s{2,}", line.strip()) for line in lines[start + 1 :]]

    def test_methods(self, tmp_path, parse):
        write_logs(tmp_path, "dtd/CoOp/rn50_16shots/nctx16", {1: "60.0", 2: "64.0"})
        write_logs(tmp_path, "dtd/Mine/rn50_16shots/nctx16", {1: "70.0", 2: "71.0"})
        code, lines, _ = parse(*(tmp_path / f"dtd/{name}/rn50_16shots/nctx16" for name in ("CoOp", "Mine")))
        rows = self.rows(lines)
        assert code == 0 and "Side by side: accuracy (%)" in lines
        assert rows[0] == ["CoOp", "Mine"] and rows[1:] == [["accuracy", "62.00 +- 2.00", "70.50 +- 0.50"]]
        assert "* accuracy: 62.00% +- 2.00%" in lines  # each by itself first, as ever

    def test_experiments_of_methods(self, tmp_path, parse):
        """The average is over what both have; else it would be of unlike things."""
        for name, accuracies in {"A": {"dtd": 60.0, "eurosat": 80.0}, "B": {"dtd": 50.0, "food101": 90.0}}.items():
            for dataset, accuracy in accuracies.items():
                write_logs(tmp_path, f"{name}/{dataset}", {1: str(accuracy)})
        rows = self.rows(parse(tmp_path / "A", tmp_path / "B", "--multi-exp")[1])
        assert rows[1:] == [
            ["dtd", "60.00 +- 0.00", "50.00 +- 0.00"],
            ["eurosat", "80.00 +- 0.00", "missing"],
            ["food101", "missing", "90.00 +- 0.00"],
            ["average of 1", "60.00", "50.00"],
        ]

    def test_what_does_not_compare_is_said(self, tmp_path, parse):
        for name, total, seeds in (("A", 40, (1, 2)), ("B", 43, (1,))):
            write_results(tmp_path, name, dict.fromkeys(seeds, 60.0), total=total)
        assert parse(tmp_path / "A", tmp_path / "B")[1][-2:] == [
            "Warning: accuracy: Not the same seeds: seed1 seed2 in A; seed1 in B.",
            "Warning: accuracy: They were tested on other items: 40 in A, 43 in B. Test them again on one set, or "
            "report each set by itself.",
        ]

    def test_a_folder_and_one_inside_it(self, tmp_path, parse):
        write_logs(tmp_path, "A", {1: "60.0", 2: "62.0"})
        code, lines, _ = parse(tmp_path / "A", tmp_path / "A/seed1")
        assert code == 0 and self.rows(lines)[:2] == [
            ["A", "A/seed1"],
            ["accuracy", "61.00 +- 1.00", "60.00 +- 0.00"],
        ]

    def test_one_folder_named_twice_is_one(self, tmp_path, parse, monkeypatch):
        write_logs(tmp_path, "A", {1: "60.0"})
        monkeypatch.chdir(tmp_path)
        code, lines, _ = parse("A", tmp_path / "A")
        assert code == 0 and [line for line in lines if line.startswith("* ")] == ["* accuracy: 60.00% +- 0.00%"]

    def test_one_without_a_run_is_left_out_and_named(self, tmp_path, parse):
        write_logs(tmp_path, "A", {1: "60.0"})
        (tmp_path / "B/seed1").mkdir(parents=True)
        code, lines, _ = parse(tmp_path / "A", tmp_path / "B")
        assert code == 0 and lines[-1].startswith(f"Warning: left out {tmp_path}/B: ")
        assert parse(tmp_path / "B", tmp_path / "B/seed1")[0] == 1
