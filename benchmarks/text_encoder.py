"""The exact fast text encoder against the naive one: time, memory and the share of the machine's matrix-product rate.

Run:   python -m benchmarks.text_encoder [--repeats 3] [--classes 100] [--prec fp32] [--json FILE]
       python -m benchmarks.text_encoder --compile
       python -m benchmarks.text_encoder --random ViT-B-32 | --backbone NAME
Both sides do one forward and backward pass through RN50's text tower (12 layers, width 512, random weights) from the
context vectors to the features: ours for the positions that differ, the naive side for all 77 of every prompt. Times
are medians over rounds of one naive step and then five of ours, of which the mean is taken: steps follow each other in
training, too. The last line is a number of classes at which the naive side does not fit most machines. Peak memory is
that of a process of its own that does one step. With --random (an architecture of open_clip's, weights drawn here) or
--backbone (a name as MODEL.BACKBONE.NAME takes it) the tower is that one, and the naive side is open_clip's own module
where the backbone is open_clip's. With --compile both sides are ours, as it is ("naive") and as MODEL.COMPILE has it;
the case says what compiling took, or that it was refused.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from clip.model import CLIP, convert_weights
from clip.two_towers import TwoTowers
from engine.device import keep_freed_memory
from trainers.backbone import PRECISIONS
from trainers.base import PromptTrainer, TextEncoder
from trainers.compiled_prompts import CompiledEncoder
from trainers.context import build_prompt_encoder
from trainers.coop import PromptLearner

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
from .other_towers import build_towers, write_random

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


def classnames(n_classes: int) -> list[str]:
    """Returns Caltech-101's hundred names, again and again."""
    return [CALTECH101[i % len(CALTECH101)] for i in range(n_classes)]


def build_text_tower(embed_dim: int = 1024, prec: str = "fp32") -> CLIP:
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
    if prec != "fp32":
        convert_weights(clip_model, PRECISIONS[prec])
    return clip_model.requires_grad_(False).to(device()).eval()


class Sides:
    """Both ways from the context vectors to the gradient, over the same learner.

    Args:
        clip_model: The CLIP whose text tower is used.
        n_classes: C; names repeat after Caltech-101's hundred.
        position: Where the class token stands.
        class_specific: Whether every class has a context of its own.
        chunk_rows: Bound of ours, see build_prompt_encoder; 0: none.
        encode_naively: From prompts and tokens to features; None: our blocks, at all positions.
    """

    def __init__(
        self,
        clip_model: TwoTowers,
        n_classes: int,
        *,
        position: str = "end",
        class_specific: bool = False,
        chunk_rows: int = 0,
        encode_naively: nn.Module | None = None,
    ):
        learner = PromptLearner(
            clip_model, classnames(n_classes), n_ctx=N_CTX, class_specific=class_specific, position=position
        )
        self.learner = learner.to(device())
        self.encode_naively = encode_naively or TextEncoder(clip_model)
        self.encode = build_prompt_encoder(clip_model, learner, chunk_rows=chunk_rows)
        self.weight = torch.randn(n_classes, clip_model.text_projection.shape[1], device=device())
        self.positions = (learner.layout.tokens.numel(), self.encode.n_rows)

    def naive_step(self) -> Tensor:
        tokens = self.learner.layout.tokens.to(device())
        return self.gradient(self.encode_naively(self.learner(), tokens))

    def our_step(self) -> Tensor:
        return self.gradient(self.encode(self.learner.ctx))

    def gradient(self, features: Tensor) -> Tensor:
        self.learner.ctx.grad = None
        (features * self.weight).sum().backward()
        return self.learner.ctx.grad


def build_both(backbone: str, prec: str) -> tuple[TwoTowers, nn.Module | None]:
    """Returns the tower that is measured, and what encodes naively; "": RN50's, and our blocks."""
    if not backbone:
        return build_text_tower(prec=prec), None
    ours, naive = build_towers(backbone)
    return ours.to(device()), naive.to(device())


def build_step(side: str, n_classes: int, prec: str, backbone: str = "") -> Callable:
    """Returns the step of one side, unified, class token at the end."""
    clip_model, naive = build_both(backbone, prec)
    sides = Sides(clip_model, n_classes, encode_naively=naive)
    return sides.naive_step if side == "naive" else sides.our_step


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_memory(parser)
    add_precision(parser)
    parser.add_argument("--classes", type=int, default=100, help="number of classes (default: %(default)s)")
    parser.add_argument("--many-classes", type=int, default=1000, help="of ours alone (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="ours eager against ours compiled, nothing else")
    tower = parser.add_mutually_exclusive_group()
    tower.add_argument("--backbone", default="", help="a name of MODEL.BACKBONE.NAME (default: RN50's text tower)")
    tower.add_argument("--random", metavar="ARCHITECTURE", help="one of open_clip's, with weights drawn here")
    args = parser.parse_args(argv)
    if (args.backbone or args.random) and args.prec != "fp32":
        parser.error(f"--prec is {args.prec}; with --backbone and --random it must be fp32.")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.keep_memory:
        keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        measure(args, write_random(args.random, Path(folder)) if args.random else args.backbone)


def measure(args: argparse.Namespace, backbone: str) -> None:
    """Measures the text tower of a backbone; "": RN50's."""
    tower = args.random or backbone or "RN50"
    report = Report("text_encoder", args, f"{tower}'s text tower, C = {args.classes}, M = {N_CTX}, {args.prec}")
    clip_model, naively = build_both(backbone, args.prec)
    if args.compile:
        measure_compiled(report, args, clip_model)
        report.write()
        return
    for position, class_specific in CASES:
        options = {"position": position, "class_specific": class_specific, "encode_naively": naively}
        sides = Sides(clip_model, args.classes, **options)
        case = f"{'class-specific' if class_specific else 'unified'}, {position}"
        report.compare_sides(case, sides, repeats=args.repeats, prec=args.prec)
    sides = Sides(clip_model, args.many_classes, encode_naively=naively)
    flops = count_flops(sides.our_step)
    ours_s, rates = alternate(args.repeats, partial(timed, sides.our_step), partial(matmul_rate, args.prec))
    case = f"unified, end, C = {args.many_classes}"
    report.compare(case, (), ours_s, positions=sides.positions, flops=flops, rates=rates)
    print("\npeak memory, unified, end")
    for side, n_classes in (("naive", args.classes), ("ours", args.classes), ("ours", args.many_classes)):
        report.memory(f"{side}, C = {n_classes}", *peak_memory(build_step, side, n_classes, args.prec, backbone))
    report.write()


def measure_compiled(report: Report, args: argparse.Namespace, clip_model: TwoTowers) -> None:
    """Reports our step as it is against our step compiled, for all classes."""
    eager = Sides(clip_model, args.classes)
    compiled = copy.copy(eager)
    own = build_prompt_encoder(clip_model, eager.learner)  # to compile an encoder changes it
    compiled.encode = CompiledEncoder(own, **PromptTrainer.compile_options)
    first_s = timed(compiled.our_step)
    difference = relative(compiled.our_step().clone(), eager.our_step())
    flops = count_flops(eager.our_step)
    steps = (partial(timed, sides.our_step, n=20) for sides in (eager, compiled))
    eager_s, compiled_s, rates = alternate(args.repeats, *steps, partial(matmul_rate, args.prec))
    said = f"compiled in {first_s:.0f} s" if compiled.encode.compiled_for else "refused: eager on both sides"
    measured = {"positions": (eager.positions[1],) * 2, "flops": flops, "rates": rates, "difference": difference}
    report.compare(f"unified, end, {said}", eager_s, compiled_s, **measured)


if __name__ == "__main__":
    main()
