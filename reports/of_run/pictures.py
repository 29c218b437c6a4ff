"""Calibration curve and loss curve as <svg> elements, in the colours of the page that they stand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..figures.curves import STYLE, svg
from .predictions import Bin

INK, SOFT, LINE, ACCENT, DOWN = "#1c2430", "#667085", "#e4e8ee", "#2451a6", "#b3541e"
VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", ACCENT: "--accent", DOWN: "--down"}  # of page.css
LOOKS = {
    **STYLE,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), SOFT),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "axes.labelsize"), 9.5),
    "grid.color": LINE,
}
INCHES = (4.3, 4.5), (4.3, 2.7)  # a phone's width


def calibration_curve(bins: Sequence[Bin]) -> str:
    """Draws the accuracy of each bin against its probability; below, how many images are in it."""
    left, width = [one.low for one in bins], bins[0].high
    filled = [one for one in bins if one.n_images]
    with matplotlib.rc_context(LOOKS):
        figure = Figure(figsize=INCHES[0], layout="constrained")
        curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        bars = {"width": width, "align": "edge", "edgecolor": LINE, "linewidth": 0.5}
        curve.bar([one.low for one in filled], [100 * one.accuracy for one in filled], color=ACCENT, alpha=0.75, **bars)
        curve.plot([0, 1], [0, 100], color=INK, linestyle="--", linewidth=1.2, zorder=3)
        points = zip(*((one.probability, 100 * one.accuracy) for one in filled))
        curve.plot(*points, color=DOWN, marker="o", linestyle="none", markersize=4.5, zorder=4, clip_on=False)
        curve.set(ylabel="Accuracy (%)", xlim=(0, 1), ylim=(0, 100))
        counts.bar(left, [one.n_images for one in bins], color=SOFT, **bars)
        counts.set(xlabel="Probability of the predicted class", ylabel="Images")
        counts.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
        counts.tick_params(axis="x", pad=6)
        for axes in (curve, counts):
            _tidy(axes)
        figure.align_ylabels()
    return _in_page(figure)


def loss_curve(losses: Mapping[int, float]) -> str:
    """Draws the mean loss of each epoch."""
    with matplotlib.rc_context(LOOKS):
        figure = Figure(figsize=INCHES[1], layout="constrained")
        axes = figure.subplots()
        axes.plot(*zip(*losses.items()), color=ACCENT, marker="o" if len(losses) <= 50 else "")
        axes.set(xlabel="Epoch", ylabel="Loss")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        _tidy(axes)
    return _in_page(figure)


def _tidy(axes: Axes) -> None:
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)


def _in_page(figure: Figure) -> str:
    """Returns a figure whose colours are the page's, so that it is dark where the page is."""
    text = svg(figure)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
