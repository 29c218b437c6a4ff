"""Writes filled-in tables and the few-shot curves as one HTML page that needs no other file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from ..experiments import DATASETS
from ..tables.notes import MARKS, marks_of, notes
from ..tables.table import Filled, FilledTable, Row, Table
from .document import document
from .wording import (
    MINIATURE,
    MISSING,
    asides,
    comparison_grid,
    how_to_get,
    interval_text,
    number_text,
    remarks,
    signed,
    warnings,
)

SECTIONS = {  # group -> heading, what it is, where it is from
    "coop": ("CoOp", "Learning to Prompt for Vision-Language Models, IJCV 2022", "https://arxiv.org/abs/2109.01134"),
    "cocoop": (
        "CoCoOp",
        "Conditional Prompt Learning for Vision-Language Models, CVPR 2022",
        "https://arxiv.org/abs/2203.05557",
    ),
    "methods": ("Methods", "Methods of several papers under one protocol, beside what was published of them.", ""),
    "shapes": ("Miniature", MINIATURE, ""),
    "shapes_methods": ("Methods in miniature", MINIATURE, ""),
    "own": ("Your own", "Methods and data sets that the papers do not have.", ""),
}
CURVES = {  # table -> what is drawn of it: backbone, data sets
    **dict.fromkeys(("few_shot", "methods_few_shot"), ("rn50", tuple(DATASETS))),
    "methods_few_shot_vit": ("vit_b16", tuple(DATASETS)),
    **dict.fromkeys(("shapes_few_shot", "shapes_methods_few_shot"), ("tiny", ("shapes",))),
}
LEGEND = '<b>measured</b> <span class="std">&plusmn; population standard deviation over seeds</span>'
INTERVAL_LEGEND = ' <span class="std">[95 % interval of the mean by Student&rsquo;s t]</span>'
PAPER_LEGEND = """ &ensp;<span class="paper">paper</span> &ensp;<span class="up">+ above it</span>
<span class="down">&minus; below it</span>"""


def to_html(tables: Sequence[FilledTable], empty: Sequence[Table], output: Path) -> str:
    """Returns the page: contents, then each table beside the paper's numbers, then what has no result yet."""
    groups = [group for group in SECTIONS if any(filled.table.group == group for filled in tables)]
    sections = [_section(group, [f for f in tables if f.table.group == group], output) for group in groups]
    return document(
        "Prompt learning on CLIP: results",
        f"""{_header(tables, output)}
{_contents(tables, groups)}
<main>
{"".join(sections)}{_no_result(empty)}</main>""",
    )


def _header(tables: Sequence[FilledTable], output: Path) -> str:
    seeds = [count for filled in tables for count in filled.n_seeds or ()]
    few, many = (min(seeds), max(seeds)) if seeds else (0, 0)
    n_cells = sum(1 for filled in tables for _ in filled.cells())
    facts = {
        "Runs read from": str(output.absolute()),
        "Written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "Seeds": "none" if not seeds else f"{many}" if few == many else f"{few} to {many}, unequal",
        "Values": f"{sum(filled.n_found for filled in tables):,} of {n_cells:,} in the tables below",
    }
    is_miniature = all(filled.table.is_miniature for filled in tables)
    beside = " in miniature" if is_miniature else ", beside the papers&rsquo; numbers"
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items())
    return f"""<header>
<h1>Prompt learning on CLIP</h1>
<p class="lead">What was measured{beside}: accuracy in percent.</p>
<dl>{items}</dl>
</header>"""


def _contents(tables: Sequence[FilledTable], groups: Sequence[str]) -> str:
    columns = []
    for group in groups:
        found = (filled.table for filled in tables if filled.table.group == group)
        links = "".join(f'<li><a href="#{table.name}">{escape(_short(table))}</a></li>' for table in found)
        columns.append(f"<div><h2>{SECTIONS[group][0]}</h2><ul>{links}</ul></div>")
    return f'<nav aria-label="Contents">{"".join(columns)}</nav>'


def _section(group: str, tables: Sequence[FilledTable], output: Path) -> str:
    heading, text, url = SECTIONS[group]
    banner = ' class="banner"' if text == MINIATURE else ""
    about = f'<a href="{url}">{escape(text)}</a>' if url else f"<strong{banner}>{escape(text)}</strong>"
    interval = INTERVAL_LEGEND if any(filled.with_interval for filled in tables) else ""
    has_papers = any(cell.cell.paper is not None for filled in tables for cell in filled.cells())
    legend = LEGEND + interval + (PAPER_LEGEND if has_papers else "")
    cards = "".join(_card(filled, output) for filled in tables)
    return f"""<section id="{group}">
<h2>{heading}</h2>
<p class="about">{about}</p>
<p class="legend">{legend}</p>
<div class="cards">
{cards}</div>
</section>
"""


def _card(filled: FilledTable, output: Path) -> str:
    table = filled.table
    above = "".join(f"<p>{escape(remark)}</p>" for remark in remarks(filled) if remark != MINIATURE)
    below = "".join(f"<p>{escape(note)}</p>" for note in notes(filled))
    has_marks = any(cell.labels for cell in filled.cells())
    tag = '<span class="tag">miniature</span>' if table.is_miniature else ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in warnings(filled))
    opened = " open" if filled.warnings else ""
    details = f"<details{opened}><summary>{_summary(filled)}</summary><ul>{lines}</ul></details>" if lines else ""
    return f"""<article id="{table.name}">
<h3>{escape(_short(table))}{tag}</h3>
<div class="note">{above}</div>
{_figure(table, output)}<div class="scroll"><table{' class="marked"' if has_marks else ""}>
{_head(filled)}
{"".join(_block(filled, group, rows) for group, rows in filled.blocks)}
</table></div>
{_comparisons(filled)}{f'<div class="note under">{below}</div>' if below else ""}
{details}
</article>
"""


def _comparisons(filled: FilledTable) -> str:
    grid = comparison_grid(filled)
    if not grid:
        return ""
    header, *lines = ([escape(text) for text in line] for line in grid)
    head = "".join(f"<th scope=col>{text}</th>" for text in header)
    body = "".join(f"<tr><th scope=row>{method}</th>{''.join(map(_compared, texts))}</tr>" for method, *texts in lines)
    return (
        f'<div class="scroll"><table class="compared"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _compared(text: str) -> str:
    marked = re.sub(f"[{''.join(MARKS)}]+", r"<sup>\g<0></sup>", text.replace("-", "&minus;"))
    return f"<td>{marked}</td>"


def _summary(filled: FilledTable) -> str:
    n_found, n_planned = filled.n_planned
    counted = [f"{n_planned - n_found} of {n_planned} values missing"] if n_found < n_planned else []
    counts = {"problem": len(filled.problems), "warning": len(filled.warnings)}
    counted += [f"{n} {word}{'s' if n > 1 else ''}" for word, n in counts.items() if n]
    return ", ".join(counted)


def _head(filled: FilledTable) -> str:
    columns, sub, beside = [], [], filled.papers_beside
    for column, has_paper in zip(filled.table.columns, beside):
        columns.append(f"<th{' colspan=3' if has_paper else ''} scope=col>{escape(column)}</th>")
        sub.append("<th>measured</th><th class=paper>paper</th><th class=diff>diff.</th>" if has_paper else "<th></th>")
    corner = f"<td colspan={filled.table.n_labels}></td>"
    second = f"<tr class=sub>{corner}{''.join(sub)}</tr>" if any(beside) else ""
    return f"<thead><tr>{corner}{''.join(columns)}</tr>{second}</thead>"


def _block(filled: FilledTable, group: str, rows: Sequence[tuple[Row, Iterable[Filled | None]]]) -> str:
    lines = []
    for i, (row, cells) in enumerate(rows):
        heading = f"<th class=group rowspan={len(rows)} scope=rowgroup>{escape(group)}</th>" if group and not i else ""
        texts = (_cell(filled, cell, has_paper) for cell, has_paper in zip(cells, filled.papers_beside))
        average = ' class="average"' if "Average" in (group or row.label) else ""
        lines.append(f"<tr{average}>{heading}<th scope=row>{escape(row.label)}</th>{''.join(texts)}</tr>")
    return f"<tbody>{''.join(lines)}</tbody>"


def _cell(filled: FilledTable, cell: Filled | None, has_paper: bool) -> str:
    if cell is None:
        return "<td colspan=3></td>" if has_paper else "<td></td>"
    measured, paper = _measured(filled, cell), escape(number_text(cell.cell.paper)) + _marks(cell.cell.paper_labels)
    difference = ""
    if cell.difference is not None:
        is_count = isinstance(cell.value.value, int)
        sign = "same" if is_count or not cell.difference else "up" if cell.difference > 0 else "down"
        difference = f'<span class="{sign}">{signed(cell).replace("-", "&minus;")}</span>'
    if has_paper:
        return f"<td>{measured}</td><td class=paper>{paper}</td><td class=diff>{difference}</td>"
    beside = _beside(filled, cell, difference)
    below = f'<div class="below"><span class="paper">{paper}</span>{beside}</div>' if paper else ""
    return f"<td>{measured}{below}</td>"


def _measured(filled: FilledTable, cell: Filled) -> str:
    value = cell.value
    if value.value is None:
        return f'<span class="missing">{MISSING}</span>{_beside(filled, cell)}'
    if isinstance(value.value, str):
        return escape(value.value)
    std = "" if value.std is None else f'<span class="std">&plusmn; {value.std:.2f}</span>'
    std += _marks(cell.labels)
    interval = f'<div class="std">{text}</div>' if (text := interval_text(filled, cell)) else ""
    below = interval + "".join(f'<div><span class="mark">{escape(text)}</span></div>' for text in asides(filled, cell))
    return f"<b>{escape(number_text(value.value))}</b>{_beside(filled, cell, std)}{below}"


def _marks(labels: Iterable[str]) -> str:
    return f'<sup title="{escape("; ".join(labels))}">{signs}</sup>' if (signs := marks_of(labels)) else ""


def _beside(filled: FilledTable, cell: Filled, text: str = "") -> str:
    """Text beside a number: as wide in every cell of a column with spreads, so that the numbers are aligned."""
    return f' <span class="beside">{text}</span>' if text or filled.has_spread(cell.column) else ""


def _figure(table: Table, output: Path) -> str:
    """Draws the curves of a table that has some."""
    if table.name not in CURVES:
        return ""
    from ..figures.curves import draw_figure, svg  # imports matplotlib, which a report in text does not need
    from ..figures.few_shot import find_curves

    backbone, datasets = CURVES[table.name]
    folders = {experiment.folder for experiment in table.experiments}
    curves = find_curves(output, backbone=backbone, datasets=datasets, folders=folders)
    # A point alone is no curve.
    points = {name: {m: line for m, line in lines.items() if len(line) > 1} for name, lines in curves.points.items()}
    curves.points = {name: lines for name, lines in points.items() if lines}
    return f"<figure>{svg(draw_figure(curves))}</figure>\n" if curves.points else ""


def _no_result(tables: Sequence[Table]) -> str:
    if not tables:
        return ""
    lines = (f"<li>{escape(table.title)} <code>{how_to_get(table)}</code></li>" for table in tables)
    return f'<section id="none"><h2>No result yet</h2><ul class="none">{"".join(lines)}</ul></section>\n'


def _short(table: Table) -> str:
    """The title without the paper's or the miniature's name, which stands above."""
    heading = SECTIONS[table.group][0]
    text = table.title.removeprefix(heading).lstrip(",: ")
    return text[:1].upper() + text[1:]
