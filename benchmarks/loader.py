"""From image files to features, the forward part of training: decoded images kept, memory kept, channels last.

Run:   python -m benchmarks.loader [--repeats 3] [--images 256] [--json FILE]
The loader reads JPEG files of 500 x 375 pixels of smooth noise, in this process, and makes a random view of each; the
naive side decodes them in every epoch, ours has kept them (DATALOADER.CACHE_GB). The towers are RN50's and ViT-B/16's
with random weights, forward on 32 images in float32; the naive side is a program that takes no care of either, ours
keeps freed memory (engine/device.py), uses MODEL.CHANNELS_LAST, or both. As memory is a matter of the whole process,
each side has one of its own. Times are medians over rounds of all sides in turn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from clip.model import ModifiedResNet, VisionTransformer
from engine import Datum, build_transform, get_cfg_default
from engine.data.manager import build_data_loader
from engine.device import keep_freed_memory

from .measure import Report, add_arguments, alternate, device, relative, timed

IMAGE_SIZE = (500, 375)  # width, height in pixels, as in many data sets
BATCH_SIZE = 32
TOWERS = {
    "RN50": lambda: ModifiedResNet((3, 4, 6, 3), 1024, 32, 224, 64),
    "ViT-B/16": lambda: VisionTransformer(224, 16, 768, 12, 12, 512),
}
WAYS = {"memory kept": (True, False), "channels last": (False, True), "both": (True, True)}  # of ours
COMPARED = {"RN50": tuple(WAYS), "ViT-B/16": ("both",)}  # channels last concerns convolutions alone


def write_files(folder: Path, size: tuple[int, int], n: int) -> list[Datum]:
    """Writes JPEG files of smooth noise, (width, height) in pixels, to a new folder, and returns their items."""
    folder.mkdir()
    generator, items = torch.Generator().manual_seed(0), []
    for i in range(n):
        noise = torch.randint(256, (24, 32, 3), dtype=torch.uint8, generator=generator)
        items.append(Datum(str(folder / f"{i}.jpg")))
        Image.fromarray(noise.numpy()).resize(size, Image.Resampling.BICUBIC).save(items[-1].impath)
    return items


def compare_reading(report: Report, args: argparse.Namespace, folder: Path) -> None:
    """Reports the epochs of a training loader with and without decoded images in memory."""
    items, loaders = write_files(folder / "files", IMAGE_SIZE, args.images), []
    for max_gb in (0.0, 2.0):
        cfg = get_cfg_default()
        cfg.SEED, cfg.DATALOADER.CACHE_GB = 1, max_gb
        cfg.INPUT.INTERPOLATION = "bicubic"
        cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
        loaders.append(build_data_loader(cfg, items, build_transform(cfg), is_train=True, n_workers=0))
    views = [torch.cat([batch["img"] for batch in loader]) for loader in loaders]
    read_s, kept_s = alternate(args.repeats, *(partial(timed, partial(list, loader)) for loader in loaders))
    report.compare(f"an epoch of {args.images} files", read_s, kept_s, difference=relative(*views))


def compare_towers(report: Report, args: argparse.Namespace, name: str) -> None:
    """Reports the forward pass of a tower."""
    context = multiprocessing.get_context("spawn")
    ways = [(False, False), *(WAYS[case] for case in COMPARED[name])]
    pools = [ProcessPoolExecutor(1, mp_context=context) for _ in ways]
    expected, *found = [pool.submit(features, name, *way).result() for pool, way in zip(pools, ways)]
    sides = [partial(_forward_in, pool, name, *way) for pool, way in zip(pools, ways)]
    naive_s, *ours = alternate(args.repeats, *sides)
    for case, ours_s, result in zip(COMPARED[name], ours, found):
        report.compare(f"{name}, {case}", naive_s, ours_s, difference=relative(result, expected))
    for pool in pools:
        pool.shutdown()


def _forward_in(pool: ProcessPoolExecutor, *way) -> float:
    return pool.submit(forward_s, *way).result()


@cache
def tower_and_images(name: str, keep_memory: bool, channels_last: bool) -> tuple[nn.Module, Tensor]:
    """Builds one side in the process that it is called in."""
    if keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    tower = TOWERS[name]().to(device()).eval().requires_grad_(False)
    if channels_last:
        tower.to(memory_format=torch.channels_last)
    return tower, torch.randn(BATCH_SIZE, 3, tower.input_resolution, tower.input_resolution, device=device())


def features(*way) -> Tensor:
    tower, images = tower_and_images(*way)
    return tower(images).cpu()


def forward_s(*way) -> float:
    """Seconds of a forward pass."""
    tower, images = tower_and_images(*way)
    return timed(partial(tower, images))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--images", type=int, default=256, help="files in an epoch (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    report = Report("loader", args, f"The image side, batches of {BATCH_SIZE}, float32")
    with tempfile.TemporaryDirectory() as folder:
        compare_reading(report, args, Path(folder))
    for name in TOWERS:
        compare_towers(report, args, name)
    report.write()


if __name__ == "__main__":
    main()
