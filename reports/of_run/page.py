"""Writes one run as an HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.evaluation.measures import N_BINS, calibration_error
from engine.text import printable

from ..render.document import document
from .finished import FinishedRun
from .matrix import MOST_CLASSES, confusion_matrix
from .predictions import (
    ClassResult,
    Prediction,
    by_class,
    calibration,
    confused_pairs,
    confusion_counts,
    least_certain,
    surest_mistakes,
)
from .thumbnails import thumbnail
from .wording import facts, measure_texts, no_loss, no_predictions, not_measured

STYLE = Path(__file__).with_name("run.css")
N_WORST, N_PAIRS, N_IMAGES = 30, 20, 24


class Section(NamedTuple):
    """A part of the page: its anchor and heading, what is said first as text, the command that this ends with, HTML."""

    name: str
    heading: str
    about: str = ""
    command: str = ""
    content: str = ""


def to_html(run: FinishedRun) -> str:
    """Returns the page: measures, classes, confusions, calibration, images, loss."""
    if run.predictions is None:
        looks = [Section("images", "Images", *no_predictions(run))]
    else:
        looks = [_classes(run.predictions), _confusions(run), _calibration(run), *_galleries(run)]
    sections = [_measures(run), *looks, _loss(run)]
    links = "".join(f'<a href="#{section.name}">{section.heading}</a>' for section in sections)
    body = f"""{_header(run)}
<nav class="jump" aria-label="Contents">{links}</nav>
<main>
{"".join(map(_html, sections))}</main>"""
    return document(f"{run.title}: results", body, STYLE)


def _html(section: Section) -> str:
    command = f" <code>{escape(section.command)}</code>" if section.command else ""
    about = f'<p class="about">{escape(section.about)}{command}</p>' if section.about else ""
    return f"""<section id="{section.name}">
<h2>{section.heading}</h2>
{about}
{section.content}
</section>
"""


def _header(run: FinishedRun) -> str:
    shown = {**facts(run), "Written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")}
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(fact)}</dd></div>" for name, fact in shown.items())
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in run.warnings)
    warnings = f'<ul class="warnings" aria-label="Warnings">{said}</ul>' if said else ""
    return f"""<header>
<h1>{escape(run.title)}</h1>
<p class="lead">One run: what it answers rightly, what it confuses, how sure it is.</p>
<dl>{items}</dl>
{warnings}
</header>"""


def _measures(run: FinishedRun) -> Section:
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{text}</dd></div>" for name, text in measure_texts(run).items())
    said = ("", "") if tiles else not_measured(run)
    notes = "".join(f'<p class="legend">{escape(note)}</p>' for note in run.notes)
    return Section("measures", "Measures", *said, f'<dl class="measures">{tiles}</dl>{notes}')


def _classes(predictions: Sequence[Prediction]) -> Section:
    results = by_class(predictions)
    worst, others = (f'<ol class="bars">{"".join(map(_bar, r))}</ol>' for r in (results[:N_WORST], results[N_WORST:]))
    if n_others := len(results[N_WORST:]):
        worst += f"<details><summary>The other {n_others:,} classes</summary>{others}</details>"
    return Section("classes", "Classes", "Accuracy of each class, the worst first.", content=worst)


def _bar(result: ClassResult) -> str:
    mistaken = f"; {result.n_mistaken:,} taken for {_name(result.mistaken_for)}" if result.mistaken_for else ""
    return (
        f'<li><span class="name">{_name(result.name)}</span>'
        f'<span class="bar"><i style="width:{result.accuracy:.1f}%"></i></span><b>{result.accuracy:.1f}%</b>'
        f"<small>{result.n_right:,} of {result.n_images:,} right{mistaken}</small></li>\n"
    )


def _confusions(run: FinishedRun) -> Section:
    counts = confusion_counts(run.predictions)
    seen = {name for pair in counts for name in pair}
    names = [name for name in dict.fromkeys(run.classnames) if name in seen]
    names += sorted(seen - set(names))
    if len(names) <= MOST_CLASSES:
        about = "A row for each true class, a column for each answer; the fuller the square, the more of the row."
        about += " Point at a square to read it."
        picture = f'<div class="scroll">{confusion_matrix(counts, names)}</div>'
    else:
        about = f"The matrix is drawn for up to {MOST_CLASSES} classes; this run has {len(names):,}."
        picture = ""
    pairs = confused_pairs(run.predictions)
    lines = "".join(
        f'<tr><th scope=row><span class="name">{_name(true)}</span></th>'
        f'<td><span class="name">{_name(predicted)}</span></td>'
        f"<td>{n:,} of {n_true:,}</td></tr>\n"
        for true, predicted, n, n_true in pairs[:N_PAIRS]
    )
    head = "<thead><tr><th>true class</th><th>taken for</th><th>images</th></tr></thead>"
    found = f'<table class="pairs">{head}<tbody>{lines}</tbody></table>' if lines else "<p>No mistake.</p>"
    heading = f"Most confused, {min(len(pairs), N_PAIRS)} of {len(pairs):,} pairs" if pairs else "Most confused"
    listed = f"<div><h3>{heading}</h3>{found}</div>"
    return Section("confusion", "Confusion", about, content=f'<div class="beside-text">{picture}{listed}</div>')


def _calibration(run: FinishedRun) -> Section:
    from .pictures import calibration_curve  # imports matplotlib, which a summary in text does not need

    bins = calibration(run.predictions)
    sure, right = (np.array(values) for values in zip(*((item.probability, item.is_right) for item in run.predictions)))
    error = run.measures["ece"] if "ece" in run.measures else 100 * calibration_error(sure, right)
    about = (
        f"On average {_percent(sure.mean())} sure and {_percent(right.mean())} right; expected calibration error "
        f"{error:.2f}%. Of a calibrated model's answers with 80% probability 80% are right: the dashed line. "
        f"Bars are {N_BINS} bins of equal width, points stand at their mean probability."
    )
    lines = "".join(
        f"<tr><th scope=row>{one.low:.3f} to {one.high:.3f}</th><td>{one.n_images:,}</td>"
        + "".join(f"<td>{_percent(mean) if one.n_images else ''}</td>" for mean in (one.probability, one.accuracy))
        + "</tr>\n"
        for one in bins
    )
    head = "<thead><tr><th>bin</th><th>images</th><th>probability</th><th>accuracy</th></tr></thead>"
    return Section(
        "calibration",
        "Calibration",
        about,
        content=f'<div class="beside-text"><div class="picture">{calibration_curve(bins)}</div>'
        f'<div class="scroll"><table class="bins">{head}<tbody>{lines}</tbody></table></div></div>',
    )


def _galleries(run: FinishedRun) -> list[Section]:
    mistakes, unsure = (choose(run.predictions, N_IMAGES) for choose in (surest_mistakes, least_certain))
    return [
        _gallery(run, "mistakes", "Most confident mistakes", "Wrong answers of the highest probability.", mistakes),
        _gallery(run, "unsure", "Least certain", "The two best classes are closest in probability.", unsure),
    ]


def _gallery(run: FinishedRun, name: str, heading: str, about: str, items: Sequence[Prediction]) -> Section:
    shown = "".join(f"<li>{thumbnail(run.root / item.path)}{_caption(item)}</li>\n" for item in items)
    content = f'<ul class="gallery">{shown}</ul>' if items else "<p>There is none.</p>"
    return Section(name, heading, about, content=content)


def _caption(item: Prediction) -> str:
    if item.is_right:
        beside = f"right; then {_name(item.second)} {_percent(item.second_probability)}" if item.second else "right"
    elif item.second == item.true:
        beside = f"true: {_name(item.true)} {_percent(item.second_probability)}"
    else:
        beside = f"true: {_name(item.true)}, rank {item.rank:,}"
    kind = "up" if item.is_right else "down"
    path = escape(printable(item.path))
    return (
        f'<div class="says"><b class="{kind}">{_name(item.prediction)} {_percent(item.probability)}</b></div>'
        f'<div class="says">{beside}</div><div class="path" title="{path}"><bdi>{path}</bdi></div>'
    )


def _loss(run: FinishedRun) -> Section:
    if not run.losses:
        return Section("loss", "Loss", no_loss(run))
    from .pictures import loss_curve

    about = "Training loss: the mean over each epoch's batches, as far as log.txt has them."
    return Section("loss", "Loss", about, content=f'<div class="picture">{loss_curve(run.losses)}</div>')


def _name(name: str) -> str:
    return escape(printable(name))


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f}%"
