"""sweep.py's command line. It costs no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .grid import VALIDATION, axes_error

PROMPT = {"nctx": 16, "csc": "False", "ctp": "end"}  # flags of CoOp and methods like it, and their defaults
PROMPT_KEYS = ("N_CTX", "CSC", "CLASS_TOKEN_POSITION")  # what they set
WITHOUT_PROMPT = ("CoCoOp", "LinearProbe")  # trainers that take none of these flags
SET_BY_FLAGS = {"SEED": "--seeds", "DATASET.NUM_SHOTS": "--shots", "OUTPUT_DIR": "--output-dir"}


def parse_args(argv: Sequence[str] | None = None, *, paper_shots: Sequence[int]) -> argparse.Namespace:
    """Reads the command line; --paper-epochs takes the numbers of `paper_shots`."""
    parser = argparse.ArgumentParser(prog="sweep.py", description="Runs a grid of numbers of shots and seeds.")
    parser.add_argument("--dataset", required=True, help="configs/datasets/DATASET.yaml")
    parser.add_argument("--shots", required=True, type=whole, nargs="+", help="training images of each class; -1: all")
    parser.add_argument("--seeds", type=whole, nargs="+", default=[1, 2, 3], help="a run each (default: 1 2 3)")
    parser.add_argument("--cfg", required=True, help="configs/trainers/TRAINER/CFG.yaml")
    parser.add_argument("--trainer", default="CoOp", help="name of the trainer (default: CoOp)")
    parser.add_argument("--plugin", action="append", default=[], help="as train.py's; repeatable")
    parser.add_argument("--plugin-config", action="append", default=[], help="as train.py's; repeatable")
    parser.add_argument("--nctx", type=int, help=f"number of context vectors (default: {PROMPT['nctx']})")
    parser.add_argument("--csc", choices=("True", "False"), help="True: a context for each class (default: False)")
    parser.add_argument("--ctp", help="where the class token stands: end (default), middle or front")
    axis = {"action": "append", "nargs": "+", "default": [], "metavar": ("KEY", "VALUE")}
    parser.add_argument("--grid", **axis, help="an axis; repeatable")
    parser.add_argument("--views", type=int, help="INPUT.VIEWS, so many random views of each training image")
    parser.add_argument("--paper-epochs", action="store_true", help="epochs by shots, as in CoOp's paper")
    parser.add_argument("--root", help="folder that holds the data sets")
    parser.add_argument("--output-dir", default="output", help="folder of all runs (default: output)")
    parser.add_argument("--jobs", type=int, help="runs side by side (default: one a GPU, else one a core up to 4)")
    parser.add_argument("--launcher", choices=("local", "ray"), default="local", help="ray: on RAY_ADDRESS's cluster")
    parser.add_argument("--gpus-per-run", type=float, default=0.25, help="part of a GPU, on Ray (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only list the calls of train.py and what is left")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")
    args = parser.parse_args(argv)
    args.opts = [word for word in args.opts if word != "--"]
    args.grid = [list(dict.fromkeys(axis)) for axis in args.grid]
    args.shots, args.seeds = (list(dict.fromkeys(numbers)) for numbers in (args.shots, args.seeds))
    if error := flag_error(args, paper_shots) or grid_error(args):
        parser.error(error)
    return args


def flag_error(args: argparse.Namespace, paper_shots: Sequence[int]) -> str:
    """Returns what is wrong with the flags that train.py does not know; "" for nothing."""
    for shots in args.shots:
        if shots < 1 and shots != -1:
            return f"--shots is {shots}; a number of shots is 1 or more, or -1 for all images."
    if args.jobs is not None and args.jobs < 1:
        return f"--jobs is {args.jobs}; it is the number of runs side by side, 1 or more."
    if not 0 < args.gpus_per_run <= 1:
        return f"--gpus-per-run is {args.gpus_per_run}; it is a part of one GPU, above 0 and up to 1."
    for key, flag in set_by_flags(args).items():
        if key in args.opts[::2]:
            return f"{key} is among the KEY VALUE pairs, but {flag} sets it. Leave the pair out."
    if args.trainer in WITHOUT_PROMPT and (given := prompt_flags(args)):
        return f"--trainer {args.trainer} takes no --{next(iter(given))}. Leave it out."
    if not args.paper_epochs:
        return ""
    if args.trainer in WITHOUT_PROMPT or "_ep" in args.cfg:
        return (
            f"--paper-epochs is for CoOp, with a CFG that leaves the epochs open, such as rn50 or rn50_ctxv1; this is "
            f"--trainer {args.trainer} --cfg {args.cfg}. Leave --paper-epochs out, or change the trainer or the CFG."
        )
    if not set(args.shots) <= set(paper_shots):
        papers, shots = (" ".join(map(str, numbers)) for numbers in (paper_shots, args.shots))
        return f"--shots is {shots}; --paper-epochs takes {papers}. Leave --paper-epochs or the other shots out."
    return ""


def grid_error(args: argparse.Namespace) -> str:
    """Returns what is wrong with --grid; "" for nothing."""
    if args.grid and VALIDATION[0] in args.opts[::2]:
        return f"{VALIDATION[0]} is among the KEY VALUE pairs, but --grid sets it. Leave the pair out."
    pairs = dict.fromkeys(args.opts[::2], "a KEY VALUE pair")
    return axes_error(args.grid, {**pairs, **set_by_flags(args), VALIDATION[0]: "--grid"})


def set_by_flags(args: argparse.Namespace) -> dict[str, str]:
    """Returns the config keys that flags set -> their flags, without those of PROMPT, whose keys the method decides."""
    return SET_BY_FLAGS | ({} if args.views is None else {"INPUT.VIEWS": "--views"})


def prompt_flags(args: argparse.Namespace) -> dict[str, int | str]:
    """Returns the flags of PROMPT that are given, with their values."""
    return {name: value for name in PROMPT if (value := getattr(args, name)) is not None}


def whole(word: str) -> int:
    """Reads a whole number; argparse takes KEY VALUE pairs right behind the numbers for more of them."""
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{word} is no whole number. Put KEY VALUE pairs behind another flag, or behind --."
        ) from None
