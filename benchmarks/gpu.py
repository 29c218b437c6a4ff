"""Measures a GPU in one call: its tests, equality in each precision, every benchmark of the text side, two short runs.

Run:   python -m benchmarks.gpu --out DIR [--minutes 9]
DIR gets a file of JSON lines from each part, and after each part `tables.md`, the tables as BENCHMARKS.md has them.
Each part is a process of its own. One that fails or dies, or for which no time is left, is named at the end of the
page; the others are kept. When the time is over, what still runs is ended. Without a GPU it says what it would do. A
clone and PyTorch's own image are enough, with the packages yacs, ftfy and wcwidth beside it;
the tests need pytest and pytest-timeout, too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch


class Part(NamedTuple):
    """A benchmark with its arguments, and the minutes that it is expected to take on a GPU of a data centre."""

    name: str
    module: str
    words: tuple[str, ...]
    minutes: float


PYTEST = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider")
TESTS = (*PYTEST, "tests/engine", "tests/trainers/test_precision.py")
COMPILED_TESTS = (*PYTEST, "tests/trainers/text_side/test_compiled_text.py")
TESTS_MINUTES = 2.5  # each of the two at most
PARTS = (
    Part("equality", "equality", (), 0.5),
    *(
        Part(f"{module} {prec}", module, ("--keep-memory", "--prec", prec), 0.6)
        for module in ("text_encoder", "cocoop", "deep_prompts")
        for prec in ("fp32", "fp16", "bf16")
    ),
    *(Part(f"run of {trainer}", "short_run", ("--trainer", trainer), 0.8) for trainer in ("CoOp", "CoCoOp")),
    Part("memory fp16", "memory", ("--prec", "fp16", "--chunks", "-1", "2048"), 0.5),
    Part("text_encoder compiled fp16", "text_encoder", ("--prec", "fp16", "--compile"), 0.5),
)


def run_tests(tests: Sequence[str], file: Path, minutes: float) -> str:
    """Runs tests that need a GPU; returns "" or what went wrong."""
    minutes = min(minutes, TESTS_MINUTES)
    try:
        command = [sys.executable, *tests, f"--junitxml={file}"]
        code = subprocess.run(command, timeout=60 * minutes, check=False).returncode
    except subprocess.TimeoutExpired:
        return f"the tests took over {minutes:.1f} minutes"
    return f"pytest ended with {code}" if code else ""


def run_part(part: Part, folder: Path, minutes: float) -> str:
    """Runs a benchmark in a process of its own; returns "" or what went wrong."""
    print(f"\n## {part.name}\n", flush=True)
    context = multiprocessing.get_context("fork")  # it has imported torch already, and nobody has used the GPU yet
    answer, end = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(part, folder, end))
    process.start()
    os.setpgid(process.pid, process.pid)  # to end it with the processes that it starts
    end.close()
    try:
        process.join(60 * minutes)
        if process.is_alive():
            return f"it took over {minutes:.1f} minutes"
        return answer.recv()
    except EOFError:
        return f"its process ended with {process.exitcode}"
    finally:
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            process.join()


def _answer(part: Part, folder: Path, end: Connection) -> None:
    try:
        words = [*part.words, "--json", str(folder / f"{part.module}.json")]
        code = import_module(f"benchmarks.{part.module}").main(words)
        end.send("a case does not hold" if code else "")
    except Exception as error:  # the others go on
        traceback.print_exc()
        end.send(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


# Tables

COMPARED = ("case", "naive (s)", "ours (s)", "ratio", "min - max", "positions of text", "of matmul", "difference")
MEMORY = ("case", "GB", "first step (s)")


def tables(folder: Path) -> str:
    """Returns what the parts wrote to the folder as Markdown, a section for each call."""
    sections = []
    for path in sorted(folder.glob("*.json")):
        for content in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            facts = ("GPU", "processor", "torch", "date")
            settings = {
                key: value for key, value in content["settings"].items() if key in ("prec", "classes", "trainer")
            }
            said = ", ".join(f"{key} {value}" for key, value in settings.items())
            heading = f"## `{content['benchmark']}`\n\n{said}; {', '.join(str(content[key]) for key in facts)}"
            sections.append("\n\n".join([heading, *tables_of(content["rows"])]))
    return "\n\n".join(sections) + "\n"


def tables_of(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields the tables of a benchmark's rows: those that compare sides, those of peak memory, and those of its own."""
    compared = [row for row in rows if "ratios" in row]
    memory = [row for row in rows if "peak_gb" in row]
    others = [row for row in rows if "ratios" not in row and "peak_gb" not in row]
    if compared:
        yield table(COMPARED, [compared_cells(row) for row in compared])
    if memory:
        yield table(MEMORY, [(row["case"], f"{row['peak_gb']:.2f}", f"{row['first_step_s']:.2f}") for row in memory])
    if others:
        columns = list(dict.fromkeys(key for row in others for key in row))
        cells = [[plain(row.get(key)) for key in columns] for row in others]
        yield table([column.replace("_", " ") for column in columns], cells)


def compared_cells(row: dict[str, Any]) -> list[str]:
    """Returns the cells of COMPARED."""
    ratios, share, positions = row["ratios"], row.get("of_matmul_rate"), row.get("positions")
    return [
        row["case"],
        f"{median(row['naive_s']):.4f}" if ratios else "-",
        f"{median(row['ours_s']):.4f}",
        f"{median(ratios):.1f}" if ratios else "-",
        f"{min(ratios):.1f} - {max(ratios):.1f}" if ratios else "-",
        "{:,} -> {:,}".format(*positions) if positions else "-",
        "-" if share is None else f"{share:.0%}",
        "-" if row["difference"] is None else f"{row['difference']:.1e}",
    ]


def plain(value: Any) -> str:
    """Returns a value as a cell."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return {None: "-", True: "yes", False: "no"}.get(value, str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9, help="no part is begun that would end later (default: 9)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 if every part was done and holds, or there is no GPU."""
    args, start_s = parse_args(argv), time.monotonic()
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # looking for a GPU leaves it unused: forked processes need that
    if not torch.cuda.is_available():
        print("torch finds no GPU here. On a machine with one this call runs, one after another:")
        parts = (("-m", f"benchmarks.{part.module}", *part.words) for part in PARTS)
        for words in (TESTS, *parts, COMPILED_TESTS):
            print(f"  {shlex.join(('python', *words))}")
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out) as folder:  # an earlier call's results stay until these are there
        wrong = run_all(Path(folder), args.out, args.minutes, start_s)
    page = (args.out / "tables.md").read_text(encoding="utf-8")
    print(f"\n{page}\nWritten to {args.out}. Minutes: {(time.monotonic() - start_s) / 60:.1f}")
    return 1 if wrong else 0


def run_all(folder: Path, out: Path, minutes: float, start_s: float) -> dict[str, str]:
    """Runs the tests and every part for which there is time; returns what went wrong, by name."""

    def left() -> float:
        return minutes - (time.monotonic() - start_s) / 60

    def tests(words: Sequence[str], name: str) -> str:
        return run_tests(words, folder / name, left())

    wrong: dict[str, str] = {}
    todo = [("tests", 0.1, partial(tests, TESTS, "tests.xml"))]
    todo += [(part.name, part.minutes, lambda part=part: run_part(part, folder, left())) for part in PARTS]
    todo += [("tests of MODEL.COMPILE", 0.1, partial(tests, COMPILED_TESTS, "compiled_tests.xml"))]
    for name, expected, run in todo:
        said = run() if left() >= expected else f"left out: {left():.1f} minutes were left"
        wrong |= {name: said} if said else {}
        publish(folder, out, wrong)
    return wrong


def publish(folder: Path, out: Path, wrong: Mapping[str, str]) -> None:
    """Puts what there is so far into `out`, each file whole."""
    lines = [f"- {name}: {what}" for name, what in wrong.items()]
    page = "\n".join([tables(folder), *(["## Not done, or wrong", "", *lines] if lines else [])])
    (folder / "tables.md").write_text(page, encoding="utf-8")
    for path in [path for path in folder.iterdir() if path.is_file()]:
        copied = shutil.copyfile(path, out / f"{path.name}.part")
        copied.replace(out / path.name)


if __name__ == "__main__":
    raise SystemExit(main())
