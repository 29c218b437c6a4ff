"""Writes one run as a short text for the terminal."""

from __future__ import annotations

from engine.text import printable

from .finished import FinishedRun
from .predictions import by_class, confused_pairs
from .wording import facts, measure_texts, no_predictions, not_measured

N_LINES = 10


def to_text(run: FinishedRun) -> str:
    """Returns measures and warnings, the worst classes and the most confused pairs."""
    parts = [[run.title, *_columns(facts(run))], _columns(measure_texts(run)) or [" ".join(not_measured(run))]]
    parts += [[*(f"Warning: {warning}" for warning in run.warnings), *run.notes]]
    if run.predictions is None:
        parts.append([" ".join(no_predictions(run))])
    else:
        worst = by_class(run.predictions)[:N_LINES]
        lines = [(f"{one.accuracy:6.1f}%", f"{one.n_right} of {one.n_images}", printable(one.name)) for one in worst]
        parts.append(["Worst classes:", *_table(lines)])
        pairs = confused_pairs(run.predictions)[:N_LINES]
        said = [(f"{n} of {of}", f"{printable(true)} taken for {printable(other)}") for true, other, n, of in pairs]
        parts.append(["Most confused:", *_table(said)] if said else ["No mistake."])
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _columns(entries: dict[str, str]) -> list[str]:
    width = max(map(len, entries), default=0)
    return [f"  {name:<{width}}  {text}" for name, text in entries.items()]


def _table(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  " + "  ".join(f"{x:<{n}}" for x, n in zip(line, widths)).rstrip() for line in lines]
