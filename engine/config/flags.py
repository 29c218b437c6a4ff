"""train.py's command line, or a call of `train` in Python: flags -> config. It costs no torch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from ..registry import near_name
from .load import ConfigError, check_cfg, complete, flatten, full_default, merge, read_yaml, require, settle_paths
from .published import options_of
from .reads import watch

SWITCH = {"action": "store_true", "default": None}
FLAGS = [  # flag, the key that it sets, its help, how it is read; a flag that is not given changes nothing
    ("--root", "DATASET.ROOT", "folder that holds the data sets", {}),
    ("--output-dir", "OUTPUT_DIR", "the run's folder", {}),
    ("--resume", "RESUME", "folder of a run to go on from (default: the output folder itself)", {}),
    ("--seed", "SEED", "negative: a fresh one, which is logged", {"type": int}),
    ("--source-domains", "DATASET.SOURCE_DOMAINS", "refused: domain labels are not used", {"nargs": "+"}),
    ("--target-domains", "DATASET.TARGET_DOMAINS", "refused: domain labels are not used", {"nargs": "+"}),
    ("--transforms", "INPUT.TRANSFORMS", "names of augmentations", {"nargs": "+"}),
    ("--trainer", "TRAINER.NAME", "name of the trainer", {}),
    ("--plugin", "RUN.PLUGINS", "module or file of a trainer or a data set; repeatable", {"action": "append"}),
    ("--backbone", "MODEL.BACKBONE.NAME", "name of a CLIP or path of its weights", {}),
    ("--head", "MODEL.HEAD.NAME", "refused: CLIP's text features are the classifier", {}),
    ("--eval-only", "RUN.EVAL_ONLY", "only test", SWITCH),
    ("--model-dir", "RUN.MODEL_DIR", "with --eval-only: the run whose model is tested", {}),
    ("--load-epoch", "RUN.LOAD_EPOCH", "with --model-dir: after how many epochs (default: the best)", {"type": int}),
    ("--save-logits", "TEST.SAVE_LOGITS", "also write all logits of the test to logits.npz", SWITCH),
    ("--deterministic", "RUN.DETERMINISTIC", "repeatable on a GPU too, slower", SWITCH),
]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line; absent flags are None."""
    parser = argparse.ArgumentParser(prog="train.py", description="Trains or tests a method on a data set.")
    parser.add_argument("--config-file", help="the trainer's YAML")
    parser.add_argument("--dataset-config-file", help="the data set's YAML")
    for flag, _, text, options in FLAGS:
        parser.add_argument(flag, help=text, **options)
    parser.add_argument("--plugin-config", action="append", help="YAML of keys that a plug-in reads; repeatable")
    parser.add_argument("--no-train", action="store_true", help="build everything, then stop")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")
    return parser.parse_args(argv)


def args_of(flags: Mapping[str, Any], options: Mapping[str, Any]) -> argparse.Namespace:
    """Returns what `parse_args` does, of a call in Python: the flags by name, with _ for -; keys and values.

    Values may be of any type that says the same when it is printed: a path, a number, a tuple.

    Raises:
        TypeError: If there is no such flag.
    """
    args = parse_args([])
    known = sorted(vars(args).keys() - {"opts"})
    for name, value in flags.items():
        if name not in known:
            raise TypeError(
                f"train() has no argument {name!r}.{near_name(name, known)} It has train.py's flags, with _ for -: "
                f"{', '.join(known)}. Config keys go into options."
            )
        if name.startswith("plugin") and value is not None:  # the flags that may be repeated
            value = [str(one) for one in ([value] if isinstance(value, (str, Path)) else value)]
        if isinstance(value, Integral) and not isinstance(value, bool):
            value = int(value)  # numpy's, as of a loop over seeds
        setattr(args, name, str(value) if isinstance(value, Path) else value)
    args.opts = [str(word) for pair in options.items() for word in pair]
    return args


def setup_cfg(args: argparse.Namespace) -> CN:
    """Builds the config of a call: defaults, data set's file, trainer's file, flags, KEY VALUE pairs.

    Raises:
        ConfigError: With everything that is wrong.
    """
    cfg, sources, errors, unreadable = full_default(), [], [], []
    for path in filter(None, (args.dataset_config_file, args.config_file)):
        try:
            sources.append((path, read_yaml(path)))
        except ConfigError as error:
            unreadable.append(str(error))
    pairs, unpaired = read_pairs(args.opts)
    sources += [("command line", values_of_flags(args)), ("command line", pairs)]
    options = options_of([values["TRAINER.NAME"] for _, values in sources if "TRAINER.NAME" in values])
    for source, values in sources:
        given, wrong = options.as_own(values, flatten(cfg))  # at last those of the command
        errors += merge(cfg, given, source) + [f"{source}: {error}" for error in wrong]
    errors += unpaired
    if list(cfg.RUN.PLUGINS) != (args.plugin or []):
        errors.append(f"RUN.PLUGINS is {cfg.RUN.PLUGINS}, but only --plugin sets it. Give the flag.")
    settle_paths(cfg)
    errors += complete(cfg, given)
    require(unreadable + errors + ([] if unreadable else check_cfg(cfg)))
    watch(cfg, given)
    return cfg


def values_of_flags(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the values of the flags that were given, by key."""
    values = {key: getattr(args, flag[2:].replace("-", "_")) for flag, key, *_ in FLAGS}
    if args.config_file:
        values["RUN.CFG"] = Path(args.config_file).stem
    return {key: value for key, value in values.items() if value is not None}


def read_pairs(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Returns the values of a command's last words, KEY VALUE ..., and an error where they are something else."""
    words, errors = [word for word in words if word != "--"], []
    n_pairs = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    if flags := words[n_pairs:]:
        flag = flags[0].partition("=")[0]
        errors.append(
            f"command line: {flag} stands behind KEY VALUE pairs. Flags come first: put it before {words[0]}."
        )
    elif n_pairs % 2:
        errors.append(f"command line: {words[-1]!r} has no value. Give KEY VALUE pairs.")
    return dict(zip(words[:n_pairs:2], words[1:n_pairs:2], strict=False)), errors
