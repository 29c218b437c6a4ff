"""What a user ran that the papers have not: rows of own methods in the papers' tables, and tables of the rest.

A method of one's own on a data set of a table, with the table's backbone, is a row (or a column) of that table. What no
table shows, such as a data set of one's own, has tables of its own, with every method that ran on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from engine.text import printable

from ..experiments import (
    BACKBONES,
    DATASETS,
    FEW_SHOTS,
    NAMES,
    PAPERS_TRAINERS,
    SHIFTED,
    SHIFTED_SHAPES,
    TRAINERS,
    Experiment,
    coop,
    expected_results,
    transfer_source,
    zero_shot,
)
from ..found import (
    EPOCHS,
    Found,
    Tested,
    base_to_new_runs,
    choose_epochs,
    few_shot_runs,
    transfer_runs,
)
from ..found import Method as FewShotMethod
from .cells import Average, Cell, Result, run_folders
from .methods import base_new_rows as base_new_rows_of_methods
from .methods import costs, with_average
from .rows import (
    BASE_NEW,
    FEW_SHOT_COLUMNS,
    H_NOTE,
    Method,
    base_new_rows,
    block_rows,
    dataset_rows,
    result_row,
    transfer_experiments,
)
from .table import Row, Table

OWN = ("own", "own_few_shot", "own_base_to_new", "own_transfer")  # the group and its tables
SHAPES = {"shapes": "Shapes"}
# Table -> backbone, data sets; the tables of methods that are named after it have the same.
FEW_SHOT = {
    "few_shot": ("rn50", DATASETS),
    "few_shot_vit": ("vit_b16", DATASETS),
    "shapes_few_shot": ("tiny", SHAPES),
}
BASE_TO_NEW = {"base_to_new": ("vit_b16", DATASETS), "shapes_base_to_new": ("tiny", SHAPES)}
ALL_CLASSES = {"all_classes": ("vit_b16", DATASETS), "shapes_all_classes": ("tiny", SHAPES)}
SHIFT = {"domain_generalisation": ("vit_b16", "imagenet", SHIFTED), "shapes_shift": ("tiny", "shapes", SHIFTED_SHAPES)}
TRANSFER = {"cross_dataset": ("vit_b16", DATASETS)}


@dataclass(frozen=True)
class Ran:
    """What is found below an output folder."""

    output: Path
    few_shot: Sequence[Found]
    base_new: Sequence[Tested]
    transfer: Sequence[Tested]


def find_runs(output: Path) -> Ran:
    """Finds the runs of every method and data set."""
    few_shot = choose_epochs(few_shot_runs(output))
    return Ran(output, few_shot, [*base_to_new_runs(output)], [*transfer_runs(output)])


def with_own(tables: Iterable[Table], ran: Ran) -> list[Table]:
    """Returns tables with the rows and columns of one's own methods beside theirs."""
    few_shot = [runs for runs in ran.few_shot if is_own(runs.method.trainer)]
    learned = [runs for runs in (*ran.base_new, *ran.transfer) if is_own(runs.trainer) and not runs.options]
    return [_drop_empty(_extended(table, few_shot, learned), table, ran.output) for table in tables]


def own_tables(shown: Iterable[Table], ran: Ran) -> list[Table]:
    """Returns the tables of what stands in none of the tables shown."""
    folders = {experiment.folder for table in shown for experiment in table.experiments}
    tables = (
        _own_few_shot(ran.few_shot, folders, ran.output),
        _own_base_to_new(ran.base_new, folders),
        _own_transfer(ran.transfer, folders),
    )
    return [table for table in tables if table.rows]


def is_own(trainer: str) -> bool:
    """Says whether no table has this method."""
    return trainer not in TRAINERS


def may_be_left(trainer: str, dataset: str) -> bool:
    """Says whether the tables may have no cell for runs: of a method or a data set that the two papers do not have."""
    return trainer not in PAPERS_TRAINERS or dataset not in NAMES


def _extended(table: Table, few_shot: Sequence[Found], learned: Sequence[Tested]) -> Table:
    """Returns a table with all rows and columns that runs of own methods could fill."""
    name = table.name.replace("methods_", "")
    is_of_methods = name != table.name  # then it has more columns
    if name in FEW_SHOT:
        backbone, datasets = FEW_SHOT[name]
        found = [runs for runs in few_shot if runs.backbone == backbone and runs.dataset in datasets]
        rows = block_rows(_few_shot_blocks(found, datasets, with_costs=is_of_methods)) if found else ()
        return _with_rows(table, rows)
    backbone, *_ = {**BASE_TO_NEW, **ALL_CLASSES, **SHIFT, **TRANSFER}.get(name, ("",))
    methods = own_methods([runs for runs in learned if runs.backbone == backbone])
    if not methods:
        return table
    if name in BASE_TO_NEW:
        build = base_new_rows_of_methods if is_of_methods else base_new_rows
        return _with_rows(table, build(BASE_TO_NEW[name][1], methods, {}))
    if name in SHIFT:
        _, source, shifted = SHIFT[name]
        rows = (result_row(method.label, transfer_experiments(method, source, shifted)) for method in methods)
        return _with_rows(table, map(with_average, rows) if is_of_methods else rows)
    if name in ALL_CLASSES:
        datasets = ALL_CLASSES[name][1]
        rows = dataset_rows(datasets, [[method.all_classes(name) for name in datasets] for method in methods])
        return _with_columns(table, methods, [row.cells for row in rows])
    source, *targets = DATASETS  # cross_dataset, whose last row is the average of the others
    columns = [[Result(run) for run in transfer_experiments(method, source, targets)] for method in methods]
    lines = [*zip(*columns), tuple(Average(tuple(column[1:])) for column in columns)]
    return _with_columns(table, methods, lines)


def own_methods(found: Iterable[Tested]) -> list[Method]:
    """Returns the methods of some runs; runs on ImageNet may have another number of epochs."""
    found = list(found)
    cfgs = {(runs.trainer, runs.cfg): "" for runs in found if runs.dataset != "imagenet"}
    for runs in found:
        same = [key for key in cfgs if key[0] == runs.trainer and EPOCHS.sub("", key[1]) == EPOCHS.sub("", runs.cfg)]
        if runs.dataset == "imagenet" and (runs.trainer, runs.cfg) not in cfgs:
            cfgs[same[0] if same else (runs.trainer, runs.cfg)] = runs.cfg
    trainers = [trainer for trainer, _ in cfgs]
    return [
        Method(trainer if trainers.count(trainer) == 1 else f"{trainer} ({cfg})", trainer, cfg, on_imagenet)
        for (trainer, cfg), on_imagenet in sorted(cfgs.items())
    ]


def _few_shot_blocks(
    found: Sequence[Found], datasets: Mapping[str, str], *, with_costs: bool = False
) -> dict[str, dict[str, tuple]]:
    """Returns heading -> label -> cells of FEW_SHOT_COLUMNS, for every method on every data set; see `block_rows`.

    With costs there are those of the most shots behind them.
    """
    points = {(runs.dataset, runs.method, runs.shots): runs for runs in found}
    methods = sorted({runs.method for runs in found}, key=lambda method: method.rank)
    labels = Counter(method.label for method in methods)
    any_cfg = {runs.method: runs.cfg for runs in found}  # of runs that are not there
    blocks = {}
    for dataset, heading in datasets.items():
        blocks[heading] = {}
        for method in methods:
            of_method = {shots: points.get((dataset, method, shots)) for shots in FEW_SHOTS}
            cells = [
                Result(
                    _few_shot(dataset, method, runs.cfg if runs else any_cfg[method], shots),
                    left_out=runs.left_out if runs else (),
                )
                for shots, runs in of_method.items()
            ]
            cells += costs(cells[-1].experiment) if with_costs else ()
            folder = f" [{printable(method.options or 'no options')}]" if labels[method.label] > 1 else ""
            blocks[heading][f"{method.label}{folder}"] = (None, *cells)
    return blocks


def _few_shot(dataset: str, method: FewShotMethod, cfg: str, shots: int) -> Experiment:
    """Returns the experiment of a method that was found."""
    made = transfer_source(method.trainer, cfg, source=dataset, shots=shots)
    if not method.options:
        return made
    asked = replace(method, absent=(), n_ctx=None).context  # what the folder's name says
    if asked:
        position = asked.pop("class_token_position")
        made = coop(dataset, cfg, trainer=method.trainer, shots=shots, position=position, **asked)
    said = expected_results(dataset, method.trainer, cfg, source=dataset, shots=shots, **method.context)
    return replace(made, folder=f"{dataset}/{method.trainer}/{cfg}_{shots}shots/{method.options}", expected=said)


def _own_few_shot(found: Sequence[Found], shown: set[str], output: Path) -> Table:
    blocks = _blocks_not_shown(
        [
            (runs.dataset, runs.backbone, runs.method.trainer, runs.folder.relative_to(output).as_posix())
            for runs in found
        ],
        shown,
    )
    rows = []
    for (dataset, backbone), heading in blocks.items():
        of_block = [runs for runs in found if (runs.dataset, runs.backbone) == (dataset, backbone)]
        rows.append(Row("zero-shot CLIP", (Result(zero_shot(dataset, backbone)), *[None] * len(FEW_SHOTS)), heading))
        block = _few_shot_blocks(of_block, {dataset: heading})[heading]
        rows += [Row(label, cells, heading) for label, cells in block.items()]
    return _table("own_few_shot", "Few-shot learning", FEW_SHOT_COLUMNS, rows, "Every method that ran on them.")


def _own_base_to_new(found: Sequence[Tested], shown: set[str]) -> Table:
    blocks = _blocks_not_shown([(runs.dataset, runs.backbone, runs.trainer, runs.folder) for runs in found], shown)
    rows = []
    for (dataset, backbone), heading in blocks.items():
        methods = own_methods([runs for runs in found if (runs.dataset, runs.backbone) == (dataset, backbone)])
        methods = [Method("zero-shot CLIP", "", backbone), *methods]
        rows += [replace(row, group=heading) for row in base_new_rows({dataset: heading}, methods, {})]
    return _table("own_base_to_new", "Base to new", BASE_NEW, rows, f"16 shots of each base class. {H_NOTE}")


def _own_transfer(found: Sequence[Tested], shown: set[str]) -> Table:
    left = [runs for runs in found if may_be_left(runs.trainer, runs.dataset) and runs.folder not in shown]
    rows = []
    for runs in sorted(left, key=lambda runs: (runs.dataset, runs.trainer, runs.cfg, runs.options)):
        expected = {**expected_results(runs.dataset, runs.trainer, runs.cfg), "source": None}
        experiment = Experiment(runs.folder, (), tests_only=True, expected=expected)
        details = ", ".join(filter(None, (runs.cfg, runs.options)))
        rows.append(Row(f"{runs.trainer} ({details})", (Result(experiment),), runs.dataset))
    note = "Learned on another data set, with 16 shots."
    return _table("own_transfer", "Transfer to other data sets", ("Accuracy",), rows, note)


def _blocks_not_shown(found: Iterable[tuple[str, str, str, str]], shown: set[str]) -> dict[tuple[str, str], str]:
    """Returns (data set, backbone) -> heading, where a run of (data set, backbone, trainer, folder) is in no table."""
    blocks = {
        (dataset, backbone): f"{NAMES.get(dataset, dataset)}, {BACKBONES.get(backbone, backbone)}"
        for dataset, backbone, trainer, folder in found
        if may_be_left(trainer, dataset) and folder not in shown
    }
    return dict(sorted(blocks.items()))


def _with_rows(table: Table, rows: Iterable[Row]) -> Table:
    """Returns a table with rows added, each behind those of its heading."""
    new = list(rows)
    blocks = [(group, list(of)) for group, of in groupby(table.rows, key=lambda row: row.group)]
    merged = (row for group, of in blocks for row in (*of, *(row for row in new if row.group == group)))
    return replace(table, rows=tuple(merged))


def _with_columns(table: Table, methods: Sequence[Method], lines: Iterable[Sequence[Cell]]) -> Table:
    rows = (replace(row, cells=(*row.cells, *line)) for row, line in zip(table.rows, lines, strict=True))
    return replace(table, columns=(*table.columns, *(method.label for method in methods)), rows=tuple(rows))


def _drop_empty(extended: Table, table: Table, output: Path) -> Table:
    """Returns an extended table without the added rows and columns for which there is no run."""

    def has_run(cells: Iterable[Cell | None]) -> bool:
        return any(run_folders(run, output) for cell in cells if cell for run in cell.experiments())

    if extended is table:
        return table
    planned = set(table.rows)
    n_planned = len(table.columns)
    kept = [row for row in extended.rows if len(row.cells) > n_planned or row in planned or has_run(row.cells)]
    columns = [i for i in range(len(extended.columns)) if i < n_planned or has_run(row.cells[i] for row in kept)]
    rows = tuple(replace(row, cells=tuple(row.cells[i] for i in columns)) for row in kept)
    return replace(extended, columns=tuple(extended.columns[i] for i in columns), rows=rows)


def _table(name: str, title: str, columns: Sequence[str], rows: Sequence[Row], note: str) -> Table:
    return Table(name, OWN[0], f"Your own: {title}", tuple(columns), tuple(rows), note)
