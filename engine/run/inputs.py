"""What a result was made from, and whether that is what is there now: weights, data, class names, images, the model.

`provenance` in results.json says what it was: "weights_sha256"; "listed_sha256" of the class names and the items that
the data set lists; "model_sha256" and "images_sha256" of the model that was tested, and of the bytes of the images.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from ..checkpoint import checkpoint_name, file_to_load
from ..config.defaults import BEST_ON
from ..config.load import ConfigError
from ..data.bad_images import find_bad
from ..data.datum import SPLITS, Datum, Listing, data_digests, items_of, shared_digest
from ..data.manager import count_workers
from ..features.reader import open_digests
from ..registry import DATASET_REGISTRY
from .folder import is_done, read_results
from .names import RESULTS

logger = logging.getLogger(__name__)

WeightsDigest = Callable[[str], str | None]  # from MODEL.BACKBONE.NAME to the sha256 of its file
WORDS = {
    "weights": "the weights of MODEL.BACKBONE.NAME, or the config beside them",
    "model": "the model that was tested",
    "classnames": "the class names",
    "train": "the training items",
    "val": "the validation items",
    "test": "the test items",
    "images": "the bytes of the images tested on",
    "skipped": "images that were skipped and can be read now",
}


class UnknownInputs(ConfigError):
    """A data set that cannot be read any more: nothing tells whether results still fit it."""


# What results.json records


def inputs_before(trainer, weights_sha256: str | None) -> dict[str, Any]:
    """Returns the entries of `provenance` on what a run begins with; files may change in the meantime.

    Args:
        trainer: Built, and not yet trained.
        weights_sha256: Of the file of CLIP's weights; None where it is not known.
    """
    cfg, dataset, listing = trainer.cfg, trainer.dm.dataset, getattr(trainer.dm, "listing", None)
    splits = [cfg.TEST.SPLIT] if cfg.RUN.EVAL_ONLY else SPLITS
    listed = listing.digests(splits) if listing else None  # a plug-in may have a manager of its own
    left_out = [s for s in splits if listing is None or items_of(dataset, s) != listing.items[s]]
    whole = {split: listed[split] for split in splits if split not in left_out and listing.items[split]}
    return {
        "weights_sha256": weights_sha256,
        "model_sha256": tested_model(cfg) if cfg.RUN.EVAL_ONLY else None,
        "data_sha256": {**whole, **data_digests(dataset, left_out)},
        "listed_sha256": listed,
    }


def inputs_tested(trainer) -> dict[str, Any]:
    """Returns the entries of `provenance` on what was tested; what is not known is None."""
    if not trainer.results:  # nothing was
        return {"images_sha256": None}
    images = {"images_sha256": tested_images(trainer)}
    return images if trainer.cfg.RUN.EVAL_ONLY else {**images, "model_sha256": tested_model(trainer.cfg)}


def tested_images(trainer) -> str | None:
    """Returns the digest of the bytes of the images tested on; None where to compare it would mean to read them all."""
    cfg, dm, listing = trainer.cfg, trainer.dm, getattr(trainer.dm, "listing", None)
    if listing is None or trainer.features is None or not cfg.FEATURES.DIR:
        return None
    items, skipped = items_of(dm.dataset, cfg.TEST.SPLIT), set(dm.skipped.get(cfg.TEST.SPLIT, ()))
    if items != [item for item in listing.items[cfg.TEST.SPLIT] if item.impath not in skipped]:  # but a plug-in's own
        return None
    return digest_of([trainer.features.contents.get(item.impath) for item in items])


def tested_model(cfg: CN) -> str | None:
    """Returns the sha256 of the file of the model that a run tests, of several one after another; None for none."""
    folder, epoch = tested_checkpoint(cfg)
    files = sorted(Path(folder).glob(f"*/{file_to_load(epoch)}")) if folder else []
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else None


def tested_checkpoint(cfg: CN) -> tuple[str, int | None]:
    """Returns the folder and the epoch of the checkpoint that a run tests; "" for none, None for the best one."""
    run, last = cfg.RUN, cfg.OPTIM.MAX_EPOCH
    if run.EVAL_ONLY:
        return run.MODEL_DIR, run.LOAD_EPOCH if run.LOAD_EPOCH >= 0 else None
    is_saved = any(Path(cfg.OUTPUT_DIR).glob(f"*/{checkpoint_name(last)}"))  # what is fitted has no epochs
    return cfg.OUTPUT_DIR, last if cfg.TEST.FINAL_MODEL == "last_step" and is_saved else None


def digest_of(contents: Sequence[bytes | None]) -> str | None:
    """Returns the sha256 of the keys of the tested images' contents, in their order; None where one is not known."""
    return None if None in contents else hashlib.sha256(b"\n".join(contents)).hexdigest()


# What is there now


def still_done(cfg: CN, weights_sha256: WeightsDigest) -> bool:
    """Says whether OUTPUT_DIR holds this run, ended, and made from what is there now.

    Raises:
        ConfigError: If it holds a run of another configuration.
    """
    if not is_done(cfg):
        return False
    try:
        changed, doubt = compare_inputs(cfg, weights_sha256)
    except UnknownInputs:  # the run itself says it
        return False
    if doubt and not changed:
        logger.warning(f"The results in {cfg.OUTPUT_DIR} are kept. {doubt}")
    return not changed


def compare_inputs(cfg: CN, weights_sha256: WeightsDigest) -> tuple[list[str], str]:
    """Returns the keys of WORDS for what has changed since the results in OUTPUT_DIR were made, and a doubt in words.

    What they do not say counts as the same, and so do weights or a model that are not there any more.

    Raises:
        UnknownInputs: If the data set cannot be read.
    """
    results = read_results(cfg.OUTPUT_DIR)
    if results is None:
        return [], ""
    then = provenance_of(results)
    now = {"weights": weights_sha256(cfg.MODEL.BACKBONE.NAME), "model": tested_model(cfg)}
    before = {key: then.get(f"{key}_sha256") for key in now}
    changed = [key for key in now if None not in (before[key], now[key]) and before[key] != now[key]]
    if not says_data(results):
        return changed, "They do not say what data they were made from: see that these are still the same."
    data = changed_data(cfg, results)
    if data and "listed_sha256" not in then and not cfg.RUN.EVAL_ONLY:
        # Earlier digests are of what the run, or a plug-in, had left of the data: a difference may be no change.
        return changed, f"They are of an earlier version and may be of other data; what differs: {in_words(data)}."
    return changed + data, ""


def says_data(results: Mapping[str, Any]) -> bool:
    """Says whether results record the data that they were made from; earlier ones not, where images were skipped."""
    then = provenance_of(results)
    earlier = None if results.get("skipped_images") else then.get("data_sha256")
    listed = then.get("listed_sha256", earlier)
    return isinstance(listed, dict) and bool(listed)


def changed_data(cfg: CN, results: Mapping[str, Any]) -> list[str]:
    """Returns what has changed of the data; the class names are part of every item."""
    then, listing = provenance_of(results), list_now(cfg)
    listed, now = then.get("listed_sha256", then.get("data_sha256")), listing.digests(used_splits(cfg))
    if listed.get("classnames", now["classnames"]) != now["classnames"]:
        return ["classnames"]
    changed = [split for split in used_splits(cfg) if listed.get(split, shared_digest([])) != now[split]]
    skipped = results.get("skipped_images", {})
    listed_bad = {path for entry in skipped.values() for path in entry["paths"]}  # the first ones of each split
    bad = [x.impath for split in SPLITS if listed_bad for x in listing.items[split] if x.impath in listed_bad]
    if bad and len(find_bad(bad, 1)) < len(set(bad)):
        changed.append("skipped")
    items = listing.items[cfg.TEST.SPLIT]
    tested = [item for item in items if item.impath not in listed_bad]
    are_all = len(items) - len(tested) == skipped.get(cfg.TEST.SPLIT, {}).get("number", 0)
    if then.get("images_sha256") and are_all and not changed and images_now(cfg, tested) != then["images_sha256"]:
        changed.append("images")
    return changed


def list_now(cfg: CN) -> Listing:
    """Returns what the data set lists now, without a word in the log; raises UnknownInputs."""
    cfg, level = cfg.clone(), logging.root.manager.disable
    cfg.freeze()
    logging.disable(logging.WARNING)  # it is read again if there is something to do
    try:
        return Listing(DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg))
    except (OSError, ValueError, KeyError) as error:
        raise UnknownInputs(
            f"The folder {cfg.OUTPUT_DIR} holds the results of this run, but its data set cannot be read, so nothing "
            f"tells whether they still fit it: {error.args[0] if isinstance(error, KeyError) else error}"
        ) from error
    finally:
        logging.disable(level)


def images_now(cfg: CN, items: Sequence[Datum]) -> str | None:
    """Returns the digest of the bytes of items' images; reads those that are not remembered. None if it cannot."""
    n_threads = count_workers(cfg.DATALOADER.NUM_WORKERS)
    try:
        return digest_of(open_digests(cfg).read([item.impath for item in items], n_threads))
    except OSError:  # one is not there
        return None


def used_splits(cfg: CN) -> list[str]:
    """Returns the splits that a run's results depend on."""
    tested = [] if cfg.TEST.NO_TEST else [cfg.TEST.SPLIT]
    learned = [] if cfg.RUN.EVAL_ONLY else ["train", "val", BEST_ON.get(cfg.TEST.FINAL_MODEL)]
    return [split for split in SPLITS if split in (*tested, *learned)]


def provenance_of(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the entry `provenance`; the earliest results have none."""
    found = results.get("provenance")
    return found if isinstance(found, dict) else {}


def refusal(cfg: CN, changed: Sequence[str]) -> ConfigError:
    """Returns why a training is not done again in its folder, and what to do."""
    remedy = "Put that back, or begin anew in another folder (--output-dir, OUTPUT for the scripts)."
    if set(changed) <= {"test", "images"} and cfg.TEST.SPLIT == "test" and cfg.TEST.FINAL_MODEL != "best_test":
        remedy = (
            f"Nothing was learned from that: delete {RESULTS} there and repeat the command, and the trained model is "
            "tested anew. Or put it back."
        )
    return ConfigError(
        f"The folder {cfg.OUTPUT_DIR} holds this run, but what it was made from has changed since: "
        f"{in_words(changed)}. {remedy}"
    )


def in_words(changed: Sequence[str]) -> str:
    """Returns what has changed, for a message."""
    return ", ".join(WORDS[key] for key in changed)
