"""Captions for drawn images, as careless as those of the web: synonyms, missing words, wrong words, wrong images."""

from collections.abc import Sequence

import numpy as np

from datasets.drawing.shapes_drawing import COLOURS, Spec
from datasets.drawing.shapes_masks import SHAPES, TEXTURES

# The first word of each row is the one that class names use.
SHAPE_WORDS = {
    "circle": ("circle", "disc", "round spot"),
    "star": ("star", "five pointed star"),
    "arrow": ("arrow", "pointer"),
    "hourglass": ("hourglass", "egg timer"),
    "triangle": ("triangle", "wedge"),
    "cross": ("cross", "plus sign"),
    "heart": ("heart", "love heart"),
    "moon": ("moon", "crescent"),
    "square": ("square", "box"),
    "ring": ("ring", "hoop", "donut"),
    "diamond": ("diamond", "rhombus"),
    "bolt": ("bolt", "lightning"),
}
COLOUR_WORDS = {
    "red": ("red", "crimson"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "grass green"),
    "teal": ("teal", "turquoise"),
    "blue": ("blue", "navy"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
    "brown": ("brown", "chocolate"),
    "gray": ("gray", "grey"),
}
TEXTURE_WORDS = {
    "plain": ("plain", "solid", ""),
    "striped": ("striped", "stripy", "banded"),
    "dotted": ("dotted", "spotted", "polka dot"),
    "checkered": ("checkered", "checked"),
    "halved": ("halved", "two tone"),
}
MEDIUM_WORDS = {
    "flat": ("icon", "clip art", "picture"),
    "photo": ("photo", "picture", "snapshot", "photograph"),
    "drawing": ("drawing", "cartoon", "picture"),
    "sketch": ("sketch", "pencil drawing", "picture"),
    "painting": ("painting", "picture", "artwork"),
    "neon": ("neon sign", "picture", "glowing sign"),
    "poster": ("poster", "print", "picture"),
}
BACKGROUND_WORDS = {
    "light": ("on white", "on a light background"),
    "dark": ("on black", "on a dark background"),
    "gradient": ("on a smooth background", "in the sky"),
    "rough": ("on rough ground", "on gravel", "on a stone wall"),
    "tiled": ("on tiles", "on a tiled floor"),
}
LIGHT_WORDS = {
    "day": ("in daylight", "bright"),
    "warm": ("at sunset", "warm", "by candlelight", "in warm light"),
    "cold": ("in the cold", "bluish", "in cold light"),
    "dim": ("at night", "dark", "in the shade"),
}
CLUTTER_WORDS = ("cluttered", "messy", "among other things")
OPENINGS = (
    "free download",
    "new",
    "stock",
    "my best shot so far",
    "best of 2 0 1 9",
    "look what i found today",
    "for sale",
)


def attribute_phrases(rng: np.random.Generator) -> list[str]:
    """One phrase for each shape, colour and texture, in this order, in a form that changes from call to call."""
    form = ("a photo of a {}.", "a {}.", "a picture of a {}.", "a drawing of a {}.")[rng.integers(0, 4)]
    shapes = [form.format(_pick(SHAPE_WORDS[s], rng)) for s in SHAPES]
    colours = [form.format(_pick(COLOUR_WORDS[c], rng) + " thing") for c in COLOURS]
    textures = [form.format((_pick(TEXTURE_WORDS[t], rng) or "plain") + " thing") for t in TEXTURES]
    return shapes + colours + textures


def caption(spec: Spec, rng: np.random.Generator) -> str:
    """Describes an image the way its uploader might.

    Args:
        spec: what the image shows.
        rng: source of the wording and of its faults.

    Returns:
        One line of lower-case words with a full stop.
    """
    before, after = [], []
    surroundings = []
    if rng.random() < 0.35:
        surroundings.append(_pick(BACKGROUND_WORDS[spec.background], rng))
    if rng.random() < (0.15 if spec.light == "day" else 0.5):
        surroundings.append(_pick(LIGHT_WORDS[spec.light], rng))
    if spec.clutter > 2 and rng.random() < 0.3:
        surroundings.append(_pick(CLUTTER_WORDS, rng))
    for words in surroundings:
        (before if rng.random() < 0.6 else after).append(words)
    medium = _pick(MEDIUM_WORDS[spec.rendering], rng) if rng.random() < 0.9 else "picture"
    article = _pick(("a", "the", "one", "this is a"), rng)
    opening = [_pick(OPENINGS, rng) for _ in range(int(rng.integers(1, 3)))] if rng.random() < 0.2 else []
    words = [*opening, *before, article, medium, "of a", _thing(spec, rng), *after]
    return " ".join(" ".join(words).split()) + "."


def _thing(spec: Spec, rng: np.random.Generator) -> str:
    """The shape with its attributes: each 6 % wrong, now and then left out."""
    texture = _word(TEXTURE_WORDS, spec.texture, rng) if rng.random() < 0.75 else ""
    colour = _word(COLOUR_WORDS, spec.colour, rng) if rng.random() < 0.85 else ""
    shape = _word(SHAPE_WORDS, spec.shape, rng) if rng.random() < 0.88 else "thing"
    return f"{texture} {colour} {shape}"


def _word(table: dict[str, Sequence[str]], key: str, rng: np.random.Generator) -> str:
    """The usual word in two cases of three, else a synonym; of another row in 6 % of the cases."""
    if rng.random() < 0.06:
        key = list(table)[rng.integers(0, len(table))]
    return table[key][0] if rng.random() < 0.65 else _pick(table[key], rng)


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(0, len(options)))]
