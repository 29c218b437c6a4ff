"""How far the exact encoder and the naive one are from the same computation in float64, in each precision.

Run:   python -m benchmarks.equality [--classes 100] [--prec fp32 bf16] [--json FILE]
Text towers of 12 layers and width 512 with random weights. The truth is the naive side in float64, on CLIP's weights
as the precision has rounded them. A case holds if our gradient is at most BOUND times as far from it as the naive one:
the order of sums is another, so the rounding is, and it may not be worse. On a GPU it is CUDA's arithmetic.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from clip.model import CLIP

from . import cocoop, text_encoder
from .measure import Report, add_report, device, relative

BOUND = 2.0
CASES: dict[str, Callable] = {
    "CoOp, end": partial(text_encoder.Sides),
    "CoOp, middle": partial(text_encoder.Sides, position="middle"),
    "CoOp, front": partial(text_encoder.Sides, position="front"),
    "CoOp, class-specific": partial(text_encoder.Sides, class_specific=True),
    "CoOp, in chunks": partial(text_encoder.Sides, chunk_rows=128),
    "CoCoOp, 4 images": partial(cocoop.Sides, n_images=4),
}


def errors(clip_model: CLIP, build: Callable, n_classes: int) -> tuple[float, float]:
    """Returns how far the gradients of the naive side and of ours are from float64's, relative to its norm."""
    sides = build(clip_model, n_classes)
    truth = in_float64(sides, build, clip_model, n_classes).naive_step().clone()
    naive = relative(sides.naive_step().double(), truth)
    return naive, relative(sides.our_step().double(), truth)


def in_float64(sides: Any, build: Callable, clip_model: CLIP, *args, **options) -> Any:
    """Returns what `build` made of a CLIP and these arguments once more, from the same values in float64."""
    exact = build(copy.deepcopy(clip_model).double(), *args, **options)
    exact.learner.double().load_state_dict(sides.learner.state_dict())
    for name in {"features", "weight"} & vars(sides).keys():
        setattr(exact, name, getattr(sides, name).double())
    return exact


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_report(parser)
    choices = ("fp32", "fp16", "bf16") if device().type == "cuda" else ("fp32", "bf16")
    parser.add_argument("--classes", type=int, default=100, help="number of classes (default: %(default)s)")
    parser.add_argument("--prec", nargs="+", choices=choices, default=choices, help="precisions (default: all)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 if every case holds."""
    args, holds = parse_args(argv), True
    columns = f"{'case':32}{'naive':>11}{'ours':>11}{'ours / naive':>14}"
    report = Report("equality", args, f"errors of gradients against float64, C = {args.classes}", columns)
    for prec in args.prec:
        torch.manual_seed(0)
        clip_model = text_encoder.build_text_tower(cocoop.EMBED_DIM, prec)
        for case, build in CASES.items():
            naive, ours = errors(clip_model, build, args.classes)
            is_within = ours <= BOUND * naive
            holds &= is_within
            row = {"case": f"{case}, {prec}", "naive_error": naive, "our_error": ours, "holds": is_within}
            report.add(
                row, f"{row['case']:32}{naive:11.1e}{ours:11.1e}{ours / naive:14.2f}{'' if is_within else '  !'}"
            )
    report.write()
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
