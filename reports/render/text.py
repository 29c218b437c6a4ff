"""Writes filled-in tables as text, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

from ..tables.notes import MARKS, notes
from ..tables.table import Comparison, Filled, FilledTable, Row, Table
from .wording import MISSING, asides, comparison_grid, how_to_get, remarks, three_texts, warnings

CSV_COLUMNS = (  # numbers and words apart, so that a column has one type
    *("table", "row", "column", "paper", "measured", "std", "seeds", "difference"),
    *("interval_low", "interval_high", "data_sets", "p", "p_holm"),
    *("paper_words", "measured_words", "paper_labels", "labels", "problem"),
)
LATEX_WORDS = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"}
LATEX = str.maketrans(
    {
        **{character: "\\" + character for character in "&%$#_{}"},
        **{character: rf"\text{word}{{}}" for character, word in LATEX_WORDS.items()},
    }
)

LATEX_MARKS = dict(zip(MARKS, (r"\dagger", r"\ddagger", r"\S", r"\P", r"\|", r"\approx"), strict=True))


def to_text(tables: Sequence[FilledTable], empty: Sequence[Table], output: Path) -> str:
    """Returns the tables as they are read in a terminal."""
    parts = [f"Results in {output}: {_what_is_shown(tables)}"]
    for filled in tables:
        body = aligned(build_grid(filled), filled.table.n_labels)
        rule = "-" * max(map(len, body))
        title = f"{filled.table.title}   [{filled.table.name}]"
        compared = aligned(grid, 1) if (grid := comparison_grid(filled)) else []
        below = [*compared, *[rule] * bool(compared), *notes(filled), *warnings(filled)]
        parts.append("\n".join([title, *remarks(filled), rule, body[0], rule, *body[1:], rule, *below]))
    parts += ["\n".join(["No result yet:", *_how_to_get(empty)])] if empty else []
    return "\n\n".join(parts) + "\n"


def to_markdown(tables: Sequence[FilledTable], empty: Sequence[Table], output: Path) -> str:
    """Returns the tables as Markdown."""
    parts = [f"Results in `{output}`: {_what_is_shown(tables)}."]
    for filled in tables:
        table = _markdown_table(build_grid(filled), filled.table.n_labels)
        compared = [_markdown_table(grid, 1)] if (grid := comparison_grid(filled)) else []
        below = "\n".join(f"- {line}" for line in (*notes(filled), *warnings(filled)))
        parts += [f"## {filled.table.title}", *remarks(filled), table, *compared, *filter(None, [below])]
    parts += ["## No result yet", "\n".join(f"- {line.strip()}" for line in _how_to_get(empty))] if empty else []
    return "\n\n".join(parts) + "\n"


def _markdown_table(grid: Sequence[Sequence[str]], n_labels: int) -> str:
    header, *body = grid
    rule = [":--"] * n_labels + ["--:"] * (len(header) - n_labels)
    lines = [[cell.replace("|", r"\|") for cell in line] for line in (header, rule, *body) if line]
    return "\n".join(f"| {' | '.join(cell.strip() for cell in line)} |" for line in lines)


def _what_is_shown(tables: Sequence[FilledTable]) -> str:
    interval = any(filled.with_interval for filled in tables)
    more = " [95 % interval of the mean by Student's t]" if interval else ""
    return f"mean +- population standard deviation{more} over seeds, in percent"


def to_latex(tables: Sequence[FilledTable], empty: Sequence[Table], output: Path) -> str:
    """Returns the tables as LaTeX, for the package booktabs; tables without a result are comments."""
    header = f"% \\usepackage{{booktabs}}; words in other than Latin letters need LuaLaTeX    results in {output}"
    parts = [header, *map(_latex_table, tables)]
    parts += ["\n".join(f"% no result yet: {line.strip()}" for line in _how_to_get(empty))] if empty else []
    return "\n\n".join(parts) + "\n"


def to_csv(tables: Sequence[FilledTable], empty: Sequence[Table], output: Path) -> str:
    """Returns one line for each cell, each comparison and each note; a number that is missing is an empty field.

    A comparison has its mean difference as `measured`, a note stands in `problem` and has neither row nor column.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for filled in tables:
        lines = [
            *(_csv_cell(filled, cell) for cell in filled.cells()),
            *(_csv_comparison(filled, comparison) for comparison in filled.comparisons),
            *({"problem": note} for note in notes(filled)),
        ]
        writer.writerows({"table": filled.table.name, **line} for line in lines)
    return text.getvalue()


def _csv_cell(filled: FilledTable, cell: Filled) -> dict[str, object]:
    value, paper = cell.value, cell.cell.paper
    missing = MISSING if value.value is None else ""
    problems = filter(None, (missing, *asides(filled, cell), *value.problems, *value.warnings))
    low, high = filled.interval(cell) or (None, None)
    return {
        "row": cell.row.name,
        "column": cell.column,
        "paper": _number(paper),
        "measured": _number(value.value),
        "std": _number(value.std),
        "seeds": min(value.n_seeds) if value.n_seeds else None,
        "difference": cell.difference,
        "interval_low": _number(low),
        "interval_high": _number(high),
        "paper_words": paper if isinstance(paper, str) else None,
        "measured_words": value.value if isinstance(value.value, str) else None,
        "paper_labels": "; ".join(cell.cell.paper_labels),
        "labels": "; ".join(cell.labels),
        "problem": "; ".join(problems),
    }


def _csv_comparison(filled: FilledTable, comparison: Comparison) -> dict[str, object]:
    return {
        "row": f"{comparison.method} minus {filled.baseline}",
        "column": comparison.measure,
        "measured": _number(comparison.difference),
        "data_sets": comparison.n_datasets,
        "seeds": min(comparison.n_seeds) if comparison.n_seeds else None,
        "p": comparison.p,
        "p_holm": comparison.corrected,
        "labels": "; ".join(comparison.labels),
    }


def build_grid(filled: FilledTable) -> list[list[str]]:
    """Lays a table out: paper and difference beside the measured numbers, or in a wide table below them.

    Returns:
        The header and the lines, each with a text for each column; between two blocks an empty line.
    """
    n_labels = filled.table.n_labels
    header = [""] * n_labels
    for column, has_paper in zip(filled.table.columns, filled.papers_beside):
        header += [column, "paper", "diff."] if has_paper else [column]
    lines = []
    for group, rows in filled.blocks:
        block = [line for row, cells in rows for line in _lines_of_row(filled, row, cells)]
        headings = [[group]] + [[""]] * (len(block) - 1) if n_labels > 1 else [[]] * len(block)
        lines += [[]] * bool(lines) + [heading + line for heading, line in zip(headings, block)]
    return [header, *lines]


def _lines_of_row(filled: FilledTable, row: Row, cells: Sequence[Filled | None]) -> list[list[str]]:
    triples = [three_texts(filled, cell) for cell in cells]
    if any(filled.papers_beside):
        texts = (triple[: 3 if has_paper else 1] for triple, has_paper in zip(triples, filled.papers_beside))
        return [[row.label, *chain.from_iterable(texts)]]
    measured, paper, difference = zip(*triples)
    below = (["  paper", *paper], ["  difference", *difference])
    return [[row.label, *measured], *(line for line in below if any(line[1:]))]


def _how_to_get(tables: Sequence[Table]) -> list[str]:
    width = max((len(table.title) for table in tables), default=0)
    return [f"  {table.title:{width}}   {how_to_get(table)}" for table in tables]


def aligned(lines: Sequence[Sequence[str]], n_labels: int) -> list[str]:
    """Pads the cells: in a column all labels begin, and all numbers end, at one place; their spread stands behind."""
    columns = []
    for i, (header, *cells) in enumerate(zip_longest(*lines, fillvalue="")):
        heads, tails = zip((header, ""), *((cell, "") if i < n_labels else _number_and_rest(cell) for cell in cells))
        head_width, tail_width = (max(map(len, texts)) for texts in (heads, tails))
        pad = str.ljust if i < n_labels else str.rjust
        columns.append([pad(head, head_width) + tail.ljust(tail_width) for head, tail in zip(heads, tails)])
    return ["  ".join(line).rstrip() for line in zip(*columns)]


def _number_and_rest(cell: str) -> tuple[str, str]:
    number = re.split(rf" (?=\+- |\()|(?=[{''.join(MARKS)}])", cell, maxsplit=1)[0]
    return number, cell[len(number) :]


def _latex_table(filled: FilledTable) -> str:
    caption = " ".join([f"{filled.table.title}.", *remarks(filled)])
    compared = _tabular(grid, 1) if (grid := comparison_grid(filled)) else []
    return "\n".join(
        [
            *(f"% {line}" for line in warnings(filled)),
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{_latex(caption)}}}",
            f"  \\label{{tab:{filled.table.name}}}",
            *_tabular(build_grid(filled), filled.table.n_labels),
            *[r"  \par\medskip"] * bool(compared),
            *compared,
            *(f"  \\par{{\\footnotesize {_latex(note)}\\par}}" for note in notes(filled)),
            r"\end{table}",
        ]
    )


def _tabular(grid: Sequence[Sequence[str]], n_labels: int) -> list[str]:
    header, *body = grid
    columns = "l" * n_labels + "r" * (len(header) - n_labels)
    lines = [f"    {' & '.join(map(_latex, line))} \\\\" if line else r"    \addlinespace" for line in body]
    return [
        f"  \\begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {' & '.join(map(_latex, header))} \\\\",
        r"    \midrule",
        *lines,
        r"    \bottomrule",
        r"  \end{tabular}",
    ]


def _latex(text: str) -> str:
    indent = r"\quad " if text.startswith(" ") else ""
    escaped = re.sub(r'"([^"]*)"', r"``\1''", text.strip().translate(LATEX))
    signed = re.sub(r"(?<![\w.])([+-][\d.,]+)", r"$\1$", escaped.replace("+-", r"$\pm$"))
    return indent + re.sub(f"[{''.join(MARKS)}]+", _latex_marks, signed)


def _latex_marks(found: re.Match[str]) -> str:
    return f"$^{{{''.join(LATEX_MARKS[mark] for mark in found[0])}}}$"


def _number(value: float | int | str | None) -> float | int | None:
    return round(value, 4) if isinstance(value, float) else value if isinstance(value, int) else None
