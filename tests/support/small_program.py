"""A program for workers: it writes to its first argument what it sees, or ends in the way that the others name."""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from engine.process_cache import shared


def main(argv):
    print("not to be seen")
    target, what = Path(argv[0]), argv[1:]
    starts = target.with_suffix(".starts")
    with starts.open("a") as file:
        file.write("started ")
    if "fail" in what:
        print("A warning.", "Error: it fails.", "For good.", sep="\n", file=sys.stderr)
        return 1
    if "raise" in what:
        raise RuntimeError("unexpected")
    if "die" in what:
        os._exit(9)
    if "lost" in what and len(starts.read_text().split()) <= int(what[-1]):  # in so many first starts
        os.kill(os.getpid(), signal.SIGKILL)
    if "interrupt" in what:
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)
    while "alone" in what and is_running(target.with_name("a")):
        time.sleep(0.01)
    seen = {
        "time": time.monotonic(),
        "process": os.getpid(),
        "start_method": multiprocessing.get_start_method(allow_none=True),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": [os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")],
        "folder": os.getcwd(),
        "made": shared("made", 1, lambda: str(target)),
        "node": sys.modules["ray"].get_runtime_context().get_node_id() if "node" in what else None,
    }
    target.write_text(json.dumps(seen))
    return 0


def is_running(path):
    """Whether the process that writes a file is there, or has not written it yet."""
    try:
        os.kill(json.loads(path.read_text())["process"], 0)
    except ProcessLookupError:
        return False
    except (FileNotFoundError, json.JSONDecodeError):
        pass
    return True


def seen(path):
    """What the program saw."""
    return json.loads(path.read_text())
