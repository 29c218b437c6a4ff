"""How fast a large data set is listed and checked, and how much memory its list takes.

Run:   python -m benchmarks.data [--repeats 9] [--images-per-class 200]
A tree of 1,000 class folders of empty files, called as ImageNet's training images are, is made in a temporary folder;
1281 per class make it as large as ImageNet and take some minutes. Listing it is compared with `find` on the same tree,
whose output nobody reads; times are medians over alternating rounds after one that is not counted. Peak memory is the
largest resident size of a process of its own that lists the tree and draws 16 shots, beside that of one that only
imports the same (Linux). Checking is that of a split file's 50,000 small files, without decoding them.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.base import FewShotDataset, draw_few_shots, draw_split, write_split
from datasets.imagenet_files import ImageNetFiles

from .measure import peak_memory, timed

FOLDERS = [f"n{number:08d}" for number in range(1440764, 1440764 + 14000, 14)]
N_CHECKED = 50_000  # items, of 100 classes


class Listed(ImageNetFiles):
    """Class folders of made-up names."""

    dataset_dir = "listed"
    image_dir = "images"
    folders_sha256 = hashlib.sha256("\n".join(FOLDERS).encode()).hexdigest()


class Checked(FewShotDataset):
    """A data set with a split file."""

    dataset_dir = "checked"
    image_dir = "images"
    split_file = "split.json"
    n_classes = 100
    n_items = (N_CHECKED // 2, N_CHECKED // 5, N_CHECKED * 3 // 10)


def make_listed(root: Path, n_images: int) -> Path:
    """Makes the tree and returns the folder of the class folders."""
    images = root / Listed.dataset_dir / Listed.image_dir
    for folder in FOLDERS:
        (images / folder).mkdir(parents=True)
        for i in range(n_images):
            (images / folder / f"{folder}_{i * 7919 % 20011}.JPEG").touch()
    lines = [f"{folder} thing {i}\n" for i, folder in enumerate(FOLDERS)]
    (images.parent / "classnames.txt").write_text("".join(lines))
    return images


def make_checked(root: Path) -> None:
    """Makes the files of a data set and its split file."""
    images = root / Checked.dataset_dir / Checked.image_dir
    for label in range(Checked.n_classes):
        (images / f"{label:03d}").mkdir(parents=True)
        for i in range(N_CHECKED // Checked.n_classes):
            (images / f"{label:03d}" / f"{i:03d}.jpg").write_bytes(b"not empty")
    write_split(images.parent / Checked.split_file, images, *draw_split(Checked.list_items(images), 1))


def find(images: Path) -> None:
    subprocess.run(["find", str(images), "-type", "f"], stdout=subprocess.DEVNULL, check=True)


def build_draw(root: Path | None) -> Callable:
    """Returns the step that lists the tree under root and draws from it; None: one that does nothing."""
    return lambda: root and draw_few_shots(Listed.read_items(root)[-1], [], shots=16, seed=1)


def compare_with_find(root: Path, n_images: int, repeats: int) -> None:
    """Prints times and memory of listing the tree."""
    images = make_listed(root, n_images)
    items = Listed.read_items(root)[-1]
    assert len(items) == len(FOLDERS) * n_images, f"{len(items)} items, expected {len(FOLDERS) * n_images}"
    times = [(timed(lambda: find(images)), timed(lambda: Listed.read_items(root))) for _ in range(repeats + 1)][1:]
    found, listed = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{len(items):,} images listed: find {found:.3f} s, list {listed:.3f} s, ratio {listed / found:.2f}")
    (with_list, _), (without, _) = (peak_memory(build_draw, where) for where in (root, None))
    print(f"peak memory: {with_list:.2f} GB, without the list {without:.2f} GB", flush=True)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="alternating runs of each side, for the median")
    parser.add_argument("--images-per-class", type=int, default=200, help="empty files in each of the 1,000 folders")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        compare_with_find(root, args.images_per_class, args.repeats)
        make_checked(root)
        seconds = statistics.median(timed(lambda: Checked.check(root)) for _ in range(3))
        report = Checked.check(root)
        assert report.ok, str(report)
        print(f"{N_CHECKED:,} items of a split file checked in {seconds:.2f} s")


if __name__ == "__main__":
    main()
