"""How values, and what a reader has to know of them, are put into words."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ..tables.notes import marks_of
from ..tables.table import Comparison, Filled, FilledTable, Table

MISSING = "missing"
MINIATURE = "A miniature: drawn images and a small CLIP of their own, to be compared with no number of the papers."


def three_texts(filled: FilledTable, cell: Filled | None) -> tuple[str, str, str]:
    """Returns a cell's measured value, the paper's, and the difference."""
    if cell is None:
        return "", "", ""
    difference = "" if cell.difference is None else signed(cell)
    return measured_text(filled, cell), number_text(cell.cell.paper) + marks_of(cell.cell.paper_labels), difference


def measured_text(filled: FilledTable, cell: Filled) -> str:
    """Returns what was measured, its spread, and what sets it apart from the rest of the table."""
    value = cell.value
    if value.value is None:
        return MISSING
    spread = "" if value.std is None else f" +- {value.std:.2f}"
    interval = f" {text}" if (text := interval_text(filled, cell)) else ""
    found = ", ".join(asides(filled, cell))
    return f"{number_text(value.value)}{spread}{interval}{marks_of(cell.labels)}{f' ({found})' if found else ''}"


def interval_text(filled: FilledTable, cell: Filled) -> str:
    """Returns the 95 % interval of a cell; "" where it has none, or none is asked for."""
    return "[{:.2f}, {:.2f}]".format(*interval) if (interval := filled.interval(cell)) else ""


def comparison_grid(filled: FilledTable) -> list[list[str]]:
    """Returns the header and a line for each method compared with the baseline; nothing where there are none.

    Below each heading of the table stands the difference, and if there is a p, that and the corrected one beside it.
    """
    found = {(comparison.method, comparison.measure): comparison for comparison in filled.comparisons}
    methods, measures = (dict.fromkeys(names) for names in zip(*found)) if found else ((), ())
    p_columns = ["p", "p (Holm)"] * any(comparison.p is not None for comparison in filled.comparisons)
    grid = [[f"against {filled.baseline}"]]
    for measure in measures:
        grid[0] += [measure or "difference", *p_columns]
    for method in sorted(methods, key=[subject.method for subject, _ in filled.subjects].index):
        texts = (comparison_texts(found.get((method, measure)))[: 1 + len(p_columns)] for measure in measures)
        grid.append([method, *chain.from_iterable(texts)])
    return grid if found else []


def comparison_texts(comparison: Comparison | None) -> tuple[str, str, str]:
    """Returns a difference with its marks, its p and the corrected one; "7 of 11" where data sets are missing."""
    if comparison is None:
        return "", "", ""
    n, n_planned = comparison.n_datasets, comparison.n_planned
    some = f" ({n} of {n_planned})" if n < n_planned else ""
    difference = f"{comparison.difference:+.2f}{marks_of(comparison.labels)}{some}"
    return difference, p_text(comparison.p), p_text(comparison.corrected)


def p_text(p: float | None) -> str:
    """Returns a p value with four decimals; "none" where the data sets are too few for one."""
    return "none" if p is None else f"{p:.4f}" if p >= 1e-4 else "<0.0001"


def asides(filled: FilledTable, cell: Filled) -> list[str]:
    """Returns "2 seeds" where others have more, "over 3 of 11" for an average that is not whole, "warning"."""
    found = []
    if cell.value.value is not None and filled.is_short_of_seeds(cell):
        found.append(seeds_text(cell.value.n_seeds))
    if cell.value.is_partial:
        found.append(f"over {sum(cell.value.parts)} of {len(cell.value.parts)}")
    if cell.value.warnings:
        found.append("warning")
    return found


def number_text(number: float | int | str | None) -> str:
    """Returns a percentage with two decimals, a count or 1,000 seconds with commas, words as they are."""
    if number is None or isinstance(number, str):
        return number or ""
    return f"{number:.2f}" if isinstance(number, float) and number < 1000 else f"{number:,.0f}"


def signed(cell: Filled) -> str:
    """Returns a difference with its sign; a count's has no decimals."""
    return f"{cell.difference:+,.0f}" if isinstance(cell.value.value, int) else f"{cell.difference:+.2f}"


def seeds_text(n_seeds: tuple[int, int]) -> str:
    """Returns "1 seed", "3 seeds" or "1-3 seeds"."""
    few, many = n_seeds
    return f"{few}-{many} seeds" if few < many else f"{many} seed{'' if many == 1 else 's'}"


def remarks(filled: FilledTable) -> list[str]:
    """Says what a reader has to know of a table: what it is, and the number of seeds."""
    sentences = [filled.table.note]
    if filled.n_seeds:
        few, many = filled.n_seeds
        unequal = f"Unequal numbers of seeds: {many}, fewer where a cell says so."
        sentences.append(unequal if few < many else f"{seeds_text(filled.n_seeds).capitalize()}.")
    if filled.other_seeds:
        one, other = (" ".join(seeds) for seeds in filled.other_seeds)
        sentences.append(f"Not the same seeds everywhere: {one} in some cells, {other} in others.")
    return ([MINIATURE] if filled.table.is_miniature else []) + [" ".join(sentences)]


def warnings(filled: FilledTable) -> Iterator[str]:
    """Says what is doubtful of the runs that were counted, which were not, and what is missing."""
    for warning in filled.warnings:
        yield f"Warning: {warning}"
    for problem in filled.problems:
        yield f"Not counted: {problem}."
    n_found, n_planned = filled.n_planned
    if n_found < n_planned:
        said = f"{n_planned - n_found} of {n_planned} values are missing"
        yield f"{said}." if filled.table.is_own else f"{said}; {how_to_get(filled.table)} makes them."
    if filled.left_out:
        yield f"Left out, as there is no result: {'; '.join(filled.left_out)}."


def how_to_get(table: Table) -> str:
    """Returns the command that makes a table's numbers, or some of them in a table of one's own."""
    if not table.is_own:
        return f"bash scripts/reproduce.sh {table.name}"
    lines = [line for experiment in table.experiments for line in experiment.command_lines(["1"])]
    return lines[-1] if lines else "finish its runs"
