"""The exact fast text encoder against the plain one: time, memory and the share of the machine's matrix-product rate.

Run:   python -m benchmarks.text_encoder [--repeats 3] [--classes 100]
Both sides do one forward and backward pass through RN50's text tower (12 layers, width 512, random weights) from the
context vectors to the features, in float32. Times are medians over rounds of one plain step and then five
fast ones, of which the mean is taken: steps follow each other in training, too. Peak memory is the largest resident
size of a process of its own that does one step (the interpreter, torch and the weights included; Linux).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from clip.model import CLIP
from clip.prompts import PromptEncoder
from trainers.base import TextEncoder
from trainers.coop import PromptLearner

from .measure import matmul_rate, peak_memory, timed

N_CTX = 16
CASES = [("end", False), ("middle", False), ("front", False), ("end", True)]  # class-token position, class-specific

CALTECH101 = """
face leopard motorbike accordion airplane anchor ant barrel bass beaver binocular bonsai brain brontosaurus buddha
butterfly camera cannon car_side ceiling_fan cellphone chair chandelier cougar_body cougar_face crab crayfish
crocodile crocodile_head cup dalmatian dollar_bill dolphin dragonfly electric_guitar elephant emu euphonium ewer
ferry flamingo flamingo_head garfield gerenuk gramophone grand_piano hawksbill headphone hedgehog helicopter ibis
inline_skate joshua_tree kangaroo ketch lamp laptop llama lobster lotus mandolin mayfly menorah metronome minaret
nautilus octopus okapi pagoda panda pigeon pizza platypus pyramid revolver rhino rooster saxophone schooner scissors
scorpion sea_horse snoopy soccer_ball stapler starfish stegosaurus stop_sign strawberry sunflower tick trilobite
umbrella watch water_lilly wheelchair wild_cat windsor_chair wrench yin_yang
""".split()


def build_text_tower(embed_dim: int = 1024) -> CLIP:
    """The text tower of CLIP RN50 (512: of ViT-B/16) with random weights; its image tower is a small, unused one."""
    torch.manual_seed(0)
    clip_model = CLIP(
        embed_dim=embed_dim,
        image_resolution=32,
        vision_layers=1,
        vision_width=64,
        vision_patch_size=32,
        context_length=77,
        vocab_size=49408,
        transformer_width=512,
        transformer_heads=8,
        transformer_layers=12,
    )
    return clip_model.requires_grad_(False).eval()


def build_steps(clip_model: CLIP, n_classes: int, position: str, class_specific: bool, n_ctx: int = N_CTX):
    """Returns the plain step and the fast step (each to the gradient of the context), and the fast one's rows."""
    names = [CALTECH101[i % len(CALTECH101)] for i in range(n_classes)]
    learner = PromptLearner(clip_model, names, n_ctx=n_ctx, class_specific=class_specific, position=position)
    plain = TextEncoder(clip_model)
    fast = PromptEncoder(clip_model, learner.layout, class_specific=class_specific)
    weight = torch.randn(n_classes, clip_model.text_projection.shape[1])

    def gradient(features: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad((features * weight).sum(), learner.ctx)[0]

    def plain_step() -> torch.Tensor:
        return gradient(plain(learner(), learner.layout.tokens))

    def fast_step() -> torch.Tensor:
        return gradient(fast(learner.ctx))

    return plain_step, fast_step, fast.n_rows


def flops(n_rows: int, n_classes: int, width: int = 512, n_layers: int = 12, embed_dim: int = 1024) -> float:
    """Operations of the linear layers, forward and backward to the input; attention's own are left out.

    In the last layer all rows give keys and values, only the end tokens pass the rest.
    """
    full_layers = (n_layers - 1) * n_rows * 12 * width**2
    last_layer = n_rows * 2 * width**2 + n_classes * (10 * width**2 + width * embed_dim)
    return 2 * 2 * (full_layers + last_layer)  # multiply and add; forward and backward


def build_step(kind: str, n_classes: int) -> Callable:
    """Returns one of the two steps, unified, class token at the end."""
    plain_step, fast_step, _ = build_steps(build_text_tower(), n_classes, "end", False)
    return plain_step if kind == "plain" else fast_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="alternating runs of each side, for the median")
    parser.add_argument("--classes", type=int, default=100, help="number of classes")
    args = parser.parse_args()
    clip_model = build_text_tower()
    print(f"RN50 text tower, C = {args.classes}, M = {N_CTX}, float32, {torch.get_num_threads()} threads")
    print(f"{'case':24}{'plain (s)':>10}{'fast (s)':>10}{'ratio':>8}{'rows':>8}{'of matmul rate':>16}{'gradient':>12}")
    for position, class_specific in CASES:
        plain_step, fast_step, n_rows = build_steps(clip_model, args.classes, position, class_specific)
        error = ((plain_step() - (gradient := fast_step())).norm() / gradient.norm()).item()
        times = [(timed(plain_step), timed(fast_step, n=5), matmul_rate()) for _ in range(args.repeats)]
        plain, fast, rate = (statistics.median(column) for column in zip(*times, strict=True))
        share = flops(n_rows, args.classes) / fast / rate
        case = f"{'class-specific' if class_specific else 'unified'}, {position}"
        print(f"{case:24}{plain:10.2f}{fast:10.3f}{plain / fast:8.1f}{n_rows:8}{share:16.0%}{error:12.1e}", flush=True)
    print("\npeak memory, unified, end")
    for kind, n_classes in (("plain", args.classes), ("fast", args.classes), ("fast", 1000)):
        memory, seconds = peak_memory(build_step, kind, n_classes)
        print(f"{kind:6} C = {n_classes:5}: {memory:5.2f} GB, first step {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
