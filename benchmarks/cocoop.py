"""CoCoOp through the exact encoder against the naive loop over images: time and memory of a training step, of testing.

Run:   python -m benchmarks.cocoop [--repeats 3] [--classes 50] [--prec fp32] [--json FILE]
ViT-B/16's text tower (12 layers, width 512, random weights), M = 4. A training step goes from the features of B images
to the gradients of the context and the Meta-Net, forward and backward. The naive side computes, image after image, all
77 positions of each of its C prompts, and keeps what the backward pass over the batch's mean loss needs. Times are
medians over rounds of one naive step and then five of ours, of which the mean is taken. Testing is the forward pass of
many images over twice as many classes, as after training on half of them; its naive side is measured on a few images
and extrapolated. Peak memory is that of a process of its own that does one step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import CLIP
from engine.device import keep_freed_memory
from trainers.base import TextEncoder
from trainers.cocoop import PromptLearner
from trainers.context import build_prompt_encoder

from .measure import (
    Report,
    add_arguments,
    add_memory,
    add_precision,
    alternate,
    count_flops,
    device,
    matmul_rate,
    peak_memory,
    relative,
    timed,
)
from .text_encoder import build_text_tower, classnames

N_CTX, EMBED_DIM = 4, 512
CHUNK_ROWS = -1  # as configured
N_TRAINED = (1, 4)  # images of a training batch
N_NAIVE = 4  # images of a test batch that the naive side is measured on


class Sides:
    """Both ways from image features to logits and to gradients, over the same learner.

    Args:
        clip_model: The CLIP whose text tower is used.
        n_classes: C; names repeat after Caltech-101's hundred.
        n_images: B.
    """

    def __init__(self, clip_model: CLIP, n_classes: int, n_images: int):
        self.learner = PromptLearner(clip_model, classnames(n_classes), n_ctx=N_CTX).to(device())
        self.encode_naively = TextEncoder(clip_model)
        self.encode = build_prompt_encoder(clip_model, self.learner, chunk_rows=CHUNK_ROWS)
        embed_dim = clip_model.visual.output_dim
        self.features = F.normalize(torch.randn(n_images, embed_dim, device=device()), dim=-1)
        self.labels = torch.arange(n_images, device=device()) % n_classes
        self.positions = (n_images * self.learner.layout.tokens.numel(), n_images * self.encode.n_rows)

    def naive_logits(self, n_images: int | None = None) -> Tensor:
        rows = []
        for feature in self.features[:n_images]:
            [prompts] = self.learner(feature[None])
            texts = F.normalize(self.encode_naively(prompts, self.learner.layout.tokens).type_as(feature), dim=-1)
            rows.append(100 * texts @ feature)
        return torch.stack(rows)

    def our_logits(self) -> Tensor:
        texts = F.normalize(self.encode(self.learner.contexts(self.features)).type_as(self.features), dim=-1)
        return 100 * (texts @ self.features[..., None])[..., 0]

    def naive_step(self) -> Tensor:
        return self.gradient(self.naive_logits())

    def our_step(self) -> Tensor:
        return self.gradient(self.our_logits())

    def gradient(self, logits: Tensor) -> Tensor:
        self.learner.zero_grad()
        F.cross_entropy(logits, self.labels).backward()
        return torch.cat([parameter.grad.flatten() for parameter in self.learner.parameters()])


def build_step(side: str, n_classes: int, n_images: int, prec: str) -> Callable:
    """Returns the training step of one side."""
    sides = Sides(build_text_tower(EMBED_DIM, prec), n_classes, n_images)
    return sides.naive_step if side == "naive" else sides.our_step


def compare_training(report: Report, args: argparse.Namespace, clip_model: CLIP, n_images: int) -> None:
    """Reports the training steps of both sides."""
    sides = Sides(clip_model, args.classes, n_images)
    case = f"train, C = {args.classes}, B = {n_images}"
    report.compare_sides(case, sides, repeats=args.repeats, prec=args.prec)


@torch.no_grad()
def compare_testing(report: Report, args: argparse.Namespace, clip_model: CLIP) -> None:
    """Reports the forward passes of both sides; the naive one is extrapolated from a few images."""
    sides = Sides(clip_model, 2 * args.classes, args.tested)
    expected = sides.naive_logits(N_NAIVE)
    difference = relative(sides.our_logits()[:N_NAIVE], expected)
    flops = count_flops(sides.our_logits)
    scale = args.tested / len(expected)
    naive, ours = partial(timed, partial(sides.naive_logits, N_NAIVE)), partial(timed, sides.our_logits)
    naive_s, ours_s, rates = alternate(args.repeats, naive, ours, partial(matmul_rate, args.prec))
    case = f"test, C = {2 * args.classes}, B = {args.tested}"
    report.compare(
        case,
        [scale * seconds for seconds in naive_s],
        ours_s,
        positions=sides.positions,
        flops=flops,
        rates=rates,
        difference=difference,
        note=f"the naive side extrapolated from {len(expected)} images",
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_memory(parser)
    add_precision(parser)
    parser.add_argument("--classes", type=int, default=50, help="number of classes trained on (default: %(default)s)")
    parser.add_argument("--tested", type=int, default=100, help="images of a test batch (default: %(default)s)")
    parser.add_argument("--many-classes", type=int, default=1000, help="whose memory is shown (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.keep_memory:
        keep_freed_memory()
    report = Report("cocoop", args, f"ViT-B/16's text tower, M = {N_CTX}, {args.prec}")
    clip_model = build_text_tower(EMBED_DIM, args.prec)
    for n_images in N_TRAINED:
        compare_training(report, args, clip_model, n_images)
    compare_testing(report, args, clip_model)
    print("\npeak memory of a training step")
    for side, n_classes, n_images in (
        ("naive", args.classes, max(N_TRAINED)),
        ("ours", args.classes, max(N_TRAINED)),
        ("ours", args.many_classes, 1),
    ):
        peak = peak_memory(build_step, side, n_classes, n_images, args.prec)
        report.memory(f"{side}, C = {n_classes}, B = {n_images}", *peak)
    report.write()


if __name__ == "__main__":
    main()
