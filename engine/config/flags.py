"""train.py's command line: flags -> config. It costs no torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from yacs.config import CfgNode as CN

from .load import ConfigError, check_cfg, full_default, merge, read_yaml, require, settle_paths

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
    parser = argparse.ArgumentParser(prog="train.py", description="Trains or tests a method on a data set.")
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
        errors.append(f"command line: {pairs[-1]!r} has no value. Give KEY VALUE pairs.")
    errors += merge(cfg, dict(zip(pairs[::2], pairs[1::2], strict=False)), "command line")
    if list(cfg.RUN.PLUGINS) != (args.plugin or []):
        errors.append(f"RUN.PLUGINS is {cfg.RUN.PLUGINS}, but only --plugin sets it. Give the flag.")
    settle_paths(cfg)
    require(unreadable + errors + ([] if unreadable else check_cfg(cfg)))
    return cfg
