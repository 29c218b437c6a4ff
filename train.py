"""Trains or tests a method on a data set: arguments -> config -> seed, log -> trainer -> train() or test()."""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

import datasets  # noqa: F401  registers the data sets
import trainers  # noqa: F401  registers the trainers
from engine.config_file import ConfigError, check_cfg, full_default, merge, read_yaml, require, settle_paths
from engine.distributed import is_first_rank, on_first_rank, process_group
from engine.log import close_logging, environment, set_random_seed, setup_logging
from engine.memory import keep_freed_memory, memory_advice
from engine.plugins import plugins
from engine.registry import TRAINER_REGISTRY
from engine.run_folder import is_done, read_config, resolve_seed, write_config, write_results
from engine.trainer import TrainerX

logger = logging.getLogger("train")

FLAGS = {  # flag -> config key; a flag that is not given changes nothing
    "root": "DATASET.ROOT",
    "output_dir": "OUTPUT_DIR",
    "resume": "RESUME",
    "seed": "SEED",
    "source_domains": "DATASET.SOURCE_DOMAINS",
    "target_domains": "DATASET.TARGET_DOMAINS",
    "transforms": "INPUT.TRANSFORMS",
    "trainer": "TRAINER.NAME",
    "plugin": "RUN.PLUGINS",
    "backbone": "MODEL.BACKBONE.NAME",
    "head": "MODEL.HEAD.NAME",
    "eval_only": "RUN.EVAL_ONLY",
    "model_dir": "RUN.MODEL_DIR",
    "load_epoch": "RUN.LOAD_EPOCH",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line; absent flags are None."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="folder that holds the data sets")
    parser.add_argument("--output-dir", help="the run's folder")
    parser.add_argument("--resume", help="folder of a run to go on from (default: the output folder itself)")
    parser.add_argument("--seed", type=int, help="negative: a fresh one, which is logged")
    parser.add_argument("--source-domains", nargs="+", help="refused: domain labels are not used")
    parser.add_argument("--target-domains", nargs="+", help="refused: domain labels are not used")
    parser.add_argument("--transforms", nargs="+", help="names of augmentations")
    parser.add_argument("--config-file", help="the trainer's YAML")
    parser.add_argument("--dataset-config-file", help="the data set's YAML")
    parser.add_argument("--trainer", help="name of the trainer")
    parser.add_argument("--plugin", action="append", help="module or file of a trainer or a data set; repeatable")
    parser.add_argument("--plugin-config", action="append", help="YAML of keys that a plug-in reads; repeatable")
    parser.add_argument("--backbone", help="name of a CLIP or path of its weights")
    parser.add_argument("--head", help="refused: CLIP's text features are the classifier")
    parser.add_argument("--eval-only", action="store_true", default=None, help="only test")
    parser.add_argument("--model-dir", help="with --eval-only: the run whose model is tested")
    parser.add_argument("--load-epoch", type=int, help="with --model-dir: after how many epochs (default: the best)")
    parser.add_argument("--no-train", action="store_true", help="build everything, then stop")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")
    return parser.parse_args(argv)


def setup_cfg(args: argparse.Namespace) -> CN:
    """Builds the config of a call: defaults, data set's file, trainer's file, flags, KEY VALUE pairs.

    Raises:
        ConfigError: With everything that is wrong.
    """
    cfg, errors, unreadable = full_default(), [], []
    for path in filter(None, (args.dataset_config_file, args.config_file)):
        try:
            errors += merge(cfg, read_yaml(path), path)
        except ConfigError as error:
            unreadable.append(str(error))
    flags = {key: getattr(args, flag) for flag, key in FLAGS.items() if getattr(args, flag) is not None}
    if args.config_file:
        flags["RUN.CFG"] = Path(args.config_file).stem
    errors += merge(cfg, flags, "command line")
    pairs = [word for word in args.opts if word != "--"]
    if len(pairs) % 2:
        errors.append(f"command line: {pairs[-1]!r} has no value, expected KEY VALUE pairs.")
    errors += merge(cfg, dict(zip(pairs[::2], pairs[1::2], strict=False)), "command line")
    if list(cfg.RUN.PLUGINS) != (args.plugin or []):
        errors.append(f"RUN.PLUGINS is {cfg.RUN.PLUGINS}, expected what --plugin names. Give the flag.")
    settle_paths(cfg)
    require(unreadable + errors + ([] if unreadable else check_cfg(cfg)))
    return cfg


def results_of(trainer: TrainerX, cfg: CN) -> dict[str, Any]:
    """Returns the entries of results.json: what was measured and what identifies the run in a table."""
    trained_on = read_config(cfg.RUN.MODEL_DIR) if cfg.RUN.MODEL_DIR else None
    source = cfg.DATASET.NAME if not cfg.RUN.EVAL_ONLY else trained_on.DATASET.NAME if trained_on else None
    measures = dict.fromkeys(("accuracy", "error_rate", "macro_f1", "total", "correct"))  # None where TEST.NO_TEST
    return {
        **measures,
        **trainer.results,
        "split": cfg.TEST.SPLIT,
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "source": source,
        "seed": cfg.SEED,
        "shots": (trained_on or cfg).DATASET.NUM_SHOTS,
        "cfg": cfg.RUN.CFG,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "n_ctx": None,
        "csc": None,
        "class_token_position": None,
        "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
        "epoch": trainer.epochs_done,
        **trainer.result_fields(),
    }


def run(cfg: CN, *, no_train: bool = False) -> None:
    """Does what the config says, unless its folder shows that it is done."""
    resolve_seed(cfg)
    if on_first_rank(partial(is_done, cfg)):
        if is_first_rank():
            print(f"Done already: {cfg.OUTPUT_DIR} holds the results of this run.")
        return
    cfg.freeze()
    setup_logging(cfg.OUTPUT_DIR)
    set_random_seed(cfg.SEED)
    keep_freed_memory()
    if cfg.VERBOSE:
        logger.info("%s\n%s", cfg, environment())
    logger.info("Seed: %d", cfg.SEED)
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
    if no_train:
        return
    if cfg.RUN.EVAL_ONLY:
        trainer.load_model(cfg.RUN.MODEL_DIR, epoch=cfg.RUN.LOAD_EPOCH)
    write_config(cfg)  # from here on the folder is this run's
    with memory_advice(trainer.half_at_once):
        if cfg.RUN.EVAL_ONLY:
            trainer.test()
        else:
            trainer.train()
    write_results(cfg, results_of(trainer, cfg))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 an error, which is printed."""
    try:
        args = parse_args(argv)
        with plugins(args.plugin or (), args.plugin_config or ()):
            cfg = setup_cfg(args)
            with process_group(use_cuda=cfg.USE_CUDA):
                run(cfg, no_train=args.no_train)
    except (ConfigError, ValueError, KeyError, OSError, FloatingPointError, MemoryError, ModuleNotFoundError) as error:
        logger.info("The run ended with an error", exc_info=True)
        print(f"Error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    finally:
        close_logging()
    return 0


if __name__ == "__main__":
    sys.exit(main())
