"""Kills experiments at random moments, calls the same command again, and compares with the experiment left alone.

    command -> SIGKILL to its processes -> the same command -> what was learned and measured: the same bits?

Run: python -m tests.kills --kills 60 [--seed 1] [--cases CoOp CoCoOp base2new sweep] [--pairs KEY VALUE ...]
Each kill has a folder of its own, on the drawn data set `shapes` with its small CLIP, offline.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 3
PAIRS = f"OPTIM.MAX_EPOCH {EPOCHS} TRAIN.RESUME_EVERY_S 0.2 USE_CUDA False"
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


class Process(Protocol):
    """What is started: of subprocess or of multiprocessing, the leader of a session of its own."""

    pid: int


Start = Callable[[Path], Process]  # starts a command whose runs lie in a folder


def kill_and_call_again(start: Start, folder: Path, after_s: float) -> bool:
    """Kills a command so many seconds after its start, if it still runs, and then has it do what is left.

    Returns:
        Whether it was killed.
    """
    process = start(folder)
    time.sleep(after_s)
    was_running = is_running(process)
    if was_running:
        os.killpg(process.pid, signal.SIGKILL)
    exit_code(process)
    finish(start, folder)
    return was_running


def finish(start: Start, folder: Path) -> float:
    """Calls a command and waits for its end; returns its seconds."""
    start_s = time.monotonic()
    code = exit_code(start(folder))
    if code:
        raise RuntimeError(f"The command ended with {code}, expected 0. See {folder}.")
    return time.monotonic() - start_s


def is_running(process: Process) -> bool:
    """Says whether it has not ended yet."""
    return process.poll() is None if isinstance(process, subprocess.Popen) else process.is_alive()


def exit_code(process: Process) -> int:
    """Waits for its end."""
    if isinstance(process, subprocess.Popen):
        return process.wait()
    process.join()
    return process.exitcode


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
    args, n_same = parse_args(argv), 0
    rng, pairs, place = random.Random(args.seed), shlex.join(shlex.split(args.pairs)), Path(tempfile.mkdtemp())
    starts = {case: start_command(COMMANDS[case], pairs) for case in args.cases}
    alone_s = {case: finish(start, place / case) for case, start in starts.items()}
    alone = {case: what_is_left(place / case) for case in starts}
    for case, seconds in alone_s.items():
        print(f"{case:10} left alone: {seconds:5.1f} s, {len(alone[case])} files and tensors", flush=True)
    for n, case in zip(range(1, args.kills + 1), itertools.cycle(starts)):
        is_killed = False
        while not is_killed:  # one that had ended before does not count
            folder, after_s = Path(tempfile.mkdtemp(dir=place), "runs"), rng.uniform(0, alone_s[case])
            is_killed = kill_and_call_again(starts[case], folder, after_s)
        is_same = what_is_left(folder) == alone[case] and not unfinished(folder)
        n_same += is_same
        words = "the same" if is_same else f"NOT THE SAME, see {folder}"
        print(f"kill {n:3} of {case:10} after {after_s:5.1f} s: {words}", flush=True)
    print(f"{n_same} of {args.kills} end as if they had been left alone.")
    if n_same == args.kills:
        shutil.rmtree(place)
    return 0 if n_same == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
