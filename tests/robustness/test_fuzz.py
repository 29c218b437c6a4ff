"""The short form of `python -m tests.robustness.fuzz`, and that it tells what is wrong where something is."""

import time

import pytest

from tests.robustness import fuzz

N_INPUTS = 100  # of each parser


@pytest.mark.filterwarnings("ignore")  # of torch, about the pickles' versions
@pytest.mark.parametrize("name", fuzz.build_parsers())
def test_broken_files_give_documented_errors_that_name_the_file(name, tmp_path):
    outcomes, findings = fuzz.fuzz(name, range(N_INPUTS), seed=0, kept=tmp_path)
    assert findings == []
    assert outcomes.total() == N_INPUTS


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("read", "finding"),
    [
        (lambda path: fail(KeyError("x")), "some: NOT DOCUMENTED: KeyError: KeyError('x') ("),
        (lambda path: fail(ValueError("too short")), "some: ValueError: the message does not name the file: too"),
        (lambda path: fail(ValueError(f"{path} \x1b")), "some: ValueError: the message does not print: "),
        (lambda path: time.sleep(60), "some: hang: more than 0.01 s ("),
    ],
)
def test_findings(read, finding, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "HANG_S", 0.01)
    parser = fuzz.Parser("some.txt", [b"text"], read, (ValueError,))
    monkeypatch.setattr(fuzz, "build_parsers", lambda: {"some": parser})
    _, [found] = fuzz.fuzz("some", range(1), seed=0, kept=tmp_path)
    assert found.startswith(finding)
    assert (tmp_path / "0-some.txt").is_file()
