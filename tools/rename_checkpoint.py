"""Writes the entries of a checkpoint that a method learns under the method's own names, so that it can be tested.

Run: python -m tools.rename_checkpoint theirs/model.pth.tar-5 output/theirs ctx=prompts.ctx text.0=prompts.deep.0
     python train.py --eval-only --model-dir output/theirs --load-epoch 5 ...

A test of a checkpoint whose entries are not known says which are needed, and which have their shapes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.checkpoint import load_checkpoint, save_checkpoint, saved_epoch
from engine.registry import near_name


def main(argv: Sequence[str] | None = None) -> int:
    """Writes FOLDER/prompt_learner/model.pth.tar-EPOCH; returns the exit code, 1 after an error, which is printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the checkpoint")
    parser.add_argument("folder", type=Path, help="the folder to name with --model-dir")
    parser.add_argument("names", nargs="+", metavar="NAME=ENTRY", help="the method's name, and that in the checkpoint")
    args = parser.parse_args(argv)
    try:
        print(rename(args.file, args.folder, dict(pair.partition("=")[::2] for pair in args.names)))
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def rename(file: Path, folder: Path, names: dict[str, str]) -> Path:
    """Writes the entries `names`, {the method's name: that in the checkpoint}; returns the path of the new checkpoint.

    Raises:
        ValueError: If there is no such entry.
    """
    checkpoint = load_checkpoint(file)
    found, epoch = checkpoint["state_dict"], saved_epoch(checkpoint, file)
    for entry in names.values():
        if entry not in found:
            raise ValueError(f"{file} has no entry {entry!r}.{near_name(entry, found)}")
    learned = {name: found[entry] for name, entry in names.items()}
    return save_checkpoint({"state_dict": learned, "epoch": epoch}, folder / "prompt_learner", is_best=epoch is None)
