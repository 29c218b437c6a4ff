"""The confusion matrix as a picture: readable with 10, 100 and 1,000 classes, for it also lists what is confused most.

Cells are coloured by their share of the row's images. Up to 30 classes they hold their counts, up to 120 the axes have
names; of more classes, each cell that is not 0 is a dot, so that none is lost between two pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import write_atomically
from ..text import printable
from .confusion import most_confused, shares_of

MOST_COUNTED, MOST_NAMED = 30, 120  # classes
CELL_IN, LEAST_IN, DOTS_IN, PAIRS_IN = 0.19, 5.0, 9.0, 4.0  # inches: a cell, the smallest matrix, one of dots, the bars
DOT = 40.0  # points^2 of a dot for all images of a class
N_LETTERS = 24  # of a name
COLOURS = "Blues"


def draw_confusion(path: Path, counts: np.ndarray, classnames: Sequence[str]) -> None:
    """Draws counts (C, C) of images by true and predicted class as a PNG.

    Args:
        path: The file.
        counts: As `confusion_counts` gives them.
        classnames: The C names.
    """
    from matplotlib.figure import Figure  # here: importing it takes a second; without pyplot, which keeps figures

    n, names = len(counts), [_short(name) for name in classnames]
    side = max(LEAST_IN, CELL_IN * n) if n <= MOST_NAMED else DOTS_IN
    figure = Figure(figsize=(side + PAIRS_IN + 5, side + 2), dpi=120, layout="constrained")
    matrix, pairs = figure.subplots(1, 2, width_ratios=[side, PAIRS_IN])
    _draw_matrix(matrix, counts, names)
    _draw_pairs(pairs, counts, names)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))


def _draw_matrix(axes, counts: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib.colors import PowerNorm

    shares, n = shares_of(counts), len(counts)
    style = {"cmap": COLOURS, "norm": PowerNorm(0.5, 0, 1)}  # the root: errors are few beside what is right
    rows, columns = np.nonzero(counts)
    if n <= MOST_NAMED:
        axes.imshow(shares, **style)
        ticks = {"ticks": range(n), "labels": names, "fontsize": 8, "parse_math": False}
        axes.set_xticks(rotation=90, **ticks)
        axes.set_yticks(**ticks)
    else:
        cells = shares[rows, columns]
        axes.scatter(columns, rows, s=np.maximum(DOT * cells, 3), c=np.maximum(cells, 0.2), linewidths=0, **style)
        axes.set(xlim=(-1, n), ylim=(n, -1), aspect="equal")
    for row, column in zip(rows, columns) if n <= MOST_COUNTED else ():
        colour = "white" if shares[row, column] > 0.4 else "black"
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_title(f"{np.trace(counts):,} of {counts.sum():,} images are right")
    numbered = "" if n <= MOST_NAMED else ", numbered from 0"
    axes.set(xlabel=f"predicted class{numbered}", ylabel=f"true class{numbered}")


def _draw_pairs(axes, counts: np.ndarray, names: Sequence[str]) -> None:
    fontsize = 12 if MOST_COUNTED < len(counts) <= MOST_NAMED else 8  # beside a large matrix
    pairs, totals = most_confused(counts), counts.sum(axis=1)
    shares = [100 * counts[pair] / totals[pair[0]] for pair in pairs]
    axes.barh(range(len(pairs)), shares, color="#6baed6")
    labels = [f"{names[true]} \u2192 {names[predicted]}" for true, predicted in pairs]
    axes.set_yticks(range(len(pairs)), labels=labels, fontsize=fontsize, parse_math=False)
    for i, (pair, share) in enumerate(zip(pairs, shares)):
        axes.text(share, i, f" {counts[pair]:,} of {totals[pair[0]]:,}", va="center", fontsize=fontsize)
    axes.set(xlim=(0, max([*shares, 1]) * 1.35), ylim=(max(len(pairs), 1) - 0.4, -0.6))
    axes.set_xlabel("% of the true class")
    axes.set_title("Confused most: true \u2192 predicted" if pairs else "Nothing is confused")
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    text = printable(name)
    return text if len(text) <= N_LETTERS else f"{text[: N_LETTERS - 1]}\u2026"
