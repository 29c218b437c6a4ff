"""Methods with vectors inside the towers: their text side against the naive one, and where the time of a step goes.

Run:   python -m benchmarks.deep_prompts --keep-memory [--repeats 3] [--classes 100] [--images 4] [--json FILE]
The text side is one forward and backward pass through ViT-B/16's text tower (12 layers, width 512, random weights) from
the learned vectors to the features: of MaPLe, PromptSRC and TCP, with their authors' numbers of vectors and blocks. The
naive side computes all 77 positions of every prompt in all blocks, and replaces the vectors before their block. Times
are medians over rounds of one naive step and then five of ours, of which the mean is taken.

A training step adds the image tower of ViT-B/16, forward and backward, PromptSRC's frozen forward pass and SGD. Its
graph is cut between the towers and the loss, so each tower's backward pass is timed alone; the gradients are those of
the whole graph. It is measured with the naive text side, with ours, and with ours and activation checkpointing in the
image tower. Peak memory is that of a process of its own that does one step.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import CLIP, convert_weights
from clip.plain_prompts import PlainPromptEncoder
from engine.device import keep_freed_memory
from trainers.backbone import PRECISIONS
from trainers.context import ContextLearner, build_prompt_encoder
from trainers.deep_prompts import IndependentLearner
from trainers.maple import MultiModalPromptLearner
from trainers.tcp import PromptLearner

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
from .text_encoder import classnames

TEXT = ("MaPLe", "PromptSRC", "TCP")
STEPS = ("MaPLe", "PromptSRC")
DEPTH = 9  # J, blocks of each tower that have vectors
WORDS = "a photo of a"
TEXT_LOSS_WEIGHT, IMAGE_LOSS_WEIGHT = 25.0, 10.0  # PromptSRC's


def build_clip(prec: str) -> CLIP:
    """CLIP ViT-B/16 with random weights."""
    torch.manual_seed(0)
    clip_model = CLIP(512, 224, 12, 768, 16, 77, 49408, 512, 8, 12)
    if prec != "fp32":
        convert_weights(clip_model, PRECISIONS[prec])
    return clip_model.requires_grad_(False).to(device()).eval()


def build_learner(method: str, clip_model: CLIP, n_classes: int) -> ContextLearner:
    """Returns what a method learns, as its authors configure it."""
    names = classnames(n_classes)
    if method == "MaPLe":
        return MultiModalPromptLearner(clip_model, names, n_ctx=2, ctx_init=WORDS, depth=DEPTH)
    if method == "PromptSRC":
        vision = {"n_vision": 4, "vision_depth": DEPTH}
        return IndependentLearner(clip_model, names, n_ctx=4, ctx_init=WORDS, depth=DEPTH, **vision)
    return PromptLearner(clip_model, names, drawn_features(clip_model, n_classes), n_ctx=4)  # before block 8 of 12


def drawn_features(clip_model: CLIP, n_classes: int) -> Tensor:
    """Constants in place of the features of hand-made prompts: (C, E), normalised, in float32 at least."""
    return unit(torch.randn(n_classes, clip_model.visual.output_dim).to(clip_model.text_projection))


def unit(features: Tensor) -> Tensor:
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


class Sides:
    """Both ways from the learned vectors to the text features and to the gradient, over the same learner.

    Args:
        clip_model: The CLIP whose text tower is used.
        method: One of TEXT.
        n_classes: C; names repeat after Caltech-101's hundred.
    """

    def __init__(self, clip_model: CLIP, method: str, n_classes: int):
        self.clip_model, self.method, self.n_classes = clip_model, method, n_classes
        self.learner = build_learner(method, clip_model, n_classes).to(device())
        self.encoders = {
            "naive": PlainPromptEncoder(clip_model, self.learner.layout),
            "ours": build_prompt_encoder(clip_model, self.learner),
        }
        self.positions = tuple(encoder.n_rows for encoder in self.encoders.values())
        self.weight = torch.randn(n_classes, clip_model.text_projection.shape[1], device=device())

    def encode(self, side: str) -> Tensor:
        return self.encoders[side](self.learner.context(), self.learner.deep())

    def naive_step(self) -> Tensor:
        return self.step("naive")

    def our_step(self) -> Tensor:
        return self.step("ours")

    def step(self, side: str) -> Tensor:
        self.learner.zero_grad()
        (self.encode(side) * self.weight).sum().backward()
        return self.gradient()

    def gradient(self) -> Tensor:
        """Returns the gradients of all that has some, in one vector."""
        gradients = (parameter.grad for parameter in self.learner.parameters())
        return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


class Step:
    """A training step of one of STEPS on drawn images (B, 3, R, R), in its parts.

    Args:
        sides: Its text side.
        n_images: B.
        checkpointed: Whether the image tower computes its activations again in the backward pass.
    """

    def __init__(self, sides: Sides, n_images: int, *, checkpointed: bool = False):
        clip_model, size = sides.clip_model, sides.clip_model.visual.input_resolution
        self.sides, self.learner, self.scale = sides, sides.learner, clip_model.logit_scale.exp()
        self.tower = clip_model.visual.checkpointed() if checkpointed else clip_model.visual
        self.images = torch.randn(n_images, 3, size, size, device=device())
        self.labels = torch.arange(n_images, device=device()) % sides.n_classes
        self.anchors = drawn_features(clip_model, sides.n_classes)
        self.optim = torch.optim.SGD(self.learner.parameters(), lr=0.0, momentum=0.9)  # 0: each round is the same

    def seconds(self, side: str) -> dict[str, float]:
        """Does a step with this text side; returns the seconds of each part."""
        self.learner.zero_grad()
        frozen = {"frozen image forward": self.encode_frozen} if self.sides.method == "PromptSRC" else {}
        parts = {
            "text forward": partial(self.encode_text, side),
            "image forward": self.encode_images,
            **frozen,
            "loss": self.cut_at_features,
            "text backward": lambda: self.text.backward(self.text_gradient),
            "image backward": lambda: self.image.backward(self.image_gradient),
            "optimiser": self.optim.step,
        }
        return {name: timed(part) for name, part in parts.items()}

    def gradient(self, side: str) -> Tensor:
        self.seconds(side)
        return self.sides.gradient()

    def encode_text(self, side: str) -> None:
        self.text = unit(self.sides.encode(side))  # (C, E)

    def encode_images(self) -> None:
        self.image = unit(self.tower(self.images, self.learner.vision_prompts()))  # (B, E)

    @torch.no_grad()
    def encode_frozen(self) -> None:
        self.frozen = unit(self.tower(self.images))

    def cut_at_features(self) -> None:
        """Computes the loss and its gradients by the features of both towers."""
        text, image = (features.detach().requires_grad_() for features in (self.text, self.image))
        self.text_gradient, self.image_gradient = torch.autograd.grad(self.loss(text, image), (text, image))

    def loss(self, text: Tensor, image: Tensor) -> Tensor:
        logits = self.scale * image @ text.t()
        loss = F.cross_entropy(logits, self.labels)
        if self.sides.method == "MaPLe":
            return loss
        log_p, log_p_0 = (x.log_softmax(dim=-1) for x in (logits, self.scale * self.frozen @ self.anchors.t()))
        divergence = (log_p_0.exp() * (log_p_0 - log_p)).mean()
        of_text, of_images = (text - self.anchors).abs().mean(), (image - self.frozen).abs().mean()
        return loss + TEXT_LOSS_WEIGHT * of_text + IMAGE_LOSS_WEIGHT * of_images + divergence


def build_step(method: str, n_classes: int, n_images: int, prec: str, side: str, checkpointed: bool) -> Callable:
    """Returns the training step with one text side."""
    return partial(Step(Sides(build_clip(prec), method, n_classes), n_images, checkpointed=checkpointed).seconds, side)


def compare_text(report: Report, args: argparse.Namespace, clip_model: CLIP, method: str) -> None:
    """Reports both text sides of a method."""
    sides = Sides(clip_model, method, args.classes)
    report.compare_sides(f"{method}, text", sides, repeats=args.repeats, prec=args.prec)


def compare_steps(report: Report, args: argparse.Namespace, clip_model: CLIP, method: str) -> None:
    """Reports a training step with both text sides, its parts, and what activation checkpointing costs."""
    sides = Sides(clip_model, method, args.classes)
    step, checkpointed = (Step(sides, args.images, checkpointed=value) for value in (False, True))
    difference = relative(step.gradient("ours").clone(), step.gradient("naive"))
    flops = count_flops(partial(step.seconds, "ours"))
    steps = partial(step.seconds, "naive"), partial(step.seconds, "ours"), partial(checkpointed.seconds, "ours")
    *rounds, rates = alternate(args.repeats, *steps, partial(matmul_rate, args.prec))
    naive_s, ours_s, checkpointed_s = ([sum(parts.values()) for parts in side] for side in rounds)
    measured = {"positions": sides.positions, "flops": flops, "rates": rates, "difference": difference}
    report.compare(f"{method}, step", naive_s, ours_s, **measured)
    for part in rounds[1][0]:
        naive_part_s, our_part_s = ([parts[part] for parts in side] for side in rounds[:2])
        share = statistics.median(seconds / whole for seconds, whole in zip(our_part_s, ours_s))
        report.compare(f"{method}, {part}", naive_part_s, our_part_s, note=f"{share:.0%} of our step")
    longer = statistics.median(again / once for again, once in zip(checkpointed_s, ours_s))
    report.compare(f"{method}, checkpointed", naive_s, checkpointed_s, note=f"{longer:.2f} times our step as it is")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_memory(parser)
    add_precision(parser)
    parser.add_argument("--classes", type=int, default=100, help="number of classes (default: %(default)s)")
    parser.add_argument("--images", type=int, default=4, help="images of a training batch (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.keep_memory:
        keep_freed_memory()
    report = Report("deep_prompts", args, f"ViT-B/16, C = {args.classes}, B = {args.images}, {args.prec}")
    clip_model = build_clip(args.prec)
    for method in TEXT:
        compare_text(report, args, clip_model, method)
    for method in STEPS:
        compare_steps(report, args, clip_model, method)
    print("\npeak memory of a training step")
    for method in STEPS:
        size = method, args.classes, args.images, args.prec
        for case, side in (("naive", "naive"), ("ours", "ours"), ("checkpointed", "ours")):
            report.memory(f"{method}, {case}", *peak_memory(build_step, *size, side, case == "checkpointed"))
    report.write()


if __name__ == "__main__":
    main()
