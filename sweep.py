"""Runs a grid of numbers of shots and seeds, skips what is done, and shows a table that fills in.

    shots x seeds -> a call of train.py each -> workers -> table

A run is one of scripts/coop/main.sh, with CoCoOp of scripts/cocoop/xd_train.sh, with LinearProbe of
scripts/linear_probe/main.sh: same folder, config and result. A worker does many runs, which share CLIP and features.

Run: python sweep.py --dataset shapes --shots 1 2 4 8 16 --seeds 1 2 3 --cfg tiny
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C during the imports leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from tabulate import tabulate

from engine.config.load import ConfigError
from engine.config.plugins import plugins
from launch import ray as ray_jobs
from launch.plan import (
    Finish,
    default_jobs,
    finish_here,
    outcome,
    print_failures,
    print_left,
    print_line,
    print_plan,
    run,
    until_interrupted,
)
from launch.workers import Job
from reports.experiments import EPOCHS, Experiment, coop, coop_config, transfer_source
from reports.statistics import summarise

PROMPT = {"nctx": 16, "csc": "False", "ctp": "end"}  # flags of CoOp and methods like it, and their defaults
WITHOUT_PROMPT = ("CoCoOp", "LinearProbe")  # trainers that take none of these flags
SET_BY_FLAGS = {"SEED": "--seeds", "DATASET.NUM_SHOTS": "--shots", "OUTPUT_DIR": "--output-dir"}
REDRAW = "\033[{}F\033[J"  # moves up so many lines and clears what follows

Grid = dict[tuple[int, int], Job]  # by shots and seed
Cells = Mapping[tuple[int, int], float | str]  # by shots and seed: accuracy in percent, or a word


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 all is done, 1 an error, 130 or 143 after Ctrl-C or SIGTERM."""
    return until_interrupted(lambda: sweep(parse_args(argv)))


def sweep(args: argparse.Namespace) -> int:
    """Plans, runs what is left and shows the table; returns the exit code."""
    try:
        grid = plan(args)
        if args.dry_run:
            print_plan([job.command for job in grid.values()], [*grid.values()])
            return 0
        n_workers, finish = launcher(args)
    except (ConfigError, ModuleNotFoundError, ConnectionError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    jobs, table = list(grid.values()), Table(grid, args)
    print_left(jobs, n_workers)
    if table.is_live:
        table.print()
    failures = run(jobs, n_workers, table.show, finish)
    table.print()
    print_failures(failures)
    return 1 if failures else 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    args.shots, args.seeds = (list(dict.fromkeys(numbers)) for numbers in (args.shots, args.seeds))
    if error := flag_error(args):
        parser.error(error)
    for name, default in PROMPT.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    return args


def flag_error(args: argparse.Namespace) -> str:
    """Returns what is wrong with the flags that train.py does not know; "" for nothing."""
    for shots in args.shots:
        if shots < 1 and shots != -1:
            return f"--shots is {shots}; a number of shots is 1 or more, or -1 for all images."
    if args.jobs is not None and args.jobs < 1:
        return f"--jobs is {args.jobs}; it is the number of runs side by side, 1 or more."
    if not 0 < args.gpus_per_run <= 1:
        return f"--gpus-per-run is {args.gpus_per_run}; it is a part of one GPU, above 0 and up to 1."
    for key, flag in SET_BY_FLAGS.items():
        if key in args.opts[::2]:
            return f"{key} is among the KEY VALUE pairs, but {flag} sets it. Leave the pair out."
    flags = [name for name in PROMPT if getattr(args, name) is not None]
    if flags and args.trainer in WITHOUT_PROMPT:
        return f"--trainer {args.trainer} takes no --{flags[0]}. Leave it out."
    if not args.paper_epochs:
        return ""
    if args.trainer in WITHOUT_PROMPT or "_ep" in args.cfg:
        return (
            f"--paper-epochs is for CoOp, with a CFG that leaves the epochs open, such as rn50 or rn50_ctxv1; this is "
            f"--trainer {args.trainer} --cfg {args.cfg}. Leave --paper-epochs out, or change the trainer or the CFG."
        )
    if not set(args.shots) <= set(EPOCHS):
        papers, shots = (" ".join(map(str, numbers)) for numbers in (EPOCHS, args.shots))
        return f"--shots is {shots}; --paper-epochs takes {papers}. Leave --paper-epochs or the other shots out."
    return ""


def whole(word: str) -> int:
    """Reads a whole number; argparse takes KEY VALUE pairs right behind the numbers for more of them."""
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{word} is no whole number. Put KEY VALUE pairs behind another flag, or behind --."
        ) from None


def plan(args: argparse.Namespace) -> Grid:
    """Returns the runs in their order: seed by seed, each from many shots to few.

    So runs side by side end at different times: the first encodes the test images, and the others find the features.
    And the longest runs are not the last.

    Raises:
        ConfigError: A run's config is wrong; no run has started.
    """
    import train  # noqa: F401  registers our classes, before plug-ins that import them register theirs for a time

    with plugins(args.plugin, args.plugin_config):
        keys = [(shots, seed) for seed in args.seeds for shots in sorted(args.shots, reverse=True)]
        return {key: plan_run(call(args, *key)) for key in keys}


def plan_run(argv: Sequence[str]) -> Job:
    """Returns one call of train.py as a job."""
    import train  # takes seconds, which --help and wrong flags do not need
    from clip.clip import weights_sha256
    from engine.run.folder import resolve_seed
    from engine.run.inputs import still_done

    cfg = train.setup_cfg(train.parse_args(argv))
    resolve_seed(cfg)
    command = shlex.join(["python", "train.py", *argv])
    return Job(command, "train", tuple(argv), Path(cfg.OUTPUT_DIR).absolute(), done=still_done(cfg, weights_sha256))


def call(args: argparse.Namespace, shots: int, seed: int) -> list[str]:
    """Returns the arguments of train.py for one run, as the scripts pass them."""
    cfg = args.cfg
    if args.paper_epochs:
        backbone = cfg.removesuffix("_ctxv1")
        cfg = coop_config(backbone, args.dataset, shots=shots, words=cfg != backbone)
    made, pairs = experiment(args, cfg, shots)
    pairs["DATASET.NUM_SHOTS"] = shots
    if args.views is not None:
        pairs["INPUT.VIEWS"] = args.views
    flags = {
        "root": args.root,
        "output-dir": Path(args.output_dir, made.folder, f"seed{seed}"),
        "seed": seed,
        "trainer": args.trainer,
        "dataset-config-file": f"configs/datasets/{args.dataset}.yaml",
        "config-file": f"configs/trainers/{args.trainer}/{cfg}.yaml",
    }
    named = [("plugin", name) for name in args.plugin] + [("plugin-config", path) for path in args.plugin_config]
    said = [(flag, value) for flag, value in flags.items() if value is not None] + named
    words = [word for flag, value in said for word in (f"--{flag}", str(value))]
    return words + [str(word) for pair in pairs.items() for word in pair] + args.opts


def experiment(args: argparse.Namespace, cfg: str, shots: int) -> tuple[Experiment, dict[str, object]]:
    """Returns the experiment, whose folder holds the runs, and the KEY VALUE pairs that the folder's name shows."""
    if args.trainer in WITHOUT_PROMPT:
        return transfer_source(args.trainer, cfg, source=args.dataset, shots=shots), {}
    n_ctx, csc, position = args.nctx, args.csc == "True", args.ctp
    made = coop(args.dataset, cfg, trainer=args.trainer, n_ctx=n_ctx, shots=shots, position=position, csc=csc)
    prompt = {"N_CTX": n_ctx, "CSC": csc, "CLASS_TOKEN_POSITION": position}
    return made, {f"TRAINER.COOP.{key}": value for key, value in prompt.items()}


def launcher(args: argparse.Namespace) -> tuple[int, Finish]:
    """Returns how many runs go side by side, and the function that does them."""
    if args.launcher == "ray":
        room = ray_jobs.connect(args.gpus_per_run)
        return args.jobs or room, partial(ray_jobs.finish_on_cluster, gpus_per_run=args.gpus_per_run)
    return args.jobs or default_jobs(), finish_here


class Table:
    """Shots x seeds with accuracies in percent. A terminal shows it from the start, other outputs at the end."""

    def __init__(self, grid: Grid, args: argparse.Namespace):
        self.args, self.key_of = args, {job: key for key, job in grid.items()}
        self.cells = {key: outcome(job) for key, job in grid.items() if job.done}
        self.is_live = sys.stdout.isatty()
        self.n_lines = 0  # of the table in the terminal

    def show(self, job: Job, error: str, time_s: float, n_left: int) -> None:
        """Takes in how a run ended."""
        self.cells[self.key_of[job]] = outcome(job, error)
        if self.is_live:
            self.print()
        else:
            print_line(self.args.output_dir, job, error, time_s, n_left)

    def print(self) -> None:
        """Prints the table, in a terminal over the one before."""
        if self.n_lines:
            print(REDRAW.format(self.n_lines), end="")
        text = "\n" + table_text(self.cells, self.args.shots, self.args.seeds)
        if self.is_live:
            width = shutil.get_terminal_size().columns
            self.n_lines = sum(max(1, -(-len(line) // width)) for line in text.split("\n"))  # wide ones are folded
        print(text, flush=True)


def table_text(cells: Cells, shots: Sequence[int], seeds: Sequence[int]) -> str:
    """Returns a table, with means and population standard deviations of the accuracies there are."""
    rows = []
    for number in shots:
        line = [cells.get((number, seed), "") for seed in seeds]
        values = [cell for cell in line if isinstance(cell, float)]
        texts = [f"{cell:.2f}" if isinstance(cell, float) else cell for cell in line]
        summary = "{:.2f} +- {:.2f}".format(*summarise(values)) if values else ""
        missing = f" ({len(values)} of {len(line)} seeds)" if 0 < len(values) < len(line) else ""
        rows.append([str(number), *texts, summary + missing])
    header = ["shots", *(f"seed {seed}" for seed in seeds), "mean +- std"]
    return tabulate(rows, header, disable_numparse=True, stralign="right")


if __name__ == "__main__":
    sys.exit(main())
