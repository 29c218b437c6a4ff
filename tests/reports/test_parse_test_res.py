"""parse_test_res.py against numbers worked out by hand."""

import errno
from pathlib import Path

import pytest

from parse_test_res import main, summarise
from tests.support.made_up_results import CUT_LOG, LOG, TEST_LOG, write_logs


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
        ("coop/seed1/log.txt", (), "Its folders hold runs themselves: add --multi-exp, or name one of them."),
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
    assert (code, error) == (1, f"Error: {tmp_path} holds no {what}. {message}\n")


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
