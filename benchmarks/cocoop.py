"""CoCoOp through the exact encoder against the naive loop over images: time and memory of a training step, of testing.

Run:   python -m benchmarks.cocoop [--repeats 3]
ViT-B/16's text tower (12 layers, width 512, random weights), M = 4, float32. A training step goes from the features of
B images to the gradients of the context and the Meta-Net, forward and backward. The naive side computes, image after
image, all 77 places of each of its C prompts, and keeps what the backward pass over the batch's mean loss needs. Times
are medians over rounds of one naive step and then five fast ones, of which the mean is taken. Testing is the forward
pass of 100 images; its naive side is measured on four images and multiplied by 25. Peak memory is the largest
resident size of a process of its own that does one step (the interpreter, torch and the weights included; Linux).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.prompts import PromptEncoder
from trainers.base import TextEncoder
from trainers.cocoop import PromptLearner

from .measure import peak_memory, timed
from .text_encoder import CALTECH101, build_text_tower

N_CTX, EMBED_DIM = 4, 512
CHUNK_ROWS = 16384  # as configured
N_TESTED, N_NAIVE = 100, 4  # images of a test batch; of these measured on the naive side


class Sides:
    """Both ways from image features to logits and to gradients, over the same learner.

    Args:
        n_classes: C; names repeat after Caltech-101's hundred.
        n_images: B.
    """

    def __init__(self, n_classes: int, n_images: int):
        clip_model = build_text_tower(EMBED_DIM)
        names = [CALTECH101[i % len(CALTECH101)] for i in range(n_classes)]
        self.learner = PromptLearner(clip_model, names, n_ctx=N_CTX)
        self.encode_naively = TextEncoder(clip_model)
        self.encode = PromptEncoder(clip_model, self.learner.layout, chunk_rows=CHUNK_ROWS)
        self.features = F.normalize(torch.randn(n_images, EMBED_DIM), dim=-1)
        self.labels = torch.arange(n_images) % n_classes

    def naive_logits(self, n_images: int | None = None) -> Tensor:
        rows = []
        for feature in self.features[:n_images]:
            [prompts] = self.learner(feature[None])
            texts = F.normalize(self.encode_naively(prompts, self.learner.layout.tokens), dim=-1)
            rows.append(100 * texts @ feature)
        return torch.stack(rows)

    def fast_logits(self) -> Tensor:
        texts = F.normalize(self.encode(self.learner.contexts(self.features)), dim=-1)
        return 100 * (texts @ self.features[..., None])[..., 0]

    def gradient(self, logits: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, self.labels)
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(self.learner.parameters()))])

    def naive_step(self) -> Tensor:
        return self.gradient(self.naive_logits())

    def fast_step(self) -> Tensor:
        return self.gradient(self.fast_logits())


def build_step(kind: str, n_classes: int, n_images: int) -> Callable:
    """Returns one side's training step."""
    sides = Sides(n_classes, n_images)
    return sides.naive_step if kind == "naive" else sides.fast_step


def compare_training(n_classes: int, n_images: int, repeats: int) -> None:
    """Prints a line of the table of training steps."""
    sides = Sides(n_classes, n_images)
    error = ((sides.naive_step() - (gradient := sides.fast_step())).norm() / gradient.norm()).item()
    times = [(timed(sides.naive_step), timed(sides.fast_step, n=5)) for _ in range(repeats)]
    naive, fast = (statistics.median(column) for column in zip(*times, strict=True))
    case = f"train, C = {n_classes}, B = {n_images}"
    print(f"{case:24}{naive:10.2f}{fast:10.3f}{naive / fast:8.1f}{error:12.1e}", flush=True)


@torch.no_grad()
def compare_testing(n_classes: int, repeats: int) -> None:
    """Prints the line of testing; the naive side is extrapolated from a few images."""
    sides = Sides(n_classes, N_TESTED)
    expected = sides.naive_logits(N_NAIVE)
    error = ((expected - sides.fast_logits()[:N_NAIVE]).norm() / expected.norm()).item()
    scale = N_TESTED / N_NAIVE
    times = [(scale * timed(lambda: sides.naive_logits(N_NAIVE)), timed(sides.fast_logits)) for _ in range(repeats)]
    naive, fast = (statistics.median(column) for column in zip(*times, strict=True))
    case = f"test,  C = {n_classes}, B = {N_TESTED}"
    print(f"{case:24}{naive:10.2f}{fast:10.3f}{naive / fast:8.1f}{error:12.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="alternating runs of each side, for the median")
    args = parser.parse_args()
    torch.manual_seed(0)
    print(f"ViT-B/16 text tower, M = {N_CTX}, float32, {torch.get_num_threads()} threads")
    print(f"{'case':24}{'naive (s)':>10}{'fast (s)':>10}{'ratio':>8}{'difference':>12}")
    for n_images in (1, 4):
        compare_training(50, n_images, args.repeats)
    compare_testing(100, args.repeats)
    print(f"(naive testing: {N_NAIVE} images, times {N_TESTED // N_NAIVE})\n\npeak memory of a training step")
    for kind, n_classes, n_images in (("naive", 50, 4), ("fast", 50, 4), ("fast", 1000, 1)):
        memory, seconds = peak_memory(build_step, kind, n_classes, n_images)
        print(f"{kind:6} C = {n_classes:4}, B = {n_images}: {memory:5.2f} GB, first step {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
