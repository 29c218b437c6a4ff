"""Images that cannot be read: they end the run, or with ON_BAD_IMAGE skip they are left out, with a warning.

One pass decodes all images that the run will read, after the draw: bad images change neither what a seed draws nor the
classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from typing import Any

from ..distributed import any_rank, share
from ..files import FAULTS_OF_MACHINE
from ..log import progress
from ..text import printable
from .datum import DatasetBase, Datum
from .image_io import BrokenImageError, MissingImageError, read_image

logger = logging.getLogger(__name__)

SPLITS = {"train_x": "training", "val": "validation", "test": "test", "selection": "selection"}  # as messages say it
N_LISTED = 100  # paths of each split in results.json and at the end of log.txt


def find_bad(paths: Sequence[str], n_threads: int) -> dict[str, Exception]:
    """Decodes all images; returns path -> error for those that cannot be read."""
    with ThreadPool(max(n_threads, 1)) as pool:  # threads: Pillow releases the interpreter's lock while it decodes
        errors = progress(pool.imap(_error_of, paths, chunksize=16), "decoding", n=len(paths))
        return {path: error for path, error in zip(paths, errors) if error is not None}


def splits_that_skip(cfg, val: Sequence[Datum], test: Sequence[Datum]) -> list[str]:
    """Returns the splits whose bad images the config leaves out.

    INPUT.ON_BAD_IMAGE is for items that a run learns from or chooses by, TEST.ON_BAD_IMAGE for those it is measured on:
    the test items, and the validation items if they are tested on or are test items too.
    """
    measured = cfg.TEST.SPLIT == "val" or not {item.impath for item in val}.isdisjoint(item.impath for item in test)
    tested = {"val", "test"} if measured else {"test"}
    return [name for name in SPLITS if (cfg.TEST if name in tested else cfg.INPUT).ON_BAD_IMAGE == "skip"]


def leave_out_bad(cfg, dataset: DatasetBase, *, n_threads: int) -> dict[str, list[str]]:
    """Removes the bad images from the splits that the run reads, if the config says so; the same on all ranks.

    Returns:
        Split -> the paths that were left out, for the splits that lost some.

    Raises:
        ValueError: If no image is left to train on, or to test on.
        MissingImageError, BrokenImageError: If the machine may be at fault, not the image.
    """
    read = set() if cfg.RUN.EVAL_ONLY else {"train_x", "val", "selection"}
    read |= {"test"} if cfg.TEST.FINAL_MODEL == "best_test" and not cfg.RUN.EVAL_ONLY else set()
    read |= set() if cfg.TEST.NO_TEST else {cfg.TEST.SPLIT, *(["selection"] if cfg.TEST.TEMPERATURE else [])}
    splits = {name: getattr(dataset, name) for name in splits_that_skip(cfg, dataset.val, dataset.test) if name in read}
    if not splits:
        return {}
    bad = _find_on_all_ranks(list(dict.fromkeys(item.impath for items in splits.values() for item in items)), n_threads)
    skipped: dict[str, list[str]] = {}
    warned: set[str] = set()
    for name, items in splits.items():
        kept = [item for item in items if item.impath not in bad]
        gone = list(dict.fromkeys(item.impath for item in items if item.impath in bad))
        setattr(dataset, name, kept)
        if gone and (name != "selection" or not warned.issuperset(gone)):  # mostly the same as the validation items
            skipped[name] = gone
            _warn(dataset, name, items, kept)
        warned.update(gone)
    return skipped


def log_skipped(skipped: dict[str, list[str]]) -> None:
    """Lists the images that were left out, at the end of a run."""
    for name, paths in skipped.items():
        more = [f"... and {len(paths) - N_LISTED:,} more"] if len(paths) > N_LISTED else []
        lines = [f"Skipped {SPLITS[name]} images: {len(paths):,}", *map(printable, paths[:N_LISTED]), *more]
        logger.info("\n  ".join(lines))


def skip_warnings(skipped: dict[str, list[str]]) -> list[str]:
    """Returns a sentence for each split that lost images."""
    counts = {SPLITS[name]: len(paths) for name, paths in skipped.items()}
    return [f"{n:,} {split} image(s) could not be read and were skipped" for split, n in counts.items()]


def skipped_fields(skipped: dict[str, list[str]]) -> dict[str, Any]:
    """Returns the entry of results.json: for each split that lost images, how many and the first of them."""
    listed = {name: {"number": len(paths), "paths": paths[:N_LISTED]} for name, paths in skipped.items()}
    return {"skipped_images": listed} if skipped else {}


def _find_on_all_ranks(paths: Sequence[str], n_threads: int) -> set[str]:
    """Returns the paths that some rank cannot read, and logs each; every rank decodes its share of the images."""
    own = find_bad(paths[share(len(paths))], n_threads)
    for error in own.values():
        if isinstance(error.__cause__, MemoryError) or getattr(error.__cause__, "errno", None) in FAULTS_OF_MACHINE:
            raise error
    bad = [path for path, is_bad in zip(paths, any_rank([path in own for path in paths])) if is_bad]
    for path in bad:
        error = own.get(path) or _error_of(path)
        logger.info("Skip: %s", error or f"Image {printable(path)} cannot be read on the machine of another rank.")
    return set(bad)


def _error_of(path: str) -> Exception | None:
    try:
        read_image(path)
    except (MissingImageError, BrokenImageError) as error:
        error.__cause__.__traceback__ = None  # its frames hold the decoded image
        return error.with_traceback(None)
    return None


def _warn(dataset: DatasetBase, name: str, items: Sequence[Datum], kept: Sequence[Datum]) -> None:
    """Warns of the images that a split has lost, and of classes that are left without a training image."""
    set_name, n_bad = type(dataset).__name__, len(items) - len(kept)
    if not kept and name in ("train_x", "test"):
        raise ValueError(
            f"None of the {len(items):,} {SPLITS[name]} image(s) of {set_name} can be read. Replace them; log.txt says "
            "what is wrong with each."
        )
    logger.warning(f"{n_bad:,} of {len(items):,} {SPLITS[name]} images of {set_name} are bad and left out")
    lost = {item.label for item in items} - {item.label for item in kept} if name == "train_x" else ()
    if lost:
        names = ", ".join(printable(dataset.lab2cname[label]) for label in sorted(lost))
        logger.warning(f"{len(lost):,} class(es) of {set_name} are left without a training image: {names}")
