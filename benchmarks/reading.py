"""From image files to features, part by part: images a second of each, and what bounds the whole.

Run:   python -m benchmarks.reading [--repeats 3] [--images 128] [--workers 2] [--json FILE]
The files are JPEGs of smooth noise: of 500 x 375 pixels, as in many data sets, and photographs of 4000 x 3000, decoded
whole and with INPUT.REDUCED_DECODING. One process reads bytes, decodes them, and makes a view of a test or a random
one; the loader does all of this for test views in --workers processes, their start included; the prepared tower
encodes batches of 32; "both" is what a run does, engine/features/reader.py without its cache, in at least four batches.
Freed memory is kept.

An image costs reading and tower the seconds of a core that their rates say, and whichever costs more bounds the whole.
No overlap is faster than all cores at work, nor than the tower alone: the last lines say how near "both" comes to that.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from clip.prepared import prepare
from engine import build_transform, get_cfg_default
from engine.data.image_io import read_image
from engine.data.manager import build_data_loader, count_workers
from engine.data.transforms import needed_edge
from engine.device import keep_freed_memory
from engine.features.reader import CPU_BATCH, FeatureReader
from engine.run.cores import n_cores

from .image_tower import build_tower
from .loader import IMAGE_SIZE, TOWERS, write_files
from .measure import Report, add_arguments, alternate, device, timed

SIZE = (224, 224)  # of the towers' images
PHOTO_SIZE = (4000, 3000)  # width, height in pixels: 12 megapixels
FEWER_PHOTOS = 8  # a photograph has 64 times the pixels
HEADER = f"{'files':24}{'part':28}{'images/s':>10}{'min - max':>22}"
ONE_PROCESS = ("bytes", "decoding", "test view")  # the parts of reading, each measured in one process


class Files:
    """Image files, and the parts of reading them; a method's name says the part.

    Args:
        folder: Where they are written.
        size: (width, height) in pixels.
        n: How many.
        reduced: INPUT.REDUCED_DECODING.
        n_workers: Of the loader.
    """

    def __init__(self, folder: Path, size: tuple[int, int], n: int, *, reduced: bool, n_workers: int):
        self.items, self.n_workers = write_files(folder, size, n), n_workers
        self.cfg = get_cfg_default()
        self.cfg.SEED, self.cfg.FEATURES.DIR, self.cfg.DATALOADER.NUM_WORKERS = 1, "", n_workers
        self.cfg.INPUT.SIZE, self.cfg.DATALOADER.TEST.BATCH_SIZE = SIZE, min(CPU_BATCH, max(n // 4, 1))
        self.cfg.INPUT.INTERPOLATION, self.cfg.INPUT.REDUCED_DECODING = "bicubic", reduced
        self.cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
        self.test, self.random = (build_transform(self.cfg, is_train) for is_train in (False, True))
        self.contents = [Path(item.impath).read_bytes() for item in self.items]
        self.image, self.image_of_random = (self.decode(self.contents[0], view) for view in (self.test, self.random))

    def decode(self, content: bytes, transform: Callable) -> Image.Image:
        """Decodes a file's bytes as the transform needs it."""
        return read_image("", lambda _: io.BytesIO(content), shorter_edge=needed_edge(self.cfg, [transform]))

    def parts(self) -> dict[str, Callable[[], object]]:
        """Returns what does each part for all files."""
        return {
            "bytes": lambda: take(Path(item.impath).read_bytes() for item in self.items),
            "decoding": lambda: take(self.decode(content, self.test) for content in self.contents),
            "test view": lambda: take(self.test(self.image) for _ in self.items),
            "random view": lambda: take(self.random(self.image_of_random) for _ in self.items),
            f"loader, {self.n_workers} workers": lambda: take(self.loader()),
        }

    def loader(self) -> DataLoader:
        return build_data_loader(self.cfg, self.items, self.test, is_train=False, n_workers=self.n_workers)

    def encode(self, tower: nn.Module) -> None:
        """Does what a run does from all files to their features."""
        reader = FeatureReader(self.cfg, tower)
        reader.space = "benchmark"  # in a run the weights are digested once
        reader.read(self.items)


def take(made: Iterable) -> None:
    """Goes through all that is made, and keeps nothing: a photograph has 48 MB."""
    deque(made, maxlen=0)


def measure(args: argparse.Namespace, kinds: dict[str, Files], towers: dict[str, nn.Module]) -> dict[str, dict]:
    """Returns for each kind of files, and "" for the towers alone: part -> images a second, round by round."""
    pixels = torch.randn(CPU_BATCH, 3, *SIZE, device=device())
    sides = {("", name): (partial(tower, pixels), CPU_BATCH) for name, tower in towers.items()}
    for step, _ in sides.values():
        step()  # warms up
    for case, files in kinds.items():
        parts = {**files.parts(), **{f"both, {name}": partial(files.encode, tower) for name, tower in towers.items()}}
        sides |= {(case, part): (step, len(files.items)) for part, step in parts.items()}
    seconds = alternate(args.repeats, *(partial(timed, step) for step, _ in sides.values()))
    rates: dict[str, dict] = {}
    for ((case, part), (_, n)), found in zip(sides.items(), seconds):
        rates.setdefault(case, {})[part] = [n / s for s in found]
    return rates


def bound(rates: dict[str, Sequence[float]], tower: str, tower_rates: Sequence[float]) -> dict[str, str | float]:
    """Returns what bounds the whole with a tower, by the median rates of the parts.

    reading        share of the cores' seconds that an image costs in reading
    of_fastest     rate of both together, relative to that of all cores at work all the time, or of the tower alone
                   where its threads leave cores without work
    """
    rate = {name: statistics.median(found) for name, found in rates.items()}
    reading_s = sum(1 / rate[part] for part in ONE_PROCESS) / n_cores()
    tower_s = 1 / statistics.median(tower_rates)
    if device().type == "cpu":
        of_tower_s = tower_s * torch.get_num_threads() / n_cores()  # as if all cores could share its work
        whole_s = max(reading_s + of_tower_s, tower_s)
    else:
        of_tower_s, whole_s = tower_s, max(reading_s, tower_s)
    return {
        "tower": tower,
        "bound": "the tower" if of_tower_s > reading_s else "reading",
        "reading": reading_s / (reading_s + of_tower_s),
        "of_fastest": rate[f"both, {tower}"] * whole_s,
    }


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--images", type=int, default=128, help=f"files; photographs 1/{FEWER_PHOTOS} of them")
    parser.add_argument("--workers", type=int, default=2, help="processes of the loader (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    keep_freed_memory()
    report = Report("reading", args, "From image files to features, float32", HEADER)
    n_photos = max(args.images // FEWER_PHOTOS, 2)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        towers = {name: prepare(build_tower(name)) for name in TOWERS}
        kinds = {}
        for size, n, reduced in (
            (IMAGE_SIZE, args.images, False),
            (PHOTO_SIZE, n_photos, False),
            (PHOTO_SIZE, n_photos, True),
        ):
            case = "{} x {}".format(*size) + ", reduced" * reduced
            kinds[case] = Files(Path(folder) / case, size, n, reduced=reduced, n_workers=count_workers(args.workers))
        rates = measure(args, kinds, towers)
    for case, of_parts in rates.items():
        for part, found in of_parts.items():
            spread = f"{min(found):,.1f} - {max(found):,.1f}"
            line = f"{case:24}{part:28}{statistics.median(found):>10,.1f}{spread:>22}"
            report.add({"case": case, "part": part, "images_per_s": found}, line)
    for case in kinds:
        for name in towers:
            row = bound(rates[case], name, rates[""][name])
            reached = f"both reach {row['of_fastest']:.0%} of the fastest overlap"
            said = f"reading takes {row['reading']:.0%} of the cores' time, {reached}"
            report.add({"case": case, **row}, f"{case}, {name}: {row['bound']} bounds the whole; {said}")
    report.write()


if __name__ == "__main__":
    main()
