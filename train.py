"""Trains or tests a method on a data set: arguments -> config -> seed, log -> trainer -> train() or test()."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # while the imports below take their seconds, Ctrl-C leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from yacs.config import CfgNode as CN

import datasets  # noqa: F401  registers the data sets
import trainers  # noqa: F401  registers the trainers
from clip.clip import weights_sha256
from engine.config.load import ConfigError, check_cfg, full_default, merge, read_yaml, require, settle_paths
from engine.config.plugins import plugins
from engine.determinism import deterministic
from engine.device import keep_freed_memory, memory_advice
from engine.distributed import is_first_rank, n_ranks, on_first_rank, process_group
from engine.interruption import Interrupted, finishing, interruptible, starting_over
from engine.log import close_logging, environment, say, setup_logging
from engine.random_state import set_random_seed
from engine.registry import TRAINER_REGISTRY
from engine.resume import remove_resume_files
from engine.run.folder import is_done, resolve_seed, set_results_aside, write_config, write_results
from engine.run.lock import locked
from engine.run.provenance import cost, provenance
from engine.run.results import log_doubts, results_of

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
    "deterministic": "RUN.DETERMINISTIC",
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
    parser.add_argument("--deterministic", action="store_true", default=None, help="repeatable on a GPU too, slower")
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


def run(cfg: CN, *, no_train: bool = False) -> None:
    """Does what the config says, unless its folder shows that it is done."""
    resolve_seed(cfg)
    if not found_done(cfg):
        with locked(cfg.OUTPUT_DIR), starting_over() if cfg.RUN.EVAL_ONLY else nullcontext():
            if not found_done(cfg):  # by the process that had the folder until now
                do(cfg, no_train=no_train)


def found_done(cfg: CN) -> bool:
    """Says, also to the user, whether the run's folder shows that it is done."""
    done = on_first_rank(partial(is_done, cfg))
    if done and is_first_rank():
        remove_resume_files(cfg.OUTPUT_DIR)  # left by one that was killed just after it had ended
        say(f"Done already: {cfg.OUTPUT_DIR} holds the results of this run.")
    return done


def do(cfg: CN, *, no_train: bool = False) -> None:
    """Trains or tests as the config says, in a folder that is this process's."""
    cfg.freeze()
    setup_logging(cfg.OUTPUT_DIR)
    set_random_seed(cfg.SEED)
    keep_freed_memory()
    if cfg.VERBOSE:
        logger.info("%s\n%s", cfg, environment())
    logger.info("Seed: %d", cfg.SEED)
    if cfg.RUN.DETERMINISTIC:
        logger.info("Deterministic: every operation repeats its bits, which costs time and memory on a GPU")
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
    if no_train:
        return
    if is_first_rank() and set_results_aside(cfg.OUTPUT_DIR):
        logger.info("The results there are of a model or a configuration that has changed: they are made anew")
    if cfg.RUN.EVAL_ONLY:
        trainer.load_model(cfg.RUN.MODEL_DIR, epoch=cfg.RUN.LOAD_EPOCH)
    write_config(cfg)  # from here on the folder is this run's
    came_from = provenance(trainer, weights_sha256(cfg.MODEL.BACKBONE.NAME))  # now: files may change in the meantime
    together = finishing() if n_ranks() > 1 else nullcontext()  # ranks end in the same place
    with memory_advice(trainer.half_at_once), together:
        if cfg.RUN.EVAL_ONLY:
            trainer.test()
        else:
            trainer.train()
    results = {**results_of(trainer), "provenance": came_from, "cost": cost(trainer)}
    log_doubts(trainer, results)
    write_results(cfg, results)
    remove_resume_files(cfg.OUTPUT_DIR)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 an error, which is printed, 130 or 143 after Ctrl-C or SIGTERM."""
    try:
        args = parse_args(argv)
        with interruptible(), plugins(args.plugin or (), args.plugin_config or ()):
            cfg = setup_cfg(args)
            with deterministic(cfg.RUN.DETERMINISTIC), process_group(use_cuda=cfg.USE_CUDA):
                run(cfg, no_train=args.no_train)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.exit_code
    except (ConfigError, ValueError, KeyError, OSError, FloatingPointError, MemoryError, ModuleNotFoundError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        logger.info("The run ended with an error: %s", message, exc_info=True)
        print(f"Error: {message}", file=sys.stderr)
        return 1
    finally:
        close_logging()
    return 0


if __name__ == "__main__":
    sys.exit(main())
