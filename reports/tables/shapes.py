"""The tables in miniature: `shapes`, drawn images with a small CLIP of their own, beside no number of a paper."""

from __future__ import annotations

from collections.abc import Iterable

from ..experiments import SHIFTED_SHAPES, coop
from .rows import (
    BASE_NEW,
    FEW_SHOT_COLUMNS,
    H_NOTE,
    Method,
    base_new_rows,
    bigger_coop_rows,
    dataset_rows,
    few_shot_rows,
    initialisation_columns,
    nearest_word_rows,
    prompt_experiments,
    result_row,
    shift_experiments,
    transfer_experiments,
)
from .table import Row, Table

SHAPES = {"shapes": "Shapes"}
CFG = "tiny"
COCOOP = Method("CoCoOp", "CoCoOp", CFG)
METHODS = (Method("zero-shot CLIP", "", CFG), Method("CoOp", "CoOp", f"{CFG}_ctxv1"), COCOOP)


def shapes_tables() -> list[Table]:
    """Builds the tables of the miniature."""
    of_coop = few_shot, variants, shift, prompts, initialisation
    return [table() for table in (*of_coop, base_to_new, all_classes, bigger_coop, nearest_words)]


def few_shot() -> Table:
    rows = few_shot_rows(SHAPES, CFG, {"CoOp": {}}, {})
    return _table("few_shot", "few-shot learning", FEW_SHOT_COLUMNS, rows, "M = 16.")


def variants() -> Table:
    rows = (
        result_row(position, [coop("shapes", CFG, position=position, csc=csc) for csc in (False, True)])
        for position in ("end", "middle", "front")
    )
    columns = ("One context", "Class-specific")
    return _table("variants", "CoOp's class-token position and kind of context", columns, rows, "M = 16, 16 shots.")


def shift() -> Table:
    methods = shift_experiments("shapes", SHIFTED_SHAPES, CFG)
    methods[COCOOP.label] = transfer_experiments(COCOOP, "shapes", SHIFTED_SHAPES)
    rows = (result_row(label, experiments) for label, experiments in methods.items())
    columns = ("Shapes", *SHIFTED_SHAPES.values())
    return _table("shift", "robustness to distribution shift", columns, rows, "Learned on Shapes with 16 shots.")


def prompts() -> Table:
    rows = (result_row(label, [experiment(CFG)]) for label, experiment in prompt_experiments("shapes").items())
    return _table("prompts", "hand-made and learned prompts", ("Shapes",), rows, "16 shots.")


def initialisation() -> Table:
    columns = initialisation_columns(SHAPES, CFG)
    rows = dataset_rows(SHAPES, list(columns.values()))
    return _table("initialisation", "CoOp from a random start or words", tuple(columns), rows, "M = 4, 16 shots.")


def base_to_new() -> Table:
    rows = base_new_rows(SHAPES, METHODS, {})
    note = f'Both learn M = 4 vectors from "a photo of a", with 16 shots of each base class. {H_NOTE}'
    return _table("base_to_new", "base to new", BASE_NEW, rows, note)


def all_classes() -> Table:
    rows = dataset_rows(SHAPES, [[method.all_classes("shapes")] for method in METHODS])
    columns = tuple(method.label for method in METHODS)
    note = "Learned on the base classes with 16 shots, tested on all classes."
    return _table("all_classes", "base and new classes together", columns, rows, note)


def bigger_coop() -> Table:
    methods = (
        Method("CoOp, M=4", "CoOp", f"{CFG}_ctxv1"),
        Method("CoOp, M=60", "CoOp", f"{CFG}_ctx60"),
        Method("CoOp, M=4 + Meta-Net", "CoCoOp", CFG),
    )
    rows = bigger_coop_rows("shapes", methods, {})
    note = (
        "16 shots of each base class; the last row is CoCoOp. In the paper the Meta-Net adds about as many parameters "
        f"as 56 more vectors, here a third of them. {H_NOTE}"
    )
    return _table("bigger_coop", "more context vectors or a Meta-Net", ("Parameters", *BASE_NEW), rows, note)


def nearest_words() -> Table:
    note = "M = 16, 16 shots, the first seed there is; in brackets the Euclidean distance."
    rows = nearest_word_rows(SHAPES, CFG, {})
    return _table("nearest_words", "words nearest to the learned context", ("Shapes",), rows, note)


def _table(name: str, title: str, columns: tuple[str, ...], rows: Iterable[Row], note: str) -> Table:
    return Table(f"shapes_{name}", "shapes", f"Miniature: {title}", columns, tuple(rows), note)
