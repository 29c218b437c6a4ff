"""parse_test_res.py against numbers worked out by hand and logs in the original's format."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from parse_test_res import main, summarise

LOG = """epoch [50/50] batch [50/50] loss 0.1234
Checkpoint saved to output/prompt_learner/model.pth.tar-50
Finish training
Do evaluation on test set
=> result
* total: 2,465
* correct: 2,268
* accuracy: {accuracy}%
* error: 7.99%
* macro_f1: 91.20%
Elapsed: 0:10:00
"""


def write_runs(directory, accuracies):
    for seed, accuracy in enumerate(accuracies, start=1):
        folder = directory / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text(LOG.format(accuracy=accuracy))
    return directory


def parse(capsys, *args):
    code = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_report(tmp_path, capsys):
    write_runs(tmp_path, ["91.81", "92.01", "92.17"])
    assert parse(capsys, tmp_path) == (
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


def test_ci95(tmp_path, capsys):
    write_runs(tmp_path, ["80.0", "90.0"])  # population standard deviation 5; 1.96 * 5 / sqrt(2) = 6.93
    assert "* accuracy: 85.00% +- 6.93%" in parse(capsys, tmp_path, "--ci95")[1]
    assert summarise([80.0, 90.0]) == (85.0, 5.0)
    assert summarise([80.0, 90.0], ci95=True) == pytest.approx((85.0, 6.92965))
    assert summarise([70.0], ci95=True) == (70.0, 0.0)


def test_keyword(tmp_path, capsys):
    write_runs(tmp_path, ["91.81"])
    assert "* macro_f1: 91.20% +- 0.00%" in parse(capsys, tmp_path, "--keyword", "macro_f1")[1]
    assert "* error: 7.99% +- 0.00%" in parse(capsys, tmp_path, "--keyword", "error")[1]


def test_seeds_are_in_the_order_of_their_numbers(tmp_path, capsys):
    write_runs(tmp_path, ["90.0"] * 11)
    lines = parse(capsys, tmp_path)[1]
    assert [Path(line.split()[1]).parent.name for line in lines[1:12]] == [f"seed{seed}" for seed in range(1, 12)]


def test_multi_exp(tmp_path, capsys):
    write_runs(tmp_path / "caltech101", ["90.0", "92.0"])
    write_runs(tmp_path / "dtd", ["60.0"])
    code, lines, _ = parse(capsys, tmp_path, "--multi-exp")
    assert code == 0
    assert "* accuracy: 91.00% +- 1.00%" in lines and "* accuracy: 60.00% +- 0.00%" in lines
    assert lines[-2:] == ["Average performance", "* accuracy: 75.50%"]


def test_multi_exp_says_which_experiment_is_missing(tmp_path, capsys):
    write_runs(tmp_path / "caltech101", ["90.0"])
    (tmp_path / "dtd").mkdir()
    code, lines, _ = parse(capsys, tmp_path, "--multi-exp")
    assert code == 0
    assert any(line.startswith(f"Warning: left out {tmp_path}/dtd: ") for line in lines)
    assert lines[-2:] == ["* accuracy: 90.00%", "(over 1 of 2 experiments)"]


def test_multi_exp_without_any_finished_run(tmp_path, capsys):
    (tmp_path / "dtd").mkdir()
    code, _, error = parse(capsys, tmp_path, "--multi-exp")
    assert code == 1
    assert error.startswith(f"Error: {tmp_path} holds no experiment with a finished run (folders: 1), expected")


def test_a_run_itself(tmp_path, capsys):
    (tmp_path / "log.txt").write_text(LOG.format(accuracy="86.3"))
    (tmp_path / "tensorboard").mkdir()
    assert "* accuracy: 86.30% +- 0.00%" in parse(capsys, tmp_path)[1]


def test_the_folder_above_the_experiments(tmp_path, capsys):
    write_runs(tmp_path / "nctx16_cscFalse_ctpend", ["91.0"])
    code, _, error = parse(capsys, tmp_path)
    assert code == 1
    assert error == (
        f"Error: {tmp_path} holds no finished run (run folders: 1), expected at least one. "
        "Its folders hold runs themselves: add --multi-exp, or name one of them.\n"
    )


def test_nothing_there(tmp_path, capsys):
    code, _, error = parse(capsys, tmp_path)
    assert code == 1
    assert error == (
        f"Error: {tmp_path} holds no finished run (run folders: 0), expected at least one. "
        "Start the runs or finish them, or name the folder above seed1, seed2, ...\n"
    )


def test_missing_directory(tmp_path, capsys):
    code, lines, error = parse(capsys, tmp_path / "output" / "dtd")
    assert (code, lines) == (1, [])
    assert error == (
        f"Error: DIRECTORY {tmp_path}/output/dtd does not exist (the part that does: {tmp_path}). "
        "Check the spelling, or start the runs first.\n"
    )


def test_a_file_instead_of_a_directory(tmp_path, capsys):
    path = tmp_path / "log.txt"
    path.touch()
    code, _, error = parse(capsys, path)
    assert code == 1
    assert error == f"Error: DIRECTORY is the file {path}, expected a folder. Name the folder above the runs.\n"


def test_a_folder_that_may_not_be_read(tmp_path, capsys, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert parse(capsys, tmp_path)[::2] == (1, f"Error: [Errno 13] Permission denied: '{tmp_path}'\n")


def test_wrong_arguments_end_with_an_error(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--keyword"])
    assert "usage:" in capsys.readouterr().err


def test_command_needs_no_torch(tmp_path):
    write_runs(tmp_path, ["91.81", "92.01", "92.17"])
    script = Path(__file__).parents[2] / "parse_test_res.py"
    code = f"""
import runpy, sys
sys.argv = ["parse_test_res.py", {str(tmp_path)!r}]
try:
    runpy.run_path({str(script)!r}, run_name="__main__")
finally:
    assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "* accuracy: 92.00% +- 0.15%" in result.stdout
