"""Runs a grid of numbers of shots and seeds, skips what is done, and shows a table that fills in.

    shots x seeds -> a call of train.py each -> workers -> table

With --grid, values of config keys are axes too: they are compared on validation items, and the best is tested.

    shots x seeds x values -> calls that train and validate -> the best value -> calls that test it -> table

A run is one of scripts/coop/main.sh, with CoCoOp of scripts/cocoop/xd_train.sh, with LinearProbe of
scripts/linear_probe/main.sh: same folder, config and result. A worker does many runs, which share CLIP and features.

Run: python sweep.py --dataset shapes --shots 1 2 4 8 16 --seeds 1 2 3 --cfg tiny
     python sweep.py --dataset shapes --shots 16 --cfg tiny --grid OPTIM.LR 0.0002 0.002 0.02
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C during the imports leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from tabulate import tabulate

from engine.config.load import ConfigError
from engine.config.plugins import plugins
from launch import flags as command_line
from launch import grid as grids
from launch import ray as ray_jobs
from launch.flags import PROMPT, PROMPT_KEYS, WITHOUT_PROMPT, prompt_flags
from launch.grid import VALIDATION, Accuracies, GridKey, Values
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
    train_job,
    until_interrupted,
)
from launch.workers import Job
from reports.experiments import EPOCHS, Experiment, coop, coop_config, transfer_source
from reports.runs import parse_run
from reports.statistics import mean_text, warnings_by_mean

BEST = "best: the highest mean accuracy on validation items, of equal ones the first. Test items choose nothing."
REDRAW = "\033[{}F\033[J"  # moves up so many lines and clears what follows

Grid = dict[tuple[int, int], Job]  # by shots and seed
Best = Mapping[int, Values | None]  # by shots
Cells = Mapping[tuple[int, int], float | str]  # by shots and seed: accuracy in percent, or a word


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 all is done, 1 an error, 130 or 143 after Ctrl-C or SIGTERM."""
    return until_interrupted(lambda: sweep(parse_args(argv)))


def sweep(args: argparse.Namespace) -> int:
    """Plans, runs what is left and shows the table; returns the exit code."""
    try:
        if args.grid:
            return choose(args)
        grid = plan(args)
        if args.dry_run:
            print_plan([job.command for job in grid.values()], [*grid.values()])
            return 0
        n_workers, finish = launcher(args)
    except (ValueError, KeyError, OSError, ModuleNotFoundError) as error:
        print(f"Error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    jobs, table = list(grid.values()), Table(grid, args)
    print_left(jobs, n_workers)
    if table.is_live:
        table.print()
    failures = run(jobs, n_workers, table.show, finish)
    table.print()
    print_warnings(args, grid)
    print_failures(failures)
    return 1 if failures else 0


def choose(args: argparse.Namespace) -> int:
    """Trains with all values of --grid, compares them on validation items, tests the best; returns the exit code."""
    with registered(args):
        trained = plan_grid(args)
        if not args.dry_run:
            grids.require_validation(next(iter(trained.values())))
    if args.dry_run:
        print_plan([job.command for job in trained.values()], [*trained.values()])
        print("Then the values with the best validation accuracy are tested.")
        return 0
    n_workers, finish = launcher(args)
    validated, failures = finish_all(args, trained, n_workers, finish)
    best = {shots: grids.best_values(validated, shots, args.seeds) for shots in args.shots}
    with registered(args):
        tests = {key: plan_test(args, *key, job) for key, job in trained.items() if best[key[0]] == key[1]}
    tested, failed = finish_all(args, tests, n_workers, finish)
    print(f"\n{grid_table(args, validated, best, tested)}\n{BEST}", flush=True)
    print_warnings(args, {(shots, seed): job for (shots, _, seed), job in tests.items()})
    print_failures(failures | failed)
    return 1 if failures or failed or None in best.values() else 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    return command_line.parse_args(argv, paper_shots=tuple(EPOCHS))


def registered(args: argparse.Namespace) -> AbstractContextManager[None]:
    """Registers trainers and data sets, those of plug-ins until the `with` block ends."""
    import train  # noqa: F401  takes seconds, which --help and wrong flags do not need; before plug-ins, and to stay

    return plugins(args.plugin, args.plugin_config)


def plan(args: argparse.Namespace) -> Grid:
    """Returns the runs in their order: seed by seed, each from many shots to few.

    So runs side by side end at different times: the first encodes the test images, and the others find the features.
    And the longest runs are not the last.

    Raises:
        ConfigError: A run's config is wrong; no run has started.
    """
    with registered(args):
        keys = [(shots, seed) for seed in args.seeds for shots in sorted(args.shots, reverse=True)]
        return {key: plan_run(call(args, *key)) for key in keys}


def plan_grid(args: argparse.Namespace) -> dict[GridKey, Job]:
    """Returns the runs that train with the values of --grid and are tested on validation items.

    Raises:
        ConfigError: A run's config is wrong; no run has started.
    """
    keys = itertools.product(sorted(args.shots, reverse=True), grids.combinations(args.grid), args.seeds)
    return {
        (shots, values, seed): plan_run(
            call(args, shots, seed, grids.grid_folder("val", values), (*values, VALIDATION))
        )
        for shots, values, seed in keys
    }


def plan_test(args: argparse.Namespace, shots: int, values: Values, seed: int, trained: Job) -> Job:
    """Returns the test of a run of `plan_grid`."""
    from engine.run.folder import read_results

    epoch = (read_results(trained.target) or {}).get("epoch")
    is_there = epoch and any(trained.target.glob(f"*/model.pth.tar-{epoch}"))  # else the one that validation has chosen
    flags = ["--eval-only", "--model-dir", str(trained.target), *(["--load-epoch", str(epoch)] if is_there else [])]
    searched = ("RUN.SEARCHED", repr(tuple(key for key, _ in values)))  # for results.json
    return plan_run([*flags, *call(args, shots, seed, grids.grid_folder("test", values), (*values, searched))])


def plan_run(argv: Sequence[str]) -> Job:
    """Returns one call of train.py as a job."""
    import train  # takes seconds, which --help and wrong flags do not need
    from clip.clip import weights_sha256

    command = shlex.join(["python", "train.py", *argv])
    return train_job(command, argv, train.setup_cfg(train.parse_args(argv)), weights_sha256)


def call(args: argparse.Namespace, shots: int, seed: int, folder: str = "", values: Values = ()) -> list[str]:
    """Returns the arguments of train.py for one run, as the scripts pass them.

    Args:
        args: The command line.
        shots, seed: Of the run.
        folder: Between the experiment's folder and the seed's.
        values: More KEY VALUE pairs.
    """
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
        "output-dir": Path(args.output_dir, made.folder, folder, f"seed{seed}"),
        "seed": seed,
        "trainer": args.trainer,
        "dataset-config-file": f"configs/datasets/{args.dataset}.yaml",
        "config-file": f"configs/trainers/{args.trainer}/{cfg}.yaml",
    }
    named = [("plugin", name) for name in args.plugin] + [("plugin-config", path) for path in args.plugin_config]
    said = [(flag, value) for flag, value in flags.items() if value is not None] + named
    words = [word for flag, value in said for word in (f"--{flag}", str(value))]
    return words + [str(word) for pair in (pairs | dict(values)).items() for word in pair] + args.opts


def experiment(args: argparse.Namespace, cfg: str, shots: int) -> tuple[Experiment, dict[str, object]]:
    """Returns the experiment, whose folder holds the runs, and the KEY VALUE pairs that the folder's name shows.

    Raises:
        ConfigError: A flag is given for which the method has no key, or the key is set in another way, too.
    """
    group, given = prompt_group(args.trainer), prompt_flags(args)
    if not group and given:
        raise ConfigError(
            f"--{next(iter(given))} is given, but --trainer {args.trainer} has not all options that --nctx, --csc and "
            f"--ctp set: {', '.join(PROMPT_KEYS)}. Leave the flag out. Options of its own are KEY VALUE pairs."
        )
    if not group:
        return transfer_source(args.trainer, cfg, source=args.dataset, shots=shots), {}
    said = PROMPT | given
    n_ctx, csc, position = said["nctx"], said["csc"] == "True", said["ctp"]
    made = coop(args.dataset, cfg, trainer=args.trainer, n_ctx=n_ctx, shots=shots, position=position, csc=csc)
    pairs = {f"TRAINER.{group}.{key}": value for key, value in zip(PROMPT_KEYS, (n_ctx, csc, position), strict=True)}
    for key, flag in zip(pairs, PROMPT, strict=True):
        if key in args.opts[::2] or (flag in given and key in [axis[0] for axis in args.grid]):
            raise ConfigError(f"--{flag} sets {key}, and the run's folder names it. Set it in one way, by --{flag}.")
    return made, pairs


def prompt_group(trainer: str) -> str:
    """Returns the group under TRAINER whose options --nctx, --csc and --ctp set; "": the method has not all of them."""
    from engine.config.load import full_default
    from engine.registry import TRAINER_REGISTRY

    if trainer in WITHOUT_PROMPT:
        return ""
    if trainer not in TRAINER_REGISTRY:  # which is an error of its config
        return "COOP"
    group = getattr(TRAINER_REGISTRY.get(trainer), "node", "COOP")  # one written for the original reads CoOp's
    return group if set(PROMPT_KEYS) <= set(full_default().TRAINER.get(group, ())) else ""


def launcher(args: argparse.Namespace) -> tuple[int, Finish]:
    """Returns how many runs go side by side, and the function that does them."""
    if args.launcher == "ray":
        room = ray_jobs.connect(args.gpus_per_run)
        return args.jobs or room, partial(ray_jobs.finish_on_cluster, gpus_per_run=args.gpus_per_run)
    return args.jobs or default_jobs(), finish_here


def print_warnings(args: argparse.Namespace, grid: Grid) -> None:
    """Prints what makes the means over seeds doubtful."""
    means = {str(n): [parse_run(grid[n, s].target) for s in args.seeds if (n, s) in grid] for n in args.shots}
    for warning in warnings_by_mean(means):
        print(f"Warning: shots {warning}", flush=True)


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
        texts = [f"{cell:.2f}" if isinstance(cell, float) else cell for cell in line]
        rows.append([str(number), *texts, mean_text(line)])
    header = ["shots", *(f"seed {seed}" for seed in seeds), "mean +- std"]
    return tabulate(rows, header, disable_numparse=True, stralign="right")


def finish_all(
    args: argparse.Namespace, jobs: Mapping[GridKey, Job], n_workers: int, finish: Finish
) -> tuple[Accuracies, dict[Job, str]]:
    """Does what is left of some runs; returns how each ended, and the errors of those that failed."""
    print_left([*jobs.values()], n_workers)
    failures = run([*jobs.values()], n_workers, partial(print_line, args.output_dir), finish)
    return {key: outcome(job, failures.get(job, "")) for key, job in jobs.items()}, failures


def grid_table(args: argparse.Namespace, validated: Accuracies, best: Best, tested: Accuracies) -> str:
    """Returns a line for each number of shots and each value: its accuracy on validation items, the best one's test."""
    rows = []
    for shots, values in itertools.product(args.shots, grids.combinations(args.grid)):
        of_split = ([of.get((shots, values, seed), "") for seed in args.seeds] for of in (validated, tested))
        cells = [mean_text(cells) or cells[0] for cells in of_split]
        mark = "best" if best[shots] == values else ""
        rows.append([str(shots), *(value for _, value in values), *cells, mark])
    header = ["shots", *(key for key, *_ in args.grid), "validation", "test", ""]
    return tabulate(rows, header, disable_numparse=True, stralign="right")


if __name__ == "__main__":
    sys.exit(main())
