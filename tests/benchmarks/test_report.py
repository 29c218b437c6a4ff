"""What a benchmark reports, and the page that names the commands."""

import argparse
import json
import re
from importlib import import_module

from benchmarks import measure
from tests.benchmarks.checks import ROOT


def test_a_report_shows_median_and_spread_and_is_appended(tmp_path, capsys):
    args = argparse.Namespace(json=tmp_path / "new" / "results.json", repeats=3)
    for _ in range(2):
        report = measure.Report("some", args, "Some title")
        report.compare("a case", [8.0, 9.0, 40.0], [1.0, 3.0, 4.0], flops=6e9, rates=[1e10] * 3, positions=(7700, 363))
        report.write()
    one, two = (json.loads(line) for line in args.json.read_text().splitlines())
    assert one["rows"] == two["rows"] and one["rows"][0]["ratios"] == [8, 3, 10]
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[2:8] == ["9.00", "3.000", "8.0", "3.0", "-", "10.0"]
    assert line[8:] == ["7,700", "->", "363", "20%", "-"]


def test_the_page_has_a_command_for_every_benchmark():
    page = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python -m benchmarks\.(\w+) ?(.*?)(?: +#.*)?$", page, re.MULTILINE)
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()}
    assert {name for name, _ in commands} == files
    for name, words in commands:
        import_module(f"benchmarks.{name}").parse_args(words.split())
