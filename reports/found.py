"""Runs as they lie below the output folder, whatever method and data set they are of.

    OUTPUT/DATASET/TRAINER/CFG_SHOTSshots[/nctxM_cscC_ctpP]/seedS      SHOTS images of each class
    OUTPUT/base2new/train_base/DATASET/shots_SHOTS/TRAINER/CFG/seedS   of each base class

The first part of CFG is the backbone: rn50 for rn50_ep100_ctxv1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.text import printable

from .experiments import FEW_SHOTS, LABELS, NAMES, coop_config, expected_results, max_epoch
from .runs import parse_run, seed_folders

NOT_DATASETS = ("ZeroshotCLIP", "ZeroshotCLIP2", "TPT", "base2new", "evaluation")  # of OUTPUT's folders
CFG_SHOTS = re.compile(r"(?P<cfg>(?P<backbone>vit_[a-z]+\d+|[^_]+)(?P<rest>_.+)?)_(?P<shots>\d+)shots")
EPOCHS = re.compile(r"_imagenet|_ep\d+")  # what a config's name has for some shots, or for ImageNet
OPTIONS = re.compile(r"nctx(\d+)_csc(True|False)_ctp(\w+)")  # names of folders
POSITIONS = ("end", "middle", "front")


@dataclass(frozen=True)
class Method:
    """What a line shows: a trainer, its CFG without backbone and epochs, the name of its folder of options.

    Args:
        trainer, variant, options: As the folders are named.
        absent: Keys of results.json that the options name and the method does not have.
        n_ctx: Number of context vectors where it is another than the options name: words to start from decide it.
    """

    trainer: str
    variant: str = ""
    options: str = ""
    absent: tuple[str, ...] = ()
    n_ctx: int | None = None

    @property
    def context(self) -> dict[str, Any]:
        """What the options say of the context vectors, by keys of results.json; empty if they are other options."""
        found = OPTIONS.fullmatch(self.options)
        if found is None:
            return {}
        n_ctx, csc, position = found.groups()
        said = {"n_ctx": self.n_ctx or int(n_ctx), "csc": csc == "True", "class_token_position": position}
        return {key: value for key, value in said.items() if key not in self.absent}

    @property
    def label(self) -> str:
        """Its name in a legend, such as "CoOp (M=16, end, CSC)"."""
        details = [self.options] if self.options else []
        if OPTIONS.fullmatch(self.options):
            n_ctx = self.context.get("n_ctx")
            details = [f"M={n_ctx}"] * (n_ctx is not None) + [self.position] * bool(self.position)
            details += ["CSC"] * self.is_class_specific
        details += [self.variant.strip("_").replace("_", " ")] if self.variant else []
        name = LABELS.get(self.trainer, self.trainer)
        name = name[:1].upper() + name[1:]
        return printable(f"{name} ({', '.join(details)})" if details else name)

    @property
    def position(self) -> str:
        """Where the class token stands, if the options say so."""
        return self.context.get("class_token_position", "")

    @property
    def is_class_specific(self) -> bool:
        """Whether it learns a context for each class."""
        return self.context.get("csc", False)

    @property
    def rank(self) -> tuple:
        """Sorts a legend: CoOp, then other trainers, the linear probe last."""
        position = POSITIONS.index(self.position) if self.position in POSITIONS else len(POSITIONS)
        trainer = {"CoOp": 0, "LinearProbe": 2}.get(self.trainer, 1)
        n_ctx = self.context.get("n_ctx", 0)
        return trainer, self.trainer, self.is_class_specific, self.variant, -n_ctx, position, self.options


@dataclass(frozen=True)
class Found:
    """The few-shot runs of a method on a data set, for one number of shots."""

    folder: Path  # holds seed1, seed2, ...
    dataset: str
    backbone: str
    method: Method
    shots: int
    cfg: str
    left_out: tuple[str, ...] = ()  # runs for other numbers of epochs, a note on each

    @property
    def expected(self) -> dict[str, Any]:
        """What belongs into its runs' results.json."""
        trainer, context = self.method.trainer, self.method.context
        return expected_results(self.dataset, trainer, self.cfg, source=self.dataset, shots=self.shots, **context)

    @property
    def is_papers_then_epochs(self) -> tuple[bool, int]:
        """Sorts runs for several numbers of epochs: the papers' number is the largest."""
        papers = coop_config(self.backbone, self.dataset, shots=self.shots) if self.shots in FEW_SHOTS else self.cfg
        return max_epoch(papers) == max_epoch(self.cfg), max_epoch(self.cfg)


def few_shot_runs(output: Path) -> list[Found]:
    """Finds the few-shot runs of every method and data set; what a method has is what its results say."""
    found = []
    for folder in sorted(output.glob("*/*/*_*shots")):
        if folder.is_dir() and few_shot(folder):
            found += [few_shot(path) for path in (folder, *sorted(folder.iterdir())) if seed_folders(path)]
    of_method: dict[Method, list[Found]] = {}
    for runs in found:
        of_method.setdefault(runs.method, []).append(runs)
    as_run = {method: _as_run(method, of) for method, of in of_method.items()}
    return [replace(runs, method=as_run[runs.method]) for runs in found]


def _as_run(method: Method, found: Iterable[Found]) -> Method:
    """Returns a method with what its results say of its context, where the folder's name says otherwise."""
    if not method.context:
        return method
    runs = [parse_run(seed_folders(of.folder)[0]) for of in found]
    absent = {key for run in runs for key in run.absent} & method.context.keys()
    from_words = {run.identity.get("n_ctx") for run in runs if any(key.endswith(".CTX_INIT") for key in run.settings)}
    n_ctx = next((n for n in from_words if len(from_words) == 1 and isinstance(n, int)), None)
    return replace(method, absent=tuple(sorted(absent)), n_ctx=n_ctx)


def few_shot(folder: Path) -> Found | None:
    """Returns what the path of a folder of seeds says of its few-shot runs; None where it is not of such runs."""
    has_options = CFG_SHOTS.fullmatch(folder.name) is None
    parent = folder.parent if has_options else folder
    name, parts = CFG_SHOTS.fullmatch(parent.name), parent.parts[-3:-1]
    if name is None or len(parts) < 2 or parts[0] in NOT_DATASETS:
        return None
    method = Method(parts[1], EPOCHS.sub("", name["rest"] or ""), folder.name if has_options else "")
    return Found(folder, parts[0], name["backbone"], method, int(name["shots"]), name["cfg"])


def choose_epochs(found: Sequence[Found]) -> list[Found]:
    """Returns the runs of one number of epochs for each point; they name the others in `left_out`."""
    points: dict[tuple, list[Found]] = {}
    for runs in sorted(found, key=lambda runs: runs.is_papers_then_epochs, reverse=True):
        points.setdefault((runs.dataset, runs.backbone, runs.method, runs.shots), []).append(runs)
    return [
        replace(first, left_out=tuple(f"{runs.folder} is left out: {first.cfg} is shown instead" for runs in others))
        for first, *others in points.values()
    ]


def expected_in(folder: Path) -> Mapping[str, Any]:
    """Returns what the path of a folder of seeds says of its runs, by keys of results.json; nothing for other paths."""
    found = few_shot(folder.absolute())
    if found and found.dataset in NAMES:
        return found.expected
    parts = folder.absolute().parts[-5:]
    subsample = {"train_base": "base", "test_new": "new", "test_all": "all"}.get(parts[0])
    if subsample and len(parts) == 5 and parts[1] in NAMES and re.fullmatch(r"shots_\d+", parts[2]):
        dataset, trainer, cfg = parts[1], *parts[3:]
        shots = int(parts[2].removeprefix("shots_"))
        return expected_results(dataset, trainer, cfg, source=dataset, subsample=subsample, shots=shots)
    return {}


@dataclass(frozen=True)
class Tested:
    """The runs of a method that are not few-shot runs of all classes: where they are, what they are of."""

    folder: str  # below the output folder; holds seed1, seed2, ...
    dataset: str
    trainer: str
    cfg: str
    options: str = ""

    @property
    def backbone(self) -> str:
        """As in the names of configs."""
        return backbone_of(self.cfg)


def base_to_new_runs(output: Path) -> Iterator[Tested]:
    """Finds the runs on the base classes, with 16 shots of each."""
    for folder in sorted(output.glob("base2new/train_base/*/shots_16/*/*")):
        if seed_folders(folder):
            dataset, _, trainer, cfg = folder.parts[-4:]
            yield Tested(folder.relative_to(output).as_posix(), dataset, trainer, cfg)


def transfer_runs(output: Path) -> Iterator[Tested]:
    """Finds the tests, on any data set, of what was learned with 16 shots on another one."""
    for parent in sorted(output.glob("evaluation/*/*_16shots")):
        for folder in sorted([*parent.glob("*"), *parent.glob("nctx*/*")]):
            if folder.is_dir() and seed_folders(folder):
                options = folder.parent.name if folder.parent != parent else ""
                cfg = parent.name.removesuffix("_16shots")
                yield Tested(folder.relative_to(output).as_posix(), folder.name, parent.parent.name, cfg, options)


def backbone_of(cfg: str) -> str:
    """Returns the first part of a config's name, such as vit_b16."""
    found = CFG_SHOTS.fullmatch(f"{cfg}_1shots")
    return found["backbone"] if found else cfg
