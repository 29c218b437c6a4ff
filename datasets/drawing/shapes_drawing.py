"""Draws the images of the `shapes` data sets: one coloured, textured shape in a scene, 48 x 48 pixels, from a seed.

The same bits on every machine: only + - * /, comparisons and integer draws in float64, numpy alone, no fonts. Masks are
evaluated on a 96 x 96 grid and averaged over 2 x 2 cells. The order of the random draws is part of the interface.
"""

from dataclasses import dataclass

import numpy as np

from .shapes_masks import shape_mask, texture_mask

SIDE = 48  # pixels of an image's edge
FINE = 2 * SIDE  # edge of the grid on which masks are evaluated

COLOURS = {
    "red": (214, 39, 40),
    "orange": (245, 140, 30),
    "yellow": (240, 215, 50),
    "green": (50, 160, 60),
    "teal": (40, 175, 175),
    "blue": (45, 90, 210),
    "purple": (130, 60, 180),
    "pink": (245, 130, 185),
    "brown": (130, 80, 45),
    "gray": (135, 135, 140),
}
RENDERINGS = ("flat", "photo", "drawing", "sketch", "painting", "neon", "poster")
BACKGROUNDS = ("light", "dark", "gradient", "rough", "tiled")
LIGHTS = {"day": (1.0, 1.0, 1.0), "warm": (1.15, 0.85, 0.5), "cold": (0.6, 0.85, 1.2), "dim": (0.5, 0.5, 0.5)}


@dataclass(frozen=True)
class Spec:
    """What is to be seen in one image; what a spec leaves open (position, angle, phase ...) is drawn at random."""

    shape: str
    colour: str
    texture: str
    rendering: str = "flat"
    background: str = "light"
    light: str = "day"
    cast: float = 1.0  # strength of the light's colour: 0 none, 1 the light's own
    clutter: int = 0  # small foreign pieces in the scene
    blur: int = 0  # passes of a 1-2-1 filter
    noise: int = 0  # largest change of a pixel value by noise
    size: tuple[float, float] = (0.55, 0.8)  # range of the shape's radius, in half edges of the image
    shift: float = 0.15  # largest displacement of the centre, in half edges
    turn: float = 0.2  # largest tangent of half the angle of rotation


def draw(spec: Spec, rng: np.random.Generator) -> np.ndarray:
    """Draws one image (48, 48, 3), uint8, RGB; all that the spec leaves open comes from rng."""
    u, v = _object_frame(spec, rng)
    if spec.rendering == "painting":  # a brush's wavering edge
        u = u + 0.16 * (_enlarge(_field(rng, 9)) - 0.5)
        v = v + 0.16 * (_enlarge(_field(rng, 9)) - 0.5)
    inside = shape_mask(spec.shape, u, v)
    alpha = _reduce(inside)[..., None]  # (48, 48, 1)
    pattern = _reduce(texture_mask(spec.texture, u, v, rng))[..., None]
    scene = _background(spec.background, rng)
    scene = _scatter(scene, spec.clutter - spec.clutter // 3, rng)
    scene = _render(spec, scene, inside, alpha, pattern, rng)
    scene = _scatter(scene, spec.clutter // 3, rng, radius=(0.06, 0.14))
    return _camera(spec, scene, rng)


def _object_frame(spec: Spec, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (96, 96) each, in which the shape has radius 1, is centred and upright."""
    low, high = spec.size
    radius = low + (high - low) * rng.random()
    cx, cy = (spec.shift * (2.0 * rng.random() - 1.0) for _ in range(2))
    t = spec.turn * (2.0 * rng.random() - 1.0)
    cos, sin = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)  # rational: no library's sine
    x = ((2.0 * np.arange(FINE) + 1.0) / FINE - 1.0 - cx)[None, :]
    y = ((2.0 * np.arange(FINE) + 1.0) / FINE - 1.0 - cy)[:, None]
    return (cos * x + sin * y) / radius, (cos * y - sin * x) / radius


def _reduce(mask: np.ndarray) -> np.ndarray:
    """Share of each 2 x 2 cell that is true: bool (96, 96) -> float64 (48, 48)."""
    m = mask.astype(np.float64)
    return (m[0::2, 0::2] + m[1::2, 0::2] + m[0::2, 1::2] + m[1::2, 1::2]) / 4.0


def _enlarge(field: np.ndarray) -> np.ndarray:
    """(48, 48) -> (96, 96), every value four times."""
    return field.repeat(2, axis=0).repeat(2, axis=1)


def _field(rng: np.random.Generator, cells: int) -> np.ndarray:
    """A smooth random field (48, 48) in [0, 1]: cells x cells random values, bilinear in between."""
    grid = rng.integers(0, 256, (cells, cells)) / 255.0
    at = np.arange(SIDE) * (cells - 1) / SIDE
    i = np.floor(at).astype(np.int64)
    f = at - i
    rows = grid[i] * (1.0 - f)[:, None] + grid[i + 1] * f[:, None]  # (48, cells)
    return rows[:, i] * (1.0 - f)[None, :] + rows[:, i + 1] * f[None, :]


def _background(kind: str, rng: np.random.Generator) -> np.ndarray:
    """The empty scene, float64 (48, 48, 3) in 0..255."""
    one, two = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    if kind == "light":
        return np.broadcast_to(205.0 + one / 255.0 * 50.0, (SIDE, SIDE, 3))
    if kind == "dark":
        return np.broadcast_to(10.0 + one / 255.0 * 50.0, (SIDE, SIDE, 3))
    if kind == "gradient":
        share = _field(rng, 2)[..., None]
        return (40.0 + 0.7 * one) * share + (40.0 + 0.7 * two) * (1.0 - share)
    base = 70.0 + 0.45 * one
    if kind == "rough":
        grain = 0.55 * _field(rng, 7) + 0.45 * _field(rng, 25)
        return base * (0.55 + 0.9 * grain)[..., None]
    cells = int(rng.integers(5, 9))  # tiled
    index = np.arange(SIDE) // cells
    odd = ((index[:, None] + index[None, :]) % 2).astype(np.float64)[..., None]
    return base * (1.0 - 0.3 * odd)


def _scatter(
    scene: np.ndarray, count: int, rng: np.random.Generator, radius: tuple[float, float] = (0.1, 0.3)
) -> np.ndarray:
    """Lays small discs and bars of any colour into the scene."""
    palette = np.array(list(COLOURS.values()), np.float64)
    x = ((2.0 * np.arange(SIDE) + 1.0) / SIDE - 1.0)[None, :]
    for _ in range(count):
        cx, cy = 2.0 * rng.random() - 1.0, 2.0 * rng.random() - 1.0
        r = radius[0] + (radius[1] - radius[0]) * rng.random()
        slant, kind = 2.0 * rng.random() - 1.0, rng.integers(0, 2)
        colour = palette[rng.integers(0, len(palette))] * (0.5 + 0.5 * rng.random())
        a, b = x - cx, x.T - cy
        piece = a * a + b * b < r * r if kind else (abs(a + slant * b) < r / 2.0) & (abs(b) < 1.6 * r)
        scene = np.where(piece[..., None], colour, scene)
    return scene


def _erode(mask: np.ndarray, steps: int) -> np.ndarray:
    """Takes `steps` fine pixels off the border of a mask (96, 96)."""
    for _ in range(steps):
        m = np.zeros_like(mask)
        m[1:-1, 1:-1] = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        mask = m
    return mask


def _render(spec: Spec, scene, inside, alpha, pattern, rng) -> np.ndarray:
    """Lays the object over the scene in the spec's rendering."""
    colour = np.array(COLOURS[spec.colour], np.float64) + rng.integers(-12, 13, 3)
    to_white = rng.random() < 0.5
    second = colour + 0.7 * (255.0 - colour) if to_white else 0.35 * colour
    fill = colour * (1.0 - pattern) + second * pattern  # (48, 48, 3)
    border = alpha - _reduce(_erode(inside, 3))[..., None]
    if spec.rendering == "photo":
        shade = (0.7 + 0.5 * _field(rng, 2))[..., None]
        shadow = np.zeros_like(alpha)
        shadow[3:, 2:] = alpha[:-3, :-2]
        return scene * (1.0 - 0.45 * shadow) * (1.0 - alpha) + fill * shade * alpha
    if spec.rendering == "drawing":
        fill = 0.7 * fill + 0.3 * 255.0
        return (scene * (1.0 - alpha) + fill * alpha) * (1.0 - border) + 30.0 * border
    if spec.rendering == "sketch":
        paper = 0.25 * scene + 0.75 * 235.0
        hatch = 0.25 + 0.3 * (_field(rng, 25) > 0.5)[..., None]
        fill = paper * (1.0 - hatch) + fill * hatch
        return (paper * (1.0 - alpha) + fill * alpha) * (1.0 - border) + 0.5 * colour * border
    if spec.rendering == "painting":
        return scene * (1.0 - alpha) + fill * (0.65 + 0.6 * _field(rng, 17))[..., None] * alpha
    if spec.rendering == "neon":
        night = 0.3 * scene * (1.0 - alpha) + 0.45 * fill * alpha
        return night * (1.0 - border) + (0.4 * 255.0 + 0.6 * colour) * border
    flat = scene * (1.0 - alpha) + fill * alpha
    return np.floor(flat / 64.0) * 85.0 if spec.rendering == "poster" else flat


def _camera(spec: Spec, scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, blur and noise, then whole pixel values."""
    scene = scene * (1.0 + spec.cast * (np.array(LIGHTS[spec.light]) - 1.0))
    for _ in range(spec.blur):
        padded = np.pad(scene, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = (padded[:-2] + 2.0 * padded[1:-1] + padded[2:]) / 4.0
        scene = (rows[:, :-2] + 2.0 * rows[:, 1:-1] + rows[:, 2:]) / 4.0
    if spec.noise:
        scene = scene + rng.integers(-spec.noise, spec.noise + 1, scene.shape)
    return np.clip(np.floor(scene + 0.5), 0, 255).astype(np.uint8)
