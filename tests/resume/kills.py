"""Kills experiments at random moments, calls the same command again, and compares with the experiment left alone.

    command -> SIGKILL to its processes -> the same command -> what was learned and measured: the same bits?

Most seconds of a small run are imports, so 3 of 4 moments are drawn between a run's config.yaml and its results.json,
the others anywhere in the command. What is printed says which phase each kill has met.

Run: python -m tests.resume.kills --kills 60 [--seed 1] [--cases CoOp CoCoOp base2new sweep] [--pairs KEY VALUE ...]
Each kill has a folder of its own, on the drawn data set `shapes` with its small CLIP, offline.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 3
PAIRS = f"OPTIM.MAX_EPOCH {EPOCHS} TRAIN.RESUME_EVERY_S 0.2 TRAIN.PRINT_FREQ 1 TEST.FINAL_MODEL best_val USE_CUDA False"
BASE_TO_NEW = "SHOTS=2 bash scripts/cocoop/base2new_{}.sh shapes 1 tiny {}"
SWEEP = '"$PYTHON" sweep.py --dataset shapes --cfg tiny --shots 1 2 --seeds 1 --jobs 2 --output-dir "$OUTPUT" -- {}'
COMMANDS = {
    "CoOp": "SEEDS=1 bash scripts/coop/main.sh shapes tiny end 16 4 False {}",
    "CoCoOp": "SOURCE=shapes SHOTS=1 bash scripts/cocoop/xd_train.sh 1 tiny {}",
    "base2new": f"{BASE_TO_NEW.format('train', '{}')} && {BASE_TO_NEW.format('test', '{}')}",
    "sweep": SWEEP,
}
# Of results.json: how it was measured, and a digest of the config, which of a test names the folder of its model.
NOT_COMPARED = {"cost", "provenance", "config_digest"}
PHASES = BEFORE, TRAINING, BETWEEN, TEST, AFTER = (
    "before config.yaml",
    "training",
    "between epochs",
    "the test",
    "after results.json",
)
LOGGED = re.compile(
    r"^epoch \[(\d+)/\d+\] batch \[(\d+)/(\d+)\] |^Evaluate on the \*val\* set$|^Finish training$", re.M
)


# Starts a command whose runs lie in a folder; it leads a session of its own.
Start = Callable[[Path], subprocess.Popen]


def kill_and_call_again(
    start: Start, folder: Path, runs: Sequence[Path], after_s: float, since: Path | None = None
) -> list[str]:
    """Kills a command, if it still runs, and then has it do what is left.

    Args:
        start: Starts it.
        folder: Where its runs lie.
        runs: Their folders there.
        after_s: It is killed so many seconds after its start.
        since: Or so many seconds after this run's config.yaml is there.

    Returns:
        What the kill has met, see `phases`; nothing if the command had ended before.
    """
    process, met = start(folder), []
    while since is not None and process.poll() is None and not (folder / since / "config.yaml").exists():
        time.sleep(0.01)
    time.sleep(after_s)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        met = phases(folder, runs)
    finish(start, folder)
    return met


def finish(start: Start, folder: Path) -> float:
    """Calls a command and waits for its end; returns its seconds."""
    start_s = time.monotonic()
    code = start(folder).wait()
    if code:
        raise RuntimeError(f"The command ended with {code}, expected 0. See {folder}.")
    return time.monotonic() - start_s


def phases(folder: Path, runs: Sequence[Path]) -> list[str]:
    """Returns the phases of those runs that have begun and not ended; where there are none, that of the command."""
    found = [phase(folder / run) for run in runs]
    begun = [(folder / run / "log.txt").is_file() for run in runs]
    under_way = [words for words, has_begun in zip(found, begun, strict=True) if has_begun and words != AFTER]
    return under_way or [AFTER if set(found) == {AFTER} else BEFORE]


def phase(run: Path) -> str:
    """Returns one of PHASES, read from what a run has written; of training with the batch that was the last logged."""
    if (run / "results.json").is_file():
        return AFTER
    if not (run / "config.yaml").is_file():
        return BEFORE
    logged = list(LOGGED.finditer((run / "log.txt").read_text()))
    if "EVAL_ONLY: True" in (run / "config.yaml").read_text() or logged and logged[-1][0] == "Finish training":
        return TEST
    epoch, batch, n_batches = logged[-1].groups() if logged else ("1", "0", "")
    return BETWEEN if batch == n_batches else f"{TRAINING} in epoch {epoch}, after batch {batch}"


def run_times_s(folder: Path) -> dict[Path, float]:
    """Returns the runs in a folder, each with its seconds between config.yaml and results.json."""
    runs = sorted(path.parent for path in folder.rglob("results.json"))
    return {
        run.relative_to(folder): (run / "results.json").stat().st_mtime - (run / "config.yaml").stat().st_mtime
        for run in runs
    }


def draw_moment(rng: random.Random, command_s: float, times_s: Mapping[Path, float]) -> tuple[float, Path | None]:
    """Draws when to kill: so many seconds, since a run's config.yaml or, one of four, since the command's start."""
    if not times_s or rng.random() < 1 / 4:
        return rng.uniform(0, command_s), None
    [run] = rng.choices(list(times_s), list(times_s.values()))
    return rng.uniform(0, times_s[run]), run


def what_is_left(folder: Path) -> dict[str, Any]:
    """Returns all that was learned, bit by bit, and all that was measured, by its place in the folder."""
    left: dict[str, Any] = {}
    for path in sorted(folder.rglob("results.json")):
        results = json.loads(path.read_text())
        left[str(path.relative_to(folder))] = {key: results[key] for key in results.keys() - NOT_COMPARED}
    for path in sorted(folder.rglob("model*.pth.tar*")):
        checkpoint = torch.load(path, weights_only=True)
        for name, value in checkpoint["state_dict"].items():
            left[f"{path.relative_to(folder)} {name}"] = value.contiguous().flatten().view(torch.uint8).tolist()
    return left


def unfinished(folder: Path) -> list[Path]:
    """Returns the files of interrupted runs and writes that are still there."""
    return [path for pattern in ("resume*.pth.tar", ".*.unfinished") for path in folder.rglob(pattern)]


def start_command(command: str, pairs: str) -> Start:
    """Returns what starts a command line of COMMANDS."""

    def start(folder: Path) -> subprocess.Popen:
        own = {"PYTHON": sys.executable, "OUTPUT": str(folder), "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **own, "COOP_FEATURES": f"{folder}/features"}
        with open(f"{folder}.out", "a") as said:
            return subprocess.Popen(
                ["bash", "-c", command.replace("{}", pairs)],
                cwd=ROOT,
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    return start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="of all cases together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: %(default)s)")
    parser.add_argument("--cases", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="(default: all)")
    parser.add_argument("--pairs", default=PAIRS, help="KEY VALUE pairs of the runs (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 if every experiment has ended as if it had been left alone."""
    args, n_same, all_met = parse_args(argv), 0, Counter()
    rng, pairs, place = random.Random(args.seed), shlex.join(shlex.split(args.pairs)), Path(tempfile.mkdtemp())
    starts = {case: start_command(COMMANDS[case], pairs) for case in args.cases}
    alone_s = {case: finish(start, place / case) for case, start in starts.items()}
    alone = {case: what_is_left(place / case) for case in starts}
    for case, seconds in alone_s.items():
        print(f"{case:10} left alone: {seconds:5.1f} s, {len(alone[case])} files and tensors", flush=True)
    for n, case in zip(range(1, args.kills + 1), itertools.cycle(starts)):
        met, times_s = [], run_times_s(place / case)
        while not met:  # one that had ended before does not count
            folder = Path(tempfile.mkdtemp(dir=place), "runs")
            after_s, since = draw_moment(rng, alone_s[case], times_s)
            met = kill_and_call_again(starts[case], folder, list(times_s), after_s, since)
        is_same = what_is_left(folder) == alone[case] and not unfinished(folder)
        n_same += is_same
        all_met.update(next(name for name in PHASES if words.startswith(name)) for words in met)
        words = "the same" if is_same else f"NOT THE SAME, see {folder}"
        print(f"kill {n:3} of {case:10} {'; '.join(met)}: {words}", flush=True)
    print("Runs met, of a sweep two at once:", *(f"{all_met[name]:4} {name}" for name in PHASES), sep="\n")
    print(f"{n_same} of {args.kills} end as if they had been left alone.")
    if n_same == args.kills:
        shutil.rmtree(place)
    return 0 if n_same == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
