"""Many methods under one protocol, beside what others published of them; and the same in miniature, on `shapes`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, harmonic_mean

from ..experiments import (
    DATASETS,
    FEATURE_METHODS,
    FEW_SHOTS,
    INSIDE_TOWERS,
    LABELS,
    SHIFTED,
    STEPS,
    Experiment,
    few_shot,
    few_shot_config,
    linear_probe,
    linear_probe_shifted,
    zero_shot,
)
from .cells import Average, Cell, Cost, Parameters, PeakMemory, Result
from .cocoop import CLIP, COCOOP, COOP
from .notes import READ_OFF
from .paper import PAPER, PUBLISHED
from .rows import (
    AVERAGE,
    BASE_NEW,
    BOTH_H_NOTE,
    FEW_SHOT_COLUMNS,
    H_NOTE,
    Method,
    block_rows,
    result_row,
    transfer_experiments,
    with_average_of_h,
    with_harmonic_mean,
)
from .table import Row, Table

COSTS = ("Parameters", "Seconds", "Memory (GB)")  # of a training
COLUMNS = (*BASE_NEW, "All", *COSTS)  # of base to new
PROGRAD = Method("ProGrad", "ProGrad", "vit_b16_ep100", cfg_on_imagenet="vit_b16_ep50")
KGCOOP = Method("KgCoOp", "KgCoOp", "vit_b16_ep100_ctxv1")
CLIP_ADAPTER = Method("CLIP-Adapter", "CLIPAdapter", "vit_b16")
GDA = Method("GDA", "GDA", "vit_b16", cfg_on_imagenet="vit_b16_new_classes")
METHODS = (  # those that know new classes
    *(CLIP, COOP, COCOOP, PROGRAD, KGCOOP, CLIP_ADAPTER, GDA),
    *(
        Method(label, trainer, cfg, cfg_on_imagenet=f"{cfg}_imagenet" if trainer in STEPS else "")
        for trainer, (label, cfg) in INSIDE_TOWERS.items()
    ),
)
ACROSS = tuple(  # the same where other data sets are tested, for which some authors have other settings
    replace(method, cfg_on_imagenet=f"{method.cfg}_cross_datasets")
    if method.trainer in ("MaPLe", "PromptSRC")
    else method
    for method in METHODS
)
TINY = [replace(method, cfg="tiny_ctxv1" if method is COOP else "tiny") for method in METHODS]
SHAPES = {"shapes": "Shapes"}
CONTEXTS = 'CoOp, CoCoOp and KgCoOp learn M = 4 vectors from "a photo of a", ProGrad M = 16 from the data set\'s words.'
INSIDE_NOTE = (
    "VPT and those down to TCP have vectors inside the towers, as many as their authors; the last three tune the "
    "towers' own weights."
)
STEPS_NOTE = "They train the epochs that come nearest to their authors' number of steps."
ON_FEATURES = ("LinearProbe", "CoOp", "ProGrad", *FEATURE_METHODS)  # trainers of the few shots with RN50
WITH_VIT = ("CoOp", "CoCoOp", "MaPLe", "PromptSRC", "TCP", *STEPS)  # and with ViT-B/16
OPEN_WORLD = "All: learned on the base classes, tested on base and new ones together."
SIDE_BY_SIDE = "Runs side by side slow each other down, and features that an earlier run has cached take no time."
SECONDS = f"Seconds are those of training. {SIDE_BY_SIDE}"
COSTS_NOTE = f"Parameters, seconds of training and memory are those of 16 shots. {SIDE_BY_SIDE}"


def methods_tables() -> list[Table]:
    """Builds the tables of the papers' data sets."""
    few_shots = methods_few_shot(), methods_few_shot_vit()
    return [*few_shots, methods_base_to_new(), methods_cross_dataset(), methods_domain_generalisation()]


def shapes_methods_tables() -> list[Table]:
    """Builds the tables of the miniature."""
    inside = [trainer for trainer in WITH_VIT if trainer in INSIDE_TOWERS]
    trainers = ("LinearProbe", "CoOp", "KgCoOp", "ProGrad", *FEATURE_METHODS, *inside)
    few_shots = few_shot_rows(SHAPES, "tiny", trainers, {}, fewer=inside)
    note = (
        "CoOp and ProGrad learn M = 16 context vectors, KgCoOp 4. To save time, MaPLe and those below it have 1, 4 and "
        f"16 shots. {COSTS_NOTE}"
    )
    base_new_note = f"16 shots of each base class. {CONTEXTS} {INSIDE_NOTE} {H_NOTE} {OPEN_WORLD} {SECONDS}"
    return [
        _miniature("few_shot", "few-shot learning", (*FEW_SHOT_COLUMNS, *COSTS), few_shots, note),
        _miniature("base_to_new", "base to new", COLUMNS, base_new_rows(SHAPES, TINY, {}), base_new_note),
    ]


def methods_few_shot() -> Table:
    rows = few_shot_rows(DATASETS, "rn50", ON_FEATURES, PUBLISHED["few_shot"])
    note = (
        "RN50; CoOp and ProGrad learn M = 16 context vectors. Each method has one setting for all data sets, and "
        "ImageNet's own where its authors have one. The published numbers are of one seed, GDA's of three; "
        f"Tip-Adapter's authors search another grid on each data set. {COSTS_NOTE}"
    )
    return _table("few_shot", "few-shot learning", (*FEW_SHOT_COLUMNS, *COSTS), rows, note)


def methods_few_shot_vit() -> Table:
    published = {label: {AVERAGE: numbers} for label, numbers in PUBLISHED["few_shot_vit"].items()}
    labels = {label: {AVERAGE: READ_OFF} for label in published}
    rows = few_shot_rows(DATASETS, "vit_b16", WITH_VIT, published, labels)
    note = (
        "ViT-B/16. CoOp learns M = 16 context vectors, CoCoOp 4, MaPLe, PromptSRC and TCP as many as their authors. "
        "MaPLe is that of base to new with 50 epochs, as others have run it; PromptSRC's average is its authors' for "
        f"each data set. The last three tune the towers' own weights. {STEPS_NOTE} {COSTS_NOTE}"
    )
    return _table("few_shot_vit", "few-shot learning with ViT-B/16", (*FEW_SHOT_COLUMNS, *COSTS), rows, note)


def methods_base_to_new() -> Table:
    averages, per_dataset = PUBLISHED["base_to_new"]["average"], PUBLISHED["base_to_new"]["per_dataset"]
    printed = PAPER["base_to_new"]
    papers = {heading: {**of, **per_dataset[heading]} for heading, of in printed["per_dataset"].items()}
    rows = base_new_rows(DATASETS, METHODS, {"Average": {**printed["average"], **averages}, **papers})
    note = (
        f"ViT-B/16, 16 shots of each base class. {CONTEXTS} {INSIDE_NOTE} {STEPS_NOTE} {BOTH_H_NOTE} {OPEN_WORLD} "
        f"{SECONDS} Published numbers of ProGrad, KgCoOp, MaPLe, PromptSRC, TCP and 2SFS are from later papers, "
        "CLIP-Adapter's are of DePT's authors."
    )
    return _table("base_to_new", "base to new", COLUMNS, rows, note)


def methods_cross_dataset() -> Table:
    source, *targets = DATASETS
    columns = [_transfer(method, source, targets) for method in ACROSS]
    numbers = [_published("cross_dataset", method.label, len(targets)) for method in ACROSS]
    rows = [result_row(*row) for row in zip(DATASETS.values(), zip(*columns), zip(*(of for *of, _ in numbers)))]
    averages = zip(zip(*(row.cells for row in rows[1:])), numbers)
    rows.append(Row("Average of the ten", tuple(Average(results, average) for results, (*_, average) in averages)))
    headings = [method.label for method in ACROSS]
    note = "ViT-B/16, learned on ImageNet with 16 shots; the last epoch is tested. The average leaves ImageNet out."
    return _table("cross_dataset", "transfer to other data sets", headings, rows, note)


def methods_domain_generalisation() -> Table:
    of_features = [
        Method(label, trainer, few_shot_config(trainer, "vit_b16", "imagenet"))
        for trainer, label in FEATURE_METHODS.items()
        if trainer not in {method.trainer for method in ACROSS}
    ]
    shifted = (linear_probe_shifted(dataset, "vit_b16", source="imagenet") for dataset in SHIFTED)
    probe = [linear_probe("imagenet", "vit_b16"), *shifted]
    runs = {CLIP.label: _transfer(CLIP, "imagenet", SHIFTED), LABELS["LinearProbe"]: probe}
    runs |= {method.label: _transfer(method, "imagenet", SHIFTED) for method in (*ACROSS[1:], *of_features)}
    numbers = {label: _published("domain_generalisation", label, len(SHIFTED)) for label in runs}
    rows = (with_average(result_row(label, runs[label], of), average) for label, (*of, average) in numbers.items())
    columns = ("ImageNet", *SHIFTED.values(), "Average of the four")
    note = (
        "ViT-B/16, learned on ImageNet with 16 shots; the last epoch is tested. KgCoOp's authors test epoch 25 of a "
        "longer run."
    )
    return _table("domain_generalisation", "domain generalisation", columns, rows, note)


def few_shot_rows(
    datasets: Mapping[str, str],
    backbone: str,
    trainers: Sequence[str],
    published: Mapping[str, Mapping],
    labels: Mapping[str, Mapping[str, str]] = PUBLISHED["chosen_by"],
    fewer: Collection[str] = (),
) -> tuple[Row, ...]:
    """Builds the rows of FEW_SHOT_COLUMNS and COSTS; see `block_rows`.

    Args:
        datasets: Config's name -> heading.
        backbone: As in the names of configs.
        trainers: One row each, below zero-shot CLIP's.
        published: Label -> heading -> the numbers for FEW_SHOTS, of zero-shot CLIP the one.
        labels: Of these; label of the row -> heading, or `others`, -> `Value.labels`.
        fewer: Trainers that have a result for 1, 4 and 16 shots alone.
    """
    blocks = {}
    for dataset, heading in datasets.items():
        # On ImageNet the published zero-shot CLIP is that of seven prompts, ours of one.
        [zero] = published.get(CLIP.label, {}).get(heading, [None]) if dataset != "imagenet" else [None]
        others = [None] * len((*FEW_SHOTS, *COSTS))
        blocks[heading] = {CLIP.label: (Result(zero_shot(dataset, backbone), zero), *others)}
        for trainer in trainers:
            label = LABELS.get(trainer, trainer)
            runs = [few_shot(dataset, trainer, backbone, shots=shots) for shots in FEW_SHOTS]
            accuracies = result_row(label, runs, published.get(label, {}).get(heading, ())).cells
            if trainer in fewer:
                accuracies = [cell if shots in (1, 4, 16) else None for cell, shots in zip(accuracies, FEW_SHOTS)]
            blocks[heading][label] = (None, *accuracies, *costs(runs[-1]))
    rows = (_with_averages(row, published.get(row.label, {}).get(AVERAGE, ())) for row in block_rows(blocks))
    return tuple(_labelled(row, labels) for row in rows)


def base_new_rows(
    datasets: Mapping[str, str], methods: Sequence[Method], papers: Mapping[str, Mapping[str, Sequence[float]]]
) -> tuple[Row, ...]:
    """Builds the rows of COLUMNS; arguments as of `rows.base_new_rows`, H may be left out of a paper's numbers."""
    blocks = {}
    for name, heading in datasets.items():
        blocks[heading] = {
            m.label: (*m.base_new(name), Result(m.all_classes(name)), *_base_costs(m, name)) for m in methods
        }
    rows = []
    for row in block_rows(blocks):
        base, new, *others = row.cells
        numbers = papers.get(row.group, {}).get(row.label, ())
        if len(numbers) == 2:
            numbers = (*numbers, round(harmonic_mean(numbers), 2))
        rows.append(replace(row, cells=(*with_harmonic_mean(base, new, numbers), *others)))
    return tuple(map(_labelled, with_average_of_h(rows) if len(datasets) > 1 else rows))


def _with_averages(row: Row, papers: Sequence[float]) -> Row:
    """Returns a row of averages for FEW_SHOTS beside the published ones, where these are printed; others unchanged."""
    if row.group != AVERAGE or not papers:
        return row
    zero, *cells = row.cells
    averages = (replace(cell, paper=paper) for cell, paper in zip(cells, papers))
    return replace(row, cells=(zero, *averages, *cells[len(papers) :]))


def with_average(row: Row, paper: float | None = None) -> Row:
    """Returns a row of the source and its targets with the average of the targets, beside the published one."""
    return replace(row, cells=(*row.cells, Average(row.cells[1:], paper)))


def costs(training: Experiment) -> tuple[Cell, ...]:
    """Returns the cells of COSTS."""
    return Parameters(training), Cost(training), PeakMemory(training)


def _base_costs(method: Method, dataset: str) -> tuple[Cell | None, ...]:
    return costs(method.base_new(dataset)[0].experiment) if method.trainer else (None,) * len(COSTS)


def _labelled(row: Row, labels: Mapping[str, Mapping[str, str]] = PUBLISHED["chosen_by"]) -> Row:
    """Returns a row with the averages of its published numbers, where none is printed, and their labels."""
    rules = labels.get(row.label, {})
    of_all = row.group.startswith(AVERAGE)
    labels = {*rules.values()} if of_all else {rules.get(row.group, rules.get("others"))} - {None}
    cells = []
    for cell in row.cells:
        numbers = [each.paper for each in cell.cells] if isinstance(cell, Average) and cell.paper is None else [None]
        cell = cell if None in numbers else replace(cell, paper=round(fmean(numbers), 2))
        has_paper = cell is not None and cell.paper is not None
        cells.append(replace(cell, paper_labels=tuple(sorted(labels))) if has_paper else cell)
    return replace(row, cells=tuple(cells))


def _transfer(method: Method, source: str, targets: Iterable[str]) -> list[Experiment]:
    """Returns the experiments of what a method learned on the source, tested on it and on the targets."""
    if method.trainer:
        return transfer_experiments(method, source, targets)
    return [zero_shot(dataset, method.cfg) for dataset in (source, *targets)]


def _published(table: str, label: str, n_targets: int) -> list[float | None]:
    """Returns what is published of a row: the accuracy on the source and on each target, then the targets' average."""
    source, average = PUBLISHED[table].get(label, (None, None))
    source_and_targets = PAPER[table].get(label, [source, *[None] * n_targets])
    return [*source_and_targets[: 1 + n_targets], average]


def _table(name: str, title: str, columns: Sequence[str], rows: Iterable[Row], note: str) -> Table:
    return Table(f"methods_{name}", "methods", f"Methods: {title}", tuple(columns), tuple(rows), note)


def _miniature(name: str, title: str, columns: Sequence[str], rows: Iterable[Row], note: str) -> Table:
    name, title = f"shapes_methods_{name}", f"Methods in miniature: {title}"
    return Table(name, "shapes_methods", title, tuple(columns), tuple(rows), note)
