"""The frozen image tower as it is, prepared, and in bfloat16: the forward pass that every image takes.

Run:   python -m benchmarks.image_tower [--repeats 5] [--batch-size 32] [--json FILE]
RN50's and ViT-B/16's towers with random weights and running statistics, forward without gradient. The naive side is
the loaded tower, ours the copy that clip/prepared makes of it. In the rows of bfloat16 both sides are prepared, and the
naive one computes in float32; a CPU without instructions for it has no such rows. Freed memory is kept and
MODEL.CHANNELS_LAST is on, as in a run, on all sides.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from clip.model import convert_weights
from clip.prepared import prepare
from engine.device import keep_freed_memory, multiplies_bfloat16

from .loader import TOWERS
from .measure import Report, add_arguments, alternate, device, relative, timed


def build_tower(name: str) -> nn.Module:
    """Returns a frozen tower; its batch norms have other statistics than a new one's, which change nothing."""
    torch.manual_seed(0)
    tower = TOWERS[name]().eval().requires_grad_(False)
    for norm in (module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
        norm.weight.uniform_(0.5, 1.5)
    return tower.to(device(), memory_format=torch.channels_last)


@torch.no_grad()
def compare(report: Report, args: argparse.Namespace, name: str) -> None:
    """Reports one tower."""
    tower = build_tower(name)
    sides, size = [tower, prepare(tower)], tower.input_resolution
    if device().type == "cuda" or multiplies_bfloat16():
        half = copy.deepcopy(tower)
        convert_weights(half, torch.bfloat16)
        sides.append(prepare(half))
    images = torch.randn(args.batch_size, 3, size, size, device=device())
    expected, ours, *others = (side(images).float() for side in sides)  # which warms up, too
    times = alternate(args.repeats, *(partial(timed, partial(side, images)) for side in sides))
    report.compare(f"{name}, prepared", *times[:2], difference=relative(ours, expected))
    for in_half in others:
        cosine = F.cosine_similarity(in_half, ours).min().item()
        note = f"smallest cosine of features in both precisions: {cosine:.5f}"
        report.compare(f"{name}, bf16", *times[1:], difference=relative(in_half, ours), note=note)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.set_defaults(repeats=5)
    parser.add_argument("--batch-size", type=int, default=32, help="images at once (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    keep_freed_memory()
    report = Report("image_tower", args, f"The image tower, batches of {args.batch_size}")
    for name in TOWERS:
        compare(report, args, name)
    report.write()


if __name__ == "__main__":
    main()
