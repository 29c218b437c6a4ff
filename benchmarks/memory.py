"""What CHUNK_ROWS saves and costs: a training step of CoOp with many classes, all rows at once and in chunks.

Run:   python -m benchmarks.memory [--repeats 3] [--classes 1000] [--chunks 2048 1024 512] [--prec fp32] [--json FILE]
One forward and backward pass through ViT-B/16's text tower (12 layers, width 512, random weights) with 16 context
vectors, from the context to the features and back. "Naive" is here our own computation of all rows at once: no other
fits most machines. Times are medians over rounds of all sizes in turn; peak memory is that of a process of its own that
does one step. Of the size -1 it says what was chosen from the device's free memory.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch

from clip.model import CLIP
from engine.device import keep_freed_memory

from .measure import (
    Report,
    add_arguments,
    add_precision,
    alternate,
    count_flops,
    matmul_rate,
    peak_memory,
    relative,
    timed,
)
from .text_encoder import N_CTX, Sides, build_text_tower

EMBED_DIM = 512  # ViT-B/16's joint space


def chunked(clip_model: CLIP, n_classes: int, chunk_rows: int) -> Sides:
    """Returns the sides of the text encoder's benchmark with a bound on ours."""
    torch.manual_seed(0)
    return Sides(clip_model, n_classes, chunk_rows=chunk_rows)


def build_step(n_classes: int, chunk_rows: int, prec: str) -> Callable:
    """Returns a step, in a process as train.py sets it up."""
    keep_freed_memory()
    return chunked(build_text_tower(EMBED_DIM, prec), n_classes, chunk_rows).our_step


def chunk_name(size: int, sides: Sides) -> str:
    """Returns the name of a size; of -1 also the rows that the device has room for."""
    return f"CHUNK_ROWS {size}" + (f" ({sides.encode.chunk_rows:,})" if size < 0 else "")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_precision(parser)
    parser.add_argument("--classes", type=int, default=1000, help="number of classes (default: %(default)s)")
    parser.add_argument("--chunks", type=int, nargs="+", default=[2048, 1024, 512], help="sizes (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    keep_freed_memory()
    report = Report("memory", args, f"ViT-B/16's text tower, C = {args.classes}, M = {N_CTX}, {args.prec}")
    clip_model = build_text_tower(EMBED_DIM, args.prec)
    sizes = [0, *args.chunks]
    sides = [chunked(clip_model, args.classes, size) for size in sizes]
    expected, *gradients = [side.our_step().clone() for side in sides]
    flops = count_flops(sides[0].our_step)  # those of the second forward pass are a cost of the chunks
    steps = (partial(timed, side.our_step) for side in sides)
    whole_s, *chunks_s, rates = alternate(args.repeats, *steps, partial(matmul_rate, args.prec))
    report.compare("all at once", (), whole_s, positions=sides[0].positions, flops=flops, rates=rates)
    names = [chunk_name(size, side) for size, side in zip(sizes, sides)]
    for name, side, seconds, gradient in zip(names[1:], sides[1:], chunks_s, gradients):
        longer = statistics.median(chunk_s / at_once_s for chunk_s, at_once_s in zip(seconds, whole_s))
        measured = {
            "positions": side.positions,
            "difference": relative(gradient, expected),
            "note": f"{longer:.2f} times as long",
        }
        report.compare(name, whole_s, seconds, **measured)
    print("\npeak memory of a step")
    for name, size in zip(names, sizes):
        report.memory(name, *peak_memory(build_step, args.classes, size, args.prec))
    report.write()


if __name__ == "__main__":
    main()
