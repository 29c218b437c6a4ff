"""The few-shot figure: accuracy over shots, a line for each method, a band for its seeds, zero-shot CLIP as a star.

A panel for each data set and one for their average; from tick to tick the shots double. Colours (Okabe and Ito's, which
colour-blind readers can tell apart; for many methods some of Paul Tol's) and markers stand for trainers and class-token
positions, dashes and open markers for class-specific contexts.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from math import ceil, log2
from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from engine.files import write_atomically
from engine.text import printable

from ..experiments import DATASETS
from .few_shot import Curves, Line, Method, average_lines, dataset_lines

LOOKS = {  # trainer, class-token position -> colour, marker
    ("CoOp", "end"): ("#0072B2", "o"),
    ("CoOp", "middle"): ("#009E73", "s"),
    ("CoOp", "front"): ("#CC79A7", "^"),
    ("CoCoOp", ""): ("#D55E00", "D"),
    ("LinearProbe", ""): ("#7F7F7F", "v"),
    ("KgCoOp", "end"): ("#56B4E9", "P"),
    ("ProGrad", "end"): ("#332288", "X"),
    ("TaskRes", ""): ("#E69F00", "s"),
    ("CLIPAdapter", ""): ("#CC79A7", "D"),
    ("TipAdapter", ""): ("#44AA99", "<"),
    ("TipAdapterF", ""): ("#117733", ">"),
    ("ZSLP", ""): ("#999933", "p"),
    ("CLAP", ""): ("#882255", "h"),
    ("CrossModal", ""): ("#D55E00", "^"),
    ("LPPlusPlus", ""): ("#000000", "d"),
    ("GDA", ""): ("#AA4499", "8"),
}
SPARE_LOOKS = (  # of one's own methods; colours that no other line has come first
    ("#E69F00", "P"),
    ("#56B4E9", "X"),
    ("#882255", "<"),
    ("#999933", ">"),
    ("#000000", "d"),
    ("#8B4513", "P"),
)
X_LABEL = "Training images of each class"
TITLES = {**DATASETS, "shapes": "Shapes"}
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture everywhere
    "font.size": 9,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), "#8C8C8C"),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), "#333333"),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 8),
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.hashsalt": "few-shot curves",  # the same figure is the same file
    "pdf.fonttype": 42,  # text stays text
    "text.parse_math": False,  # a dollar sign in a name is one
}
PANEL_INCHES, LARGE_PANEL_INCHES = (2.8, 2.3), (4.2, 3.0)  # one or two panels are large
CROWDED, CROWDED_PANEL_INCHES = 8, (6.3, 4.5)  # so many lines in a single panel, which is larger
LEGEND_INCHES = (0.5, 0.075)  # width of an entry: its line, and about so much for a letter
ZERO_SHOT = {"color": "#222222", "marker": "*", "markersize": 10, "linestyle": "none", "markeredgewidth": 0}


def draw_figure(curves: Curves) -> Figure:
    """Draws a panel for each data set; before several one for their average, which says over how many it is."""
    looks = choose_looks(curves.methods)
    panels = [(TITLES.get(name, printable(name)), dataset_lines(curves, name), [name]) for name in curves.datasets]
    averaged, lines = average_lines(curves)
    if len(averaged) > 1:
        panels.insert(0, (f"Average ({len(averaged)} data sets)", lines, averaged))
    n_columns = _n_columns(len(panels))
    n_rows = ceil(len(panels) / n_columns)
    width, height = LARGE_PANEL_INCHES if n_columns <= 2 else PANEL_INCHES
    if len(panels) == 1 and len(curves.methods) >= CROWDED:
        width, height = CROWDED_PANEL_INCHES
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * n_columns, height * n_rows), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for axes, (title, lines, names) in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, lines, looks, shots=curves.shots, zero_shot=_mean_if_all(curves.zero_shot, names))
            axes.set_title(title, fontweight="bold" if names is averaged else "normal")
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        _label(figure, _legend(curves, looks), n_columns)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure in the format of the path's suffix."""
    with matplotlib.rc_context(STYLE):
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=200, format=path.suffix[1:]))


def svg(figure: Figure) -> str:
    """Returns the figure as an <svg> element to stand in a page; the same figure gives the same text."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def choose_looks(methods: Sequence[Method]) -> dict[Method, dict[str, str]]:
    """Gives each method a look of its own: a class-specific one has its unified counterpart's, dashed and open."""
    taken = {LOOKS[key][0] for method in methods if (key := (method.trainer, method.position)) in LOOKS}
    spare, shared, looks = sorted(SPARE_LOOKS, key=lambda look: look[0] in taken), {}, {}
    for method in methods:
        unified = replace(method, options=method.options.replace("_cscTrue", "_cscFalse"))
        if unified not in shared:
            own = LOOKS.get((method.trainer, method.position))
            shared[unified] = own if own and own not in shared.values() else spare.pop(0) if spare else SPARE_LOOKS[-1]
        colour, marker = shared[unified]
        looks[method] = {"color": colour, "marker": marker, "linestyle": "--" if method.is_class_specific else "-"}
        if method.is_class_specific:
            looks[method]["markerfacecolor"] = "white"
    return looks


def _n_columns(n_panels: int) -> int:
    """As square as possible with few empty panels: 12 panels, those of the papers, are 3 rows of 4."""
    return n_panels if n_panels <= 4 else 3 if n_panels <= 6 or n_panels == 9 else 4


def _mean_if_all(zero_shot: dict[str, float], names: Sequence[str]) -> float | None:
    accuracies = [zero_shot[name] for name in names if name in zero_shot]
    return fmean(accuracies) if len(accuracies) == len(names) else None


def _draw_panel(
    axes: Axes, lines: dict[Method, Line], looks: dict[Method, dict], *, shots: Sequence[int], zero_shot: float | None
) -> None:
    for method, line in lines.items():
        x = [_x(n) for n in line]
        means, stds = zip(*line.values())
        axes.plot(x, means, **looks[method])
        low, high = ([mean + sign * std for mean, std in line.values()] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=looks[method]["color"], alpha=0.2, linewidth=0)
    if zero_shot is not None:
        axes.plot(_x(0), zero_shot, **ZERO_SHOT)
    ticks = [0, *shots]
    axes.set_xticks([_x(n) for n in ticks], ticks)
    axes.set_xlim(_x(0) - 0.35, _x(max(shots)) + 0.35)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.grid()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)


def _x(shots: int) -> float:
    """The x of a number of shots: each doubling is one step, and so is the one from 0 to 1."""
    return log2(shots) + 1 if shots else 0.0


def _legend(curves: Curves, looks: dict[Method, dict]) -> list[Line2D]:
    lines = [Line2D([], [], label=method.label, **look) for method, look in looks.items()]
    return lines + ([Line2D([], [], label="Zero-shot CLIP", **ZERO_SHOT)] if curves.zero_shot else [])


def _label(figure: Figure, legend: list[Line2D], n_columns: int) -> None:
    """Names the axes, and puts the legend beside few panels, above many; the figure makes room."""
    figure.supylabel("Accuracy (%)", fontsize=9)
    width, height = figure.get_size_inches()
    if n_columns <= 2:
        for axes in figure.axes:  # one name for all would stand under the legend too
            axes.set_xlabel(X_LABEL)
        figure.set_size_inches(width + 2.2, height + 0.3)
        figure.legend(handles=legend, loc="outside right center", frameon=False)
    else:
        figure.supxlabel(X_LABEL, fontsize=9)
        n_rows = _n_legend_rows([line.get_label() for line in legend], width)
        figure.set_size_inches(width + 0.3, height + 0.3 + 0.25 * n_rows)
        figure.legend(handles=legend, loc="outside upper center", ncols=ceil(len(legend) / n_rows), frameon=False)


def _n_legend_rows(labels: Sequence[str], width: float) -> int:
    """The fewest rows with which a legend, filled column by column, is not wider than the figure (in inches)."""
    sizes = [LEGEND_INCHES[0] + LEGEND_INCHES[1] * len(label) for label in labels]
    for n_rows in range(1, len(sizes)):
        if sum(max(sizes[i : i + n_rows]) for i in range(0, len(sizes), n_rows)) <= width:
            return n_rows
    return len(sizes)
