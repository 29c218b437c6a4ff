"""One image through an exported ONNX file and through this project in torch: time and difference.

Run:   python -m benchmarks.onnx [--backbones RN50 ViT-B/16 ViT-B/32] [--batch 1] [--precision fp32] [--repeats 15]
Zero-shot classifiers of CLIPs with random weights for Caltech-101's hundred names, from normalised pixels to logits, on
the CPU; onnxruntime has as many threads as torch. Both sides run in turn, each so many times in a round that it lasts
about half a second; the ratio is the median over rounds after one that is not counted, torch's time by onnxruntime's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clip.model import CLIP
from inference.classifier import Classifier
from inference.onnx import write_onnx

from .measure import alternate, machine, timed
from .runs import RN50
from .text_encoder import CALTECH101

VIT = {**RN50, "embed_dim": 512, "vision_layers": 12, "vision_width": 768}
SIZES = {"RN50": RN50, "ViT-B/32": {**VIT, "vision_patch_size": 32}, "ViT-B/16": {**VIT, "vision_patch_size": 16}}
ROUND_S = 0.5


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=SIZES, default=["RN50", "ViT-B/16"], metavar="NAME")
    parser.add_argument("--batch", type=int, default=1, help="images at once (default: %(default)s)")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="of the file")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of both sides (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    print(", ".join(f"{name} {value}" for name, value in machine().items()), f"onnxruntime {version('onnxruntime')}")
    for name in args.backbones:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, args, *build_sides(SIZES[name], args.precision, Path(folder)))


def build_sides(sizes: dict, precision: str, folder: Path) -> tuple[Callable, Callable, int]:
    """Returns what takes pixels (N, 3, H, W) to logits (N, C) in torch and in onnxruntime, and the resolution."""
    import onnxruntime  # of the extra `export`

    torch.manual_seed(0)
    torch.save(CLIP(**sizes).state_dict(), folder / "random.pt")
    classifier = Classifier.zero_shot(folder / "random.pt", CALTECH101, device="cpu")
    trainer = classifier.trainer
    write_onnx(trainer, classifier.head, folder / "out", {}, precision=precision)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / "out/classifier.onnx", options, ["CPUExecutionProvider"])
    in_torch = torch.inference_mode()(trainer.model_inference)
    return in_torch, lambda images: session.run(None, {"images": images.numpy()})[0], sizes["image_resolution"]


def compare(name: str, args: argparse.Namespace, in_torch: Callable, in_onnx: Callable, resolution: int) -> None:
    """Measures both sides and prints a line."""
    images = torch.randn(args.batch, 3, resolution, resolution)
    off = np.abs(in_onnx(images) - in_torch(images).numpy()).max()
    sides = [partial(round_of, side, images) for side in (in_torch, in_onnx)]
    torch_s, onnx_s = (times[1:] for times in alternate(args.repeats + 1, *sides))
    ratios = [one / other for one, other in zip(torch_s, onnx_s, strict=True)]
    print(
        f"{name:10} batch {args.batch}, {args.precision}: torch {statistics.median(torch_s) * 1e3:.1f} ms, onnxruntime "
        f"{statistics.median(onnx_s) * 1e3:.1f} ms, ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} - {max(ratios):.2f}), largest difference of logits {off:.1e}",
        flush=True,
    )


def round_of(side: Callable, images: Tensor) -> float:
    """Mean seconds of a side's call."""
    first_s = timed(partial(side, images))
    return timed(partial(side, images), n=max(1, round(ROUND_S / first_s)))


if __name__ == "__main__":
    main()
