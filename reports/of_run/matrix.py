"""The confusion matrix as an <svg> element: a row for each true class, a square for each answer that occurs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from engine.text import printable

MOST_CLASSES = 100  # a square of more would be smaller than a finger or a mouse hits
MOST_NAMED, MOST_NUMBERED = 40, 15  # classes with names beside them, with numbers in the squares
MOST_WHOLE = 10  # classes that a phone shows without scrolling
LETTER_PX, MARGIN_PX, LABEL_LETTERS = 7.4, 12, 20
WIDTH_PX = 640  # of a matrix without names


def confusion_matrix(counts: Mapping[tuple[str, str], int], names: Sequence[str]) -> str:
    """Draws the matrix.

    Args:
        counts: (true class, predicted class) -> number of images.
        names: All classes in `counts`, at most MOST_CLASSES, in the order of rows and columns.
    """
    n, place = len(names), {name: i for i, name in enumerate(names)}
    is_named = n <= MOST_NAMED
    cell = (34 if n <= MOST_NUMBERED else 18) if is_named else max(WIDTH_PX // n, 6)
    longest = max(min(len(printable(name)), LABEL_LETTERS) for name in names)
    offset = MARGIN_PX + int(LETTER_PX * longest) if is_named else 0
    totals = Counter()
    for (true, _), count in counts.items():
        totals[true] += count
    squares = [_square(pair, count, totals[pair[0]], place, offset, cell, n) for pair, count in counts.items()]
    labels = _labels(names, offset, cell) if is_named else ""
    side = offset + n * cell
    frame = f'<rect class="frame" x="{offset}" y="{offset}" width="{n * cell}" height="{n * cell}"/>'
    # A few names or none can be read when the picture shrinks to a phone's width; more are scrolled.
    whole = " whole" if n <= MOST_WHOLE or not is_named else ""
    return (
        f'<svg class="matrix{whole}" viewBox="0 0 {side} {side}" style="width:{side}px" role="img" '
        f'aria-label="Confusion matrix of {n} classes">{frame}{labels}{"".join(squares)}</svg>'
    )


def _square(pair, count: int, total: int, place: Mapping[str, int], offset: int, cell: int, n: int) -> str:
    true, predicted = pair
    x, y = offset + cell * place[predicted], offset + cell * place[true]
    share = count / total
    title = f"{_short(true, 60)}: {count} of {total} images are answered {_short(predicted, 60)}"
    kind = "right" if true == predicted else "wrong"
    square = (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{cell}" height="{cell}" fill-opacity="{0.15 + 0.85 * share:.2f}">'
        f"<title>{title}</title></rect>"
    )
    if n > MOST_NUMBERED:
        return square
    strong = ' class="strong"' if share > 0.45 else ""
    return f'{square}<text{strong} x="{x + cell / 2:g}" y="{y + cell / 2 + 4:g}" text-anchor="middle">{count}</text>'


def _labels(names: Sequence[str], offset: int, cell: int) -> str:
    labels = []
    for i, name in enumerate(names):
        middle, end = offset + cell * i + cell / 2 + 4, offset - 7
        text = f"{_short(name, LABEL_LETTERS)}<title>{_short(name, 200)}</title>"
        labels.append(f'<text x="{end}" y="{middle:g}" text-anchor="end">{text}</text>')
        labels.append(f'<text transform="translate({middle:g} {end}) rotate(-90)">{text}</text>')
    return "".join(labels)


def _short(name: str, n_letters: int) -> str:
    name = printable(name)
    return escape(name if len(name) <= n_letters else name[: n_letters - 1] + "…")
