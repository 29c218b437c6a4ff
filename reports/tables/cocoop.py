"""Tables and figures of CoCoOp: Conditional Prompt Learning for Vision-Language Models, CVPR 2022."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..experiments import DATASETS, SHIFTED, zero_shot
from .cells import Average
from .paper import PAPER
from .rows import (
    BASE_NEW,
    BOTH_H_NOTE,
    H_NOTE,
    Method,
    base_new_rows,
    bigger_coop_rows,
    dataset_rows,
    result_row,
    transfer_experiments,
)
from .table import Row, Table

CLIP = Method("zero-shot CLIP", "", "vit_b16")
COOP = Method("CoOp", "CoOp", "vit_b16_ctxv1", cfg_on_imagenet="vit_b16_ep50_ctxv1")
COCOOP = Method("CoCoOp", "CoCoOp", "vit_b16_c4_ep10_batch1_ctxv1")


def cocoop_tables() -> list[Table]:
    """Builds the tables of the paper."""
    tables = base_to_new, cross_dataset, domain_generalisation, all_classes, bigger_coop
    return [table() for table in (*tables, cocoop_initialisation, cocoop_context_length)]


def base_to_new() -> Table:
    numbers = PAPER["base_to_new"]
    rows = base_new_rows(DATASETS, (CLIP, COOP, COCOOP), {"Average": numbers["average"], **numbers["per_dataset"]})
    note = f"ViT-B/16, 16 shots of each base class. {BOTH_H_NOTE}"
    return _table("base_to_new", "Table 1: base to new", BASE_NEW, rows, note)


def cross_dataset() -> Table:
    source, *targets = DATASETS
    methods = (COOP, COCOOP)
    columns = [transfer_experiments(method, source, targets) for method in methods]
    papers = [PAPER["cross_dataset"][method.label] for method in methods]
    rows = [result_row(*row) for row in zip(DATASETS.values(), zip(*columns), zip(*papers))]
    cells = zip(*(row.cells for row in rows[1:]))
    average = tuple(Average(results, numbers[-1]) for results, numbers in zip(cells, papers))
    rows.append(Row("Average of the ten", average))
    headings = [method.label for method in methods]
    note = "ViT-B/16, learned on ImageNet with 16 shots. The average leaves ImageNet out."
    return _table("cross_dataset", "Table 2: transfer to other data sets", headings, rows, note)


def domain_generalisation() -> Table:
    experiments = {
        CLIP.label: [zero_shot(name, CLIP.cfg) for name in ("imagenet", *SHIFTED)],
        **{method.label: transfer_experiments(method, "imagenet", SHIFTED) for method in (COOP, COCOOP)},
    }
    numbers = PAPER["domain_generalisation"]
    rows = (result_row(label, runs, numbers[label]) for label, runs in experiments.items())
    columns = ("ImageNet", *SHIFTED.values())
    note = "ViT-B/16, learned on ImageNet with 16 shots."
    return _table("domain_generalisation", "Table 3: domain generalisation", columns, rows, note)


def all_classes() -> Table:
    methods = (CLIP, COOP, COCOOP)
    rows = dataset_rows(DATASETS, [[method.all_classes(name) for name in DATASETS] for method in methods])
    columns = [method.label for method in methods]
    note = "ViT-B/16, learned on the base classes with 16 shots, tested on all classes."
    return _table("all_classes", "Table 4: base and new classes together", columns, rows, note)


def bigger_coop() -> Table:
    methods = (
        Method("CoOp, M=4", "CoOp", COOP.cfg_on_imagenet),
        Method("CoOp, M=60", "CoOp", "vit_b16_ep50_ctx60"),
        Method("CoOp, M=4 + Meta-Net", "CoCoOp", COCOOP.cfg),
    )
    rows = bigger_coop_rows("imagenet", methods, PAPER["bigger_coop"])
    note = (
        "ImageNet, ViT-B/16, 16 shots of each base class; the last row is CoCoOp. The paper's 34,816 parameters leave "
        f"out the 544 biases of the Meta-Net. {H_NOTE}"
    )
    columns = ("Parameters", *BASE_NEW)
    return _table("bigger_coop", "Table 5: more context vectors or a Meta-Net", columns, rows, note)


def cocoop_initialisation() -> Table:
    methods = (Method("random", "CoCoOp", "vit_b16_c4_ep10_batch1"), replace(COCOOP, label='"a photo of a"'))
    return _ablation("cocoop_initialisation", "random start or words", methods, "M = 4")


def cocoop_context_length() -> Table:
    methods = [Method(f"M={n_ctx}", "CoCoOp", f"vit_b16_c{n_ctx}_ep10_batch1") for n_ctx in (4, 8, 16)]
    return _ablation("cocoop_context_length", "context length", methods, "random start")


def _ablation(name: str, title: str, methods: Sequence[Method], fixed: str) -> Table:
    note = f"CoCoOp, ViT-B/16, {fixed}, 16 shots of each base class. {BOTH_H_NOTE}"
    return _table(name, f"Figure 4: {title}", BASE_NEW, base_new_rows(DATASETS, methods, {}), note)


def _table(name: str, title: str, columns: Iterable[str], rows: Iterable[Row], note: str) -> Table:
    return Table(name, "cocoop", f"CoCoOp, {title}", tuple(columns), tuple(rows), note)
