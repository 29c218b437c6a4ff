"""The twelve shapes and five textures of the `shapes` data sets, as masks over coordinates.

Only + - * /, comparisons and np.floor in float64, so that every machine finds the same points inside.
"""

import numpy as np

SHAPES = tuple("circle star arrow hourglass triangle cross heart moon square ring diamond bolt".split())
TEXTURES = ("plain", "striped", "dotted", "checkered", "halved")

# Unit normals of a regular pentagon's edges, y downwards: (cos, sin) of -90 + 72 k degrees, written out.
_PENTAGON = (
    (0.0, -1.0),
    (0.951057, -0.309017),
    (0.587785, 0.809017),
    (-0.587785, 0.809017),
    (-0.951057, -0.309017),
)


def shape_mask(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Says which points lie inside one of `SHAPES`: coordinates u to the right, v downwards, within [-1, 1] -> bool."""
    return _MASKS[shape](u, v)


def texture_mask(texture: str, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Says which points of a texture take its second colour; arguments as in `shape_mask`, the phase from rng."""
    a, b = 2.0 * u + rng.random(), 2.0 * v + rng.random()  # one period is half a radius
    if texture == "plain":
        return np.zeros(u.shape, bool)
    if texture == "striped":
        return a - np.floor(a) < 0.5
    if texture == "checkered":
        return (a - np.floor(a) < 0.5) ^ (b - np.floor(b) < 0.5)
    if texture == "dotted":
        a, b = 1.3 * a, 1.3 * b
        a, b = a - np.floor(a) - 0.5, b - np.floor(b) - 0.5
        return a * a + b * b < 0.09
    return v > 0.0  # halved


def _star(u, v):
    """A five-pointed star is where at most one edge line of its inner pentagon is crossed."""
    return sum((nx * u - ny * v < 0.31).astype(np.int64) for nx, ny in _PENTAGON) >= 4


def _bolt(u, v):
    upper = (v > -0.95) & (v < 0.15) & (u > -0.45 - 0.636 * v) & (u < -0.02 - 0.493 * v)
    lower = (v > -0.2) & (v < 0.95) & (u > 0.03 - 0.243 * v) & (u < 0.42 - 0.652 * v)
    return upper | lower


def _moon(u, v):
    return (u * u + v * v < 0.81) & ((u - 0.42) * (u - 0.42) + v * v > 0.45)


def _heart(u, v):
    x, y = 1.25 * u, 0.15 - 1.25 * v
    q = x * x + y * y - 1.0
    return q * q * q - x * x * y * y * y < 0.0


_MASKS = {
    "circle": lambda u, v: u * u + v * v < 0.72,
    "star": _star,
    "arrow": lambda u, v: (
        ((u <= 0.1) & (u > -0.95) & (abs(v) < 0.25)) | ((u > 0.0) & (u < 0.95) & (abs(v) < 0.85 * (0.95 - u)))
    ),
    "hourglass": lambda u, v: (abs(v) < 0.85) & (abs(u) < 0.08 + 0.75 * abs(v)),
    "triangle": lambda u, v: (v < 0.7) & (1.75 * abs(u) < v + 0.95),
    "cross": lambda u, v: (abs(u) < 0.9) & (abs(v) < 0.9) & ((abs(u) < 0.28) | (abs(v) < 0.28)),
    "heart": _heart,
    "moon": _moon,
    "square": lambda u, v: (abs(u) < 0.75) & (abs(v) < 0.75),
    "ring": lambda u, v: (u * u + v * v < 0.81) & (u * u + v * v > 0.22),
    "diamond": lambda u, v: abs(u) / 0.6 + abs(v) / 0.98 < 1.0,
    "bolt": _bolt,
}
