"""Draws what shapes' CLIP is pretrained on: images in every style there is, and captions as the web has them."""

import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np

from datasets.drawing.shapes_drawing import BACKGROUNDS, COLOURS, LIGHTS, RENDERINGS, Spec, draw
from datasets.drawing.shapes_masks import SHAPES, TEXTURES

from .shapes_captions import caption

log = logging.getLogger(__name__)

N_EASY, N_WEB = 12_000, 60_000
GROUPS = (SHAPES, tuple(COLOURS), TEXTURES)  # columns of the attributes


def load_or_draw(cache: Path, seed: int) -> dict[str, np.ndarray]:
    """Images (N, 48, 48, 3) uint8, attributes (N, 3) int64 and captions (N, 2) str; the easy ones first."""
    path = cache / f"seed{seed}_{N_EASY}_{N_WEB}.npz"
    if not path.exists():
        start = time.time()
        cache.mkdir(parents=True, exist_ok=True)
        chunks = [(seed, i, min(i + 1000, N_EASY + N_WEB)) for i in range(0, N_EASY + N_WEB, 1000)]
        with multiprocessing.Pool(2) as pool:
            parts = pool.map(draw_chunk, chunks, chunksize=1)
        arrays = [np.concatenate(part) for part in zip(*parts, strict=True)]
        unfinished = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(unfinished, images=arrays[0], attributes=arrays[1], captions=arrays[2])
        unfinished.replace(path)
        log.info("drew %d images in %.0f s", len(arrays[0]), time.time() - start)
    with np.load(path) as file:
        return dict(file)


def easy_spec(rng: np.random.Generator) -> Spec:
    """A flat shape in the middle of a light background."""
    return Spec(*_attributes(rng), rendering="flat", background="light", size=(0.6, 0.8), shift=0.1, turn=0.1)


def web_spec(rng: np.random.Generator) -> Spec:
    """Anything: all renderings, backgrounds and lights, some clutter, blur and noise."""
    light = "day" if rng.random() < 0.4 else _pick(tuple(LIGHTS), rng)
    return Spec(
        *_attributes(rng),
        rendering=_pick(RENDERINGS, rng),
        background=_pick(BACKGROUNDS, rng),
        light=light,
        cast=0.4 + 0.6 * rng.random(),
        clutter=int(rng.integers(0, 6)),
        blur=int(rng.integers(0, 2)),
        noise=int(rng.integers(0, 19)),
        size=(0.5, 0.85),
        shift=0.2,
        turn=0.25,
    )


def _attributes(rng: np.random.Generator) -> tuple[str, str, str]:
    return tuple(_pick(group, rng) for group in GROUPS)


def draw_chunk(chunk: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    seed, first, last = chunk
    images, attributes, captions = [], [], []
    for i in range(first, last):
        rng = np.random.Generator(np.random.PCG64([seed, 0, i]))
        spec = (easy_spec if i < N_EASY else web_spec)(rng)
        images.append(draw(spec, rng))
        attributes.append([g.index(a) for g, a in zip(GROUPS, (spec.shape, spec.colour, spec.texture), strict=True)])
        other = web_spec(rng)  # one caption in ten belongs to another image
        captions.append([caption(other if rng.random() < 0.1 else spec, rng) for _ in range(2)])
    return np.stack(images), np.array(attributes), np.array(captions, dtype="U160")


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(0, len(options)))]
