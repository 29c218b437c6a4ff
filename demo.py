"""Serves a page in the browser on which a finished run classifies images.

    python demo.py output/caltech101/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/seed1
    python demo.py my-classifier                    # a folder of export.py

The page is for this machine alone and works offline. Ctrl-C ends it; the images that were dropped on it are then
removed.
"""

from __future__ import annotations

import argparse
import csv
import errno
import json
import os
import random
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.classifier import Classifier

HERE, PORT = "127.0.0.1", 7860
N_PORTS = 100  # that are tried
N_EXAMPLES = 8


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", help="a run's folder, one of its checkpoints, or a folder of export.py")
    parser.add_argument("--topk", type=int, default=5, metavar="K", help="bars to show (default: 5)")
    parser.add_argument("--epoch", type=int, metavar="N", help="the model after N epochs (default: the tested one)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--host", default=HERE, help=f"address to listen on; others may reach another than {HERE}")
    parser.add_argument("--port", type=int, help=f"default: {PORT}, or the next free one")
    parser.add_argument("--share", action="store_true", help="also an address of gradio's, open to the world")
    args = parser.parse_args(argv)
    if args.topk < 1:
        parser.error(f"--topk is {args.topk}; it must be at least 1.")
    if args.port is not None and not 1 <= args.port < 2**16:
        parser.error(f"--port is {args.port}; it must be from 1 to {2**16 - 1}.")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 an error, which is printed, 130 Ctrl-C, 143 SIGTERM; else it serves on."""
    args = parse_args(argv)

    from engine.interruption import Interrupted, interruptible  # here and below: --help costs no torch

    try:
        with interruptible():
            serve(args)
    except (ValueError, KeyError, OSError) as error:
        print(f"Error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return interrupted.exit_code
    return 0


def serve(args: argparse.Namespace) -> None:
    """Serves the page until a signal ends it."""
    from inference import page

    page.require_gradio()  # before the seconds in which the run is loaded
    port = find_port(args.host, args.port)
    classifier, facts, examples = open_run(args)
    with page.serving(
        classifier, facts, examples, topk=args.topk, host=args.host, port=port, share=args.share
    ) as address:
        if args.share or args.host not in (HERE, "localhost"):
            print("Warning: others can use the page. Leave --host and --share out to keep it to yourself.")
        print(f"The page is at {address}. Ctrl-C ends it.", flush=True)
        threading.Event().wait()


def find_port(host: str, asked: int | None) -> int:
    """Returns the port that is asked for; None: the first free one from PORT on.

    Raises:
        ValueError: If it is in use, or the host is no address of this machine.
    """
    first = asked or PORT
    port = next((port for port in range(first, min(first + N_PORTS, 2**16)) if is_free(host, port)), None)
    if port is None:
        raise ValueError(f"No port from {first} on is free. Name one with --port.")
    if port != first:
        taken = f"Port {first} of {host} is in use."
        if asked:
            raise ValueError(f"{taken} Port {port} is free: take it with --port {port}.")
        print(f"{taken} The page takes {port}.")
    return port


def is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(f"--host is {host}; it must be an address of this machine, such as {HERE}.") from error
        if isinstance(error, PermissionError):
            raise ValueError(f"You may not open port {port}: {error.strerror}. Name one from 1024 on.") from error
        return False
    return True


def open_run(args: argparse.Namespace) -> tuple[Classifier, dict[str, Any], list[str]]:
    """Returns the classifier in a run's folder or an export's, what is known of it, and paths of images to try."""
    from engine.run.folder import found_from, read_config, read_results
    from inference import artefact
    from inference.classifier import Classifier
    from inference.run_folder import find_run

    exported = Path(args.run).expanduser() / artefact.CONFIG
    if exported.is_file():
        if args.epoch is not None:
            raise ValueError(f"{args.run} is an export, which is of one epoch. Leave --epoch out.")
        classifier = Classifier.from_export(exported.parent, device=args.device)
        return classifier, {**json.loads(exported.read_text(encoding="utf-8")), "run": args.run}, []
    folder, epoch = find_run(args.run)
    epoch = epoch if args.epoch is None else args.epoch
    classifier = Classifier.from_run(folder, epoch=epoch, device=args.device)
    facts, cfg = read_results(folder) or {}, read_config(folder)
    if epoch not in (None, facts.get("epoch")):
        facts["accuracy"] = None
    facts = {"dataset": cfg.DATASET.NAME, **facts, "trainer": cfg.TRAINER.NAME, "backbone": cfg.MODEL.BACKBONE.NAME}
    root = found_from(folder, cfg.OUTPUT_DIR, cfg.DATASET.ROOT)
    return classifier, {**facts, "run": folder}, examples_of(folder, root)


def examples_of(folder: Path, root: str) -> list[str]:
    """Returns paths of some images that the run was tested on, as far as they are there."""
    from engine.data.image_io import is_readable
    from engine.run.names import PREDICTIONS

    path = folder / PREDICTIONS
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            named = [row["path"] for row in csv.DictReader(stream) if row.get("path")]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it: the page then has no images to try.") from error
    drawn = random.Random(0).sample(named, min(N_EXAMPLES, len(named)))
    paths = [os.path.join(os.path.expanduser(root), name) for name in drawn]
    return [path for path in paths if os.path.isfile(path) and is_readable(path)]


if __name__ == "__main__":
    sys.exit(main())
