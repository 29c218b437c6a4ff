"""Training runs on dirty images: one of each kind among the images to train on, as an error and skipped.

Run: python -m tests.robustness.dirty_runs
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import train
from datasets.folder import Folder
from engine import DATASET_REGISTRY, DatasetBase, Datum
from engine.log import close_logging
from tests.robustness.dirty_images import KINDS
from tests.support.tiny_run import CLASSES, tiny_cfg, write_clip, write_images


def run_with(name: str, on_bad_image: str, folder: Path) -> str:
    """Does a run with an image of this kind.

    Returns:
        What became of it: "trained", "skipped", or the error's message.
    """
    path = folder / "dirty" / KINDS[name].name
    path.parent.mkdir(parents=True)
    KINDS[name].draw(path)
    data = write_images(folder / "data")

    class Dirty(DatasetBase):
        def __init__(self, cfg):
            clean = Folder(cfg)
            dirty = Datum(str(path), classname=CLASSES[0])
            super().__init__([dirty, *clean.train_x], val=clean.val, test=clean.test)

    pairs = ("DATASET.NAME", "Dirty", "INPUT.ON_BAD_IMAGE", on_bad_image, "FEATURES.DIR", "")
    with DATASET_REGISTRY.overlay():
        DATASET_REGISTRY.register(Dirty)
        try:
            train.run(tiny_cfg(data, write_clip(folder / "vit.pt"), folder / "run", *pairs))
        except (ValueError, FileNotFoundError) as error:
            return str(error)
        finally:
            close_logging()
    skipped = json.loads((folder / "run" / "results.json").read_text()).get("skipped_images", {})
    assert skipped in ({}, {"train_x": {"number": 1, "paths": [str(path)]}})
    return "skipped" if skipped else "trained"


def is_as_documented(name: str, on_bad_image: str, outcome: str) -> bool:
    """Says whether an image that can be read was trained on, and another one named or skipped."""
    words = KINDS[name].pixels
    if not isinstance(words, str):
        return outcome == "trained"
    return outcome == "skipped" if on_bad_image == "skip" else words in outcome and KINDS[name].name in outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Does all runs and prints a line for each kind; exit code 1 where one is not as documented."""
    argparse.ArgumentParser(prog="python -m tests.robustness.dirty_runs", description=__doc__).parse_args(argv)
    names = [name for name in KINDS if name != "no permission" or os.geteuid() != 0]
    n_good = 0
    for name in names:
        outcomes = {}
        for on_bad_image in ("error", "skip"):
            with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
                outcomes[on_bad_image] = run_with(name, on_bad_image, Path(folder)).replace(f"{folder}/", "")
        is_good = all(is_as_documented(name, *pair) for pair in outcomes.items())
        n_good += is_good
        said = outcomes["error"].partition(". ")[0]
        print(f"{'good ' if is_good else 'WRONG'} {name}: {said}; {outcomes['skip']}")
    for name in KINDS.keys() - set(names):
        print(f"left out, as root may read every file: {name}")
    print(f"{n_good} of {len(names)} kinds of dirty images with the documented result")
    return int(n_good < len(names))


if __name__ == "__main__":
    sys.exit(main())
