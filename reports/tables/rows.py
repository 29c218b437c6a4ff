"""Builds the rows of the papers' tables and of the miniature's, which differ only in data sets and configs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..experiments import (
    FEW_SHOTS,
    Experiment,
    base_classes,
    coop,
    coop_config,
    coop_shifted,
    linear_probe,
    linear_probe_shifted,
    nearest_words,
    new_classes,
    transfer,
    transfer_source,
    zero_shot,
)
from .cells import Average, Cell, HarmonicMean, Mean, NearestWord, Parameters, Result, word_text
from .table import Row

FEW_SHOT_COLUMNS = ("0 shots", "1 shot", *(f"{shots} shots" for shots in FEW_SHOTS[1:]))
BASE_NEW = ("Base", "New", "H")
AVERAGE, AVERAGE_OF_H = "Average", "Average of H"  # headings of rows
H_NOTE = "H: harmonic mean of the two accuracies beside it."
BOTH_H_NOTE = f'{H_NOTE} Under "{AVERAGE}" it is that of the averages; "{AVERAGE_OF_H}" is the mean over data sets.'
N_VECTORS = 16  # of the context whose nearest words are shown

Cells = tuple[Cell | None, ...]  # of a row, one for each column


@dataclass(frozen=True)
class Method:
    """What the protocols of scripts/cocoop train: its label in a table, trainer ("": zero-shot CLIP) and config."""

    label: str
    trainer: str
    cfg: str
    cfg_on_imagenet: str = ""  # where it is another

    def config(self, dataset: str) -> str:
        """Returns its config for a data set."""
        return (dataset == "imagenet" and self.cfg_on_imagenet) or self.cfg

    def base_new(self, dataset: str) -> tuple[Result, Result]:
        """Returns the cells of its accuracy on base and on new classes."""
        if not self.trainer:
            base, new = (zero_shot(dataset, self.cfg, classes=classes) for classes in ("base", "new"))
        else:
            base, new = (half(dataset, self.trainer, self.config(dataset)) for half in (base_classes, new_classes))
        return Result(base), Result(new)

    def all_classes(self, dataset: str) -> Experiment:
        """Returns the test on all classes of what was learned on the base classes."""
        if not self.trainer:
            return zero_shot(dataset, self.cfg)
        return new_classes(dataset, self.trainer, self.config(dataset), classes="all")


def result_row(label: str, experiments: Iterable[Experiment], papers: Sequence[float] = (), *, group: str = "") -> Row:
    """Builds a row with the accuracy of each experiment beside the paper's."""
    experiments = list(experiments)
    numbers = papers or [None] * len(experiments)
    return Row(label, tuple(Result(run, number) for run, number in zip(experiments, numbers, strict=True)), group)


def dataset_rows(
    datasets: Mapping[str, str], columns: Sequence[Sequence[Experiment]], papers: Sequence[float] = ()
) -> tuple[Row, ...]:
    """Builds a row for each data set, below one of the averages of several data sets.

    Args:
        datasets: Config's name -> heading.
        columns: For each column its experiments, one for each data set.
        papers: The paper's averages, one for each column.
    """
    rows = [result_row(heading, runs) for heading, runs in zip(datasets.values(), zip(*columns, strict=True))]
    if len(rows) > 1:
        numbers = papers or [None] * len(columns)
        cells = zip(*(row.cells for row in rows))
        rows.insert(0, Row("Average", tuple(Average(results, number) for results, number in zip(cells, numbers))))
    return tuple(rows)


def block_rows(blocks: Mapping[str, Mapping[str, Cells]]) -> tuple[Row, ...]:
    """Builds the rows of each data set, and before several data sets those of their average.

    Args:
        blocks: Heading of the data set -> label of the row -> its cells. The rows of a single block need no heading.
    """
    if len(blocks) == 1:
        [block] = blocks.values()
        return tuple(Row(label, cells) for label, cells in block.items())
    average = {}
    for label in next(iter(blocks.values())):
        columns = zip(*(block[label] for block in blocks.values()))
        average[label] = tuple(Average(cells) if cells[0] else None for cells in columns)
    blocks = {AVERAGE: average, **blocks}
    return tuple(Row(label, cells, heading) for heading, block in blocks.items() for label, cells in block.items())


def few_shot_rows(
    datasets: Mapping[str, str], backbone: str, variants: Mapping[str, dict], papers: Mapping[tuple, float]
) -> tuple[Row, ...]:
    """Builds the rows of FEW_SHOT_COLUMNS; see `block_rows`.

    Args:
        datasets: Config's name -> heading.
        backbone: As in the names of configs.
        variants: Label of a row of CoOp -> options of `coop`.
        papers: (data set, label, shots) -> the paper's number.
    """
    blocks = {}
    for dataset, heading in datasets.items():
        runs = {"linear probe": [linear_probe(dataset, backbone, shots=shots) for shots in FEW_SHOTS]}
        cfgs = [coop_config(backbone, dataset, shots=shots) for shots in FEW_SHOTS]
        for label, options in variants.items():
            runs[label] = [coop(dataset, cfg, shots=shots, **options) for cfg, shots in zip(cfgs, FEW_SHOTS)]
        blocks[heading] = {"zero-shot CLIP": (Result(zero_shot(dataset, backbone)), *[None] * len(FEW_SHOTS))}
        for label, experiments in runs.items():
            numbers = [papers.get((dataset, label, shots)) for shots in FEW_SHOTS]
            blocks[heading][label] = (None, *map(Result, experiments, numbers))
    return block_rows(blocks)


def shift_experiments(source: str, shifted: Iterable[str], backbone: str) -> dict[str, list[Experiment]]:
    """Returns each method's experiments on the source and on the shifted data sets."""
    cfg, shifted = coop_config(backbone, source), list(shifted)
    methods = {
        "zero-shot CLIP": [zero_shot(dataset, backbone) for dataset in (source, *shifted)],
        "linear probe": [
            linear_probe(source, backbone),
            *(linear_probe_shifted(dataset, backbone, source=source) for dataset in shifted),
        ],
    }
    for n_ctx in (16, 4):
        methods[f"CoOp, M={n_ctx}"] = [
            coop(source, cfg, n_ctx=n_ctx),
            *(coop_shifted(dataset, cfg, source=source, n_ctx=n_ctx) for dataset in shifted),
        ]
    return methods


def transfer_experiments(method: Method, source: str, targets: Iterable[str]) -> list[Experiment]:
    """Returns the experiments of what a method learned on the source, tested on it and on the targets."""
    cfg = method.config(source)
    tests = (transfer(target, method.trainer, cfg, source=source) for target in targets)
    return [transfer_source(method.trainer, cfg, source=source), *tests]


def prompt_experiments(dataset: str) -> dict[str, Callable[[str], Experiment]]:
    """Returns for each method a function from the backbone to its experiment."""
    return {
        "hand-made prompt": lambda backbone: zero_shot(dataset, backbone),
        "ensemble": lambda backbone: zero_shot(dataset, backbone, trainer="ZeroshotCLIP2"),
        "CoOp, M=16": lambda backbone: coop(dataset, coop_config(backbone, dataset)),
    }


def initialisation_columns(datasets: Iterable[str], backbone: str) -> dict[str, list[Experiment]]:
    """Returns for each start of CoOp's 4 context vectors the experiments of the data sets."""
    datasets = list(datasets)
    return {
        label: [coop(dataset, coop_config(backbone, dataset, words=words), n_ctx=4) for dataset in datasets]
        for label, words in (("Random", False), ('"a photo of a"', True))
    }


def nearest_word_rows(datasets: Mapping[str, str], backbone: str, papers: Mapping[str, Mapping]) -> tuple[Row, ...]:
    """Builds a row for each context vector; papers: heading -> vector -> word and distance."""
    rows = []
    for vector in range(1, N_VECTORS + 1):
        words = [papers.get(heading, {}).get(vector) for heading in datasets.values()]
        runs = [nearest_words(dataset, coop_config(backbone, dataset)) for dataset in datasets]
        cells = (NearestWord(run, vector, word and word_text(*word)) for run, word in zip(runs, words))
        rows.append(Row(f"vector {vector}", tuple(cells)))
    return tuple(rows)


def base_new_rows(
    datasets: Mapping[str, str], methods: Sequence[Method], papers: Mapping[str, Mapping[str, Sequence[float]]]
) -> tuple[Row, ...]:
    """Builds the rows of BASE_NEW; see `block_rows` and, for several data sets, `with_average_of_h`.

    Args:
        datasets: Config's name -> heading.
        methods: One row each, under every heading.
        papers: Heading -> method's label -> the paper's base, new and H.
    """
    blocks = {heading: {m.label: m.base_new(name) for m in methods} for name, heading in datasets.items()}
    rows = (
        replace(row, cells=with_harmonic_mean(*row.cells, papers.get(row.group, {}).get(row.label, ())))
        for row in block_rows(blocks)
    )
    return with_average_of_h(tuple(rows))


def with_average_of_h(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Returns rows and, behind those of the averages over data sets, for each method the average of its H."""
    averages = [row for row in rows if row.group == AVERAGE]
    of_h = []
    for label in (row.label for row in averages):
        columns = zip(*(row.cells for row in rows if row.label == label and row.group != AVERAGE))
        cells = (Average(column) if isinstance(column[0], HarmonicMean) else None for column in columns)
        of_h.append(Row(label, tuple(cells), AVERAGE_OF_H))
    return (*averages, *of_h, *rows[len(averages) :])


def bigger_coop_rows(dataset: str, methods: Sequence[Method], papers: Mapping[str, Sequence[float]]) -> tuple[Row, ...]:
    """Builds a row for each method: trained parameters, base, new, H."""
    rows = []
    for method in methods:
        count, *accuracies = papers.get(method.label, (None,))
        base, new = method.base_new(dataset)
        cells = Parameters(base.experiment, count), *with_harmonic_mean(base, new, accuracies)
        rows.append(Row(method.label, cells))
    return tuple(rows)


def with_harmonic_mean(base: Mean, new: Mean, papers: Sequence[float]) -> tuple[Mean, Mean, HarmonicMean]:
    """Returns the cells of BASE_NEW beside the paper's numbers, if there are any."""
    paper_base, paper_new, paper_h = papers or (None, None, None)
    base, new = replace(base, paper=paper_base), replace(new, paper=paper_new)
    return base, new, HarmonicMean(base, new, paper_h)
