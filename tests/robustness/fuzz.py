"""Feeds broken files to every parser: only documented errors that name the file; no crash, hang or memory without end.

Run: python -m tests.robustness.fuzz --inputs 200000 --seed 1

    a valid file -> broken (broken_files.py) -> the parser -> read, or a documented error

An input is a function of (seed, parser, its number) alone.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import yaml
from tabulate import tabulate
from torch import nn

import datasets  # noqa: F401  registers the data sets
import trainers  # noqa: F401  registers the trainers
from datasets.splits.fewshot_file import read_fewshot
from datasets.splits.split_file import read_split
from engine import Datum, load_checkpoint
from engine.config.load import ConfigError, check_cfg, full_default, merge, read_yaml
from engine.run.cores import n_cores
from engine.run.folder import read_results
from reports.runs import END_OF_TEST, END_OF_TRAINING, parse_run
from tests.robustness.broken_files import Dump, Load, break_file
from tests.support.made_up_results import LOG, TEST_LOG
from tests.support.original_draws import pickle_draw

HANG_S = 5
MEMORY_BYTES = 4 << 30  # of address space beyond what the imports take
GROWTH_KB = 500_000  # of resident memory by one input
LONGEST_MESSAGE = 20_000
BATCH = 2_000


@dataclass(frozen=True)
class Parser:
    """What is fuzzed: `read` reads the file of an input, made of the valid ones, and may raise `errors` alone.

    `load` and `dump` are from text to a tree and back, where the format has one.
    """

    file_name: str
    valid: Sequence[bytes]
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    load: Load | None = None
    dump: Dump | None = None


class Hang(BaseException):
    """A parser takes too long."""


def read_some_split(path: Path) -> None:
    for items in read_split(path, path.parent / "images"):
        for item in items:
            assert os.path.normpath(item.impath).startswith(f"{path.parent}/images"), item.impath
            assert type(item.label) is int and item.label >= 0 and isinstance(item.classname, str)


def read_some_fewshot(path: Path) -> None:
    items = [Datum(str(path.parent / f"a/{i}.jpg"), i % 2, classname=f"class {i % 2}") for i in range(4)]
    train, val = read_fewshot(path, path.parent, items, items, shots=-1)
    assert {*train, *val} <= set(items) and train


def read_config(path: Path) -> None:
    cfg = full_default()
    lines = [*merge(cfg, read_yaml(path), str(path)), *check_cfg(cfg)]
    assert all(len(line) < LONGEST_MESSAGE for line in lines)


def read_some_results(path: Path) -> None:
    assert isinstance(read_results(path.parent), dict)


def parse_some_run(path: Path) -> None:
    for keyword in ("accuracy", "error"):
        for end_signal in (END_OF_TRAINING, END_OF_TEST):
            run = parse_run(path.parent, keyword=keyword, end_signal=end_signal)
            assert (run.value is None) == bool(run.problem)
            assert run.problem or math.isfinite(run.value)
            assert not run.problem or (run.problem.isprintable() and path.name in run.problem), run.problem


def checkpoints() -> list[bytes]:
    """A checkpoint as it is saved, one with an optimiser and bfloat16, one from before torch 1.6."""
    module = nn.Linear(2, 2)
    optim = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.ones(1, 2)).sum().backward()
    optim.step()
    small = {"state_dict": {"ctx": torch.arange(6.0).view(2, 3)}, "epoch": 3, "optimizer": None}
    large = {"state_dict": module.bfloat16().state_dict(), "epoch": 3, "optimizer": optim.state_dict()}
    large |= {"classnames": ["a", "b"], "scheduler": {"last_epoch": 3}, "val_result": 71.5}
    found = []
    for state, zipped in ((small, True), (large, True), (small, False)):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
        found.append(buffer.getvalue())
    return found


@cache
def build_parsers() -> dict[str, Parser]:
    """Returns what is fuzzed, by name."""
    entries = [[f"{name}/{i}.jpg", label, name] for label, name in enumerate(("cat", "dog")) for i in range(3)]
    split = json.dumps({"train": entries[:4], "val": entries[4:5], "test": entries[5:]}).encode()
    rows = [
        {"split": ("train", "val")[i == 3], "impath": f"a/{i}.jpg", "label": i % 2, "classname": f"class {i % 2}"}
        for i in range(4)
    ]
    fewshot = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    published = {split: {"data": [row for row in rows if row["split"] == split]} for split in ("train", "val")}
    draw = {split: [list(row.values())[1:] for row in part["data"]] for split, part in published.items()}
    results = {"accuracy": 91.5, "error_rate": 8.5, "total": 100, "trainer": "CoOp", "seed": 1, "config_digest": "0"}
    results = json.dumps(results, indent=2).encode()
    config = (
        b'INPUT:\n  SIZE: (224, 224)\n  TRANSFORMS: ["random_flip", "normalize"]\nOPTIM: {NAME: sgd, LR: 0.002}\n'
        b"DATASET: {NAME: Shapes, NUM_SHOTS: 16}\nMODEL: {BACKBONE: {NAME: RN50}}\nSEED: 1\n"
        b'TRAINER: {NAME: CoOp, COOP: {PREC: "fp32", CTX_INIT: a photo}}\n'
    )
    logs = [log.format(accuracy="92.0").encode() for log in (LOG, TEST_LOG)]
    own = logs[0] + b"* accuracy: 92.01%\n=> per-class result\n* class: 0 (cat)\ttotal: 3\tcorrect: 2\tacc: 66.67%\n"
    tree, yaml_tree = (json.loads, json.dumps), (yaml.safe_load, yaml.safe_dump)
    rows_tree = (lambda text: list(map(json.loads, text.splitlines())), _dump_rows)
    return {
        "load_checkpoint": Parser("model.pth.tar-3", checkpoints(), load_checkpoint, (ValueError,)),
        "read_yaml, merge, check_cfg": Parser("config.yaml", [config], read_config, (ConfigError,), *yaml_tree),
        "read_split": Parser("split.json", [split], read_some_split, (ValueError,), *tree),
        "read_fewshot": Parser("few.jsonl", [fewshot], read_some_fewshot, (ValueError,), *rows_tree),
        "read_fewshot: JSON": Parser("few", [json.dumps(published).encode()], read_some_fewshot, (ValueError,), *tree),
        "read_fewshot: pickle": Parser("few", pickle_draw(draw, (2, 4)), read_some_fewshot, (ValueError,)),
        "read_results": Parser("results.json", [results], read_some_results, (ConfigError,), *tree),
        "parse_run: results.json": Parser("results.json", [results], parse_some_run, (), *tree),
        "parse_run: log.txt": Parser("log.txt", [*logs, own], parse_some_run, ()),
    }


def _dump_rows(rows: Any) -> str:
    return "\n".join(map(json.dumps, rows if isinstance(rows, list) else [rows]))


def fuzz_one(parser: Parser, path: Path) -> tuple[str, str]:
    """Returns the kind of outcome of a file, and what is wrong with it; "" if nothing is."""
    memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        parser.read(path)
        outcome, wrong = "read", ""
    except parser.errors as error:
        outcome, wrong = type(error).__name__, _wrong_message(str(error), path)
    except Hang:
        outcome, wrong = "hang", f"more than {HANG_S} s"
    except Exception as error:
        outcome, wrong = f"NOT DOCUMENTED: {type(error).__name__}", f"{error!r:.300}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    growth_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kb
    return outcome, wrong or (f"{growth_kb / 1e6:.1f} GB more memory" if growth_kb > GROWTH_KB else "")


def _wrong_message(message: str, path: Path) -> str:
    if str(path.parent) not in message:  # of a _BASE_, that file's name stands there
        return f"the message does not name the file: {message[:300]}"
    if len(message) > LONGEST_MESSAGE:
        return f"the message has {len(message):,} characters"
    return "" if message.replace("\n", "").isprintable() else f"the message does not print: {message[:300]!r}"


def fuzz(name: str, numbers: range, *, seed: int, kept: Path) -> tuple[Counter, list[str]]:
    """Returns how often each outcome was there, and a line for each wrong one, whose file is put into `kept`."""
    parser, outcomes, findings = build_parsers()[name], Counter(), []
    handler = signal.signal(signal.SIGALRM, _stop)
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
            path = Path(folder, parser.file_name)
            for number in numbers:
                rng = random.Random(f"{seed} {name} {number}")
                data = break_file(parser.valid, rng, load=parser.load, dump=parser.dump)
                path.write_bytes(data)
                outcome, wrong = fuzz_one(parser, path)
                outcomes[outcome] += 1
                if wrong:
                    place = kept / f"{number}-{parser.file_name}"
                    place.write_bytes(data)
                    findings.append(f"{name}: {outcome}: {wrong} ({place})")
    finally:
        signal.signal(signal.SIGALRM, handler)
    return outcomes, findings


def _stop(*_: object) -> None:
    raise Hang


def _limit_memory() -> None:
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints how often each parser ended in which way, and every finding; returns 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=200_000, help="of all parsers together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=n_cores(), help="processes")
    args = parser.parse_args(argv)
    kept, start_s = Path(tempfile.mkdtemp(prefix="fuzz-")), time.monotonic()
    n_each = math.ceil(args.inputs / len(build_parsers()))
    batches = [(name, range(i, min(i + BATCH, n_each))) for i in range(0, n_each, BATCH) for name in build_parsers()]
    outcomes: Counter = Counter()
    findings: list[str] = []
    try:
        with ProcessPoolExecutor(args.jobs, initializer=_limit_memory) as pool:
            work = partial(fuzz, seed=args.seed, kept=kept)
            for (name, _), (counts, found) in zip(batches, pool.map(work, *zip(*batches)), strict=True):
                outcomes.update({(name, outcome): n for outcome, n in counts.items()})
                findings += found
    except BrokenProcessPool:
        findings.append("A process has died: that is a crash of the interpreter or a lack of memory")
    print(tabulate([(*key, f"{n:,}") for key, n in sorted(outcomes.items())], ("parser", "outcome", "inputs")))
    print(
        f"{outcomes.total():,} inputs, seed {args.seed}, {time.monotonic() - start_s:.0f} s, findings: {len(findings)}"
    )
    print(*findings[:50], sep="\n", end="\n" if findings else "")
    if not any(kept.iterdir()):
        kept.rmdir()
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
