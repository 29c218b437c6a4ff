"""Tables and figures of CoCoOp: Conditional Prompt Learning for Vision-Language Models, CVPR 2022."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..experiments import DATASETS, SHIFTED, zero_shot
from .cells import Average
from .paper import PAPER
from .rows import (
    BASE_NEW,
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
    return [
        base_to_new(),
        cross_dataset(),
        domain_generalisation(),
        all_classes(),
        bigger_coop(),
        cocoop_initialisation(),
        cocoop_context_length(),
    ]


def base_to_new() -> Table:
    numbers = PAPER["base_to_new"]
    return Table(
        name="base_to_new",
        group="cocoop",
        title="CoCoOp, Table 1: base to new",
        columns=BASE_NEW,
        rows=base_new_rows(DATASETS, (CLIP, COOP, COCOOP), {"Average": numbers["average"], **numbers["per_dataset"]}),
        note=f"ViT-B/16, 16 shots of each base class. {H_NOTE}",
    )


def cross_dataset() -> Table:
    source, *targets = DATASETS
    methods = (COOP, COCOOP)
    columns = [transfer_experiments(method, source, targets) for method in methods]
    papers = [PAPER["cross_dataset"][method.label] for method in methods]
    rows = [result_row(*row) for row in zip(DATASETS.values(), zip(*columns), zip(*papers))]
    cells = zip(*(row.cells for row in rows[1:]))
    average = tuple(Average(results, numbers[-1]) for results, numbers in zip(cells, papers))
    return Table(
        name="cross_dataset",
        group="cocoop",
        title="CoCoOp, Table 2: transfer to other data sets",
        columns=tuple(method.label for method in methods),
        rows=(*rows, Row("Average of the ten", average)),
        note="ViT-B/16, learned on ImageNet with 16 shots. The average leaves ImageNet out.",
    )


def domain_generalisation() -> Table:
    experiments = {
        CLIP.label: [zero_shot(name, CLIP.cfg) for name in ("imagenet", *SHIFTED)],
        **{method.label: transfer_experiments(method, "imagenet", SHIFTED) for method in (COOP, COCOOP)},
    }
    numbers = PAPER["domain_generalisation"]
    return Table(
        name="domain_generalisation",
        group="cocoop",
        title="CoCoOp, Table 3: domain generalisation",
        columns=("ImageNet", *SHIFTED.values()),
        rows=tuple(result_row(label, runs, numbers[label]) for label, runs in experiments.items()),
        note="ViT-B/16, learned on ImageNet with 16 shots.",
    )


def all_classes() -> Table:
    methods = (CLIP, COOP, COCOOP)
    return Table(
        name="all_classes",
        group="cocoop",
        title="CoCoOp, Table 4: base and new classes together",
        columns=tuple(method.label for method in methods),
        rows=dataset_rows(DATASETS, [[method.all_classes(name) for name in DATASETS] for method in methods]),
        note="ViT-B/16, learned on the base classes with 16 shots, tested on all classes.",
    )


def bigger_coop() -> Table:
    methods = (
        Method("CoOp, M=4", "CoOp", COOP.cfg_on_imagenet),
        Method("CoOp, M=60", "CoOp", "vit_b16_ep50_ctx60"),
        Method("CoOp, M=4 + Meta-Net", "CoCoOp", COCOOP.cfg),
    )
    return Table(
        name="bigger_coop",
        group="cocoop",
        title="CoCoOp, Table 5: more context vectors or a Meta-Net",
        columns=("Parameters", *BASE_NEW),
        rows=bigger_coop_rows("imagenet", methods, PAPER["bigger_coop"]),
        note="ImageNet, ViT-B/16, 16 shots of each base class; the last row is CoCoOp. The paper's 34,816 parameters "
        f"leave out the 544 biases of the Meta-Net. {H_NOTE}",
    )


def cocoop_initialisation() -> Table:
    methods = (Method("random", "CoCoOp", "vit_b16_c4_ep10_batch1"), replace(COCOOP, label='"a photo of a"'))
    return _ablation("cocoop_initialisation", "random start or words", methods, "M = 4")


def cocoop_context_length() -> Table:
    methods = [Method(f"M={n_ctx}", "CoCoOp", f"vit_b16_c{n_ctx}_ep10_batch1") for n_ctx in (4, 8, 16)]
    return _ablation("cocoop_context_length", "context length", methods, "random start")


def _ablation(name: str, title: str, methods: Sequence[Method], fixed: str) -> Table:
    return Table(
        name=name,
        group="cocoop",
        title=f"CoCoOp, Figure 4: {title}",
        columns=BASE_NEW,
        rows=base_new_rows(DATASETS, methods, {}),
        note=f"CoCoOp, ViT-B/16, {fixed}, 16 shots of each base class. {H_NOTE}",
    )
