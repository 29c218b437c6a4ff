"""The tiny experiment whose runs, written by earlier code, lie in tests/golden/earlier.tar.xz: images, configs, flags.

No pixel is drawn at random and no file is compressed, so every machine and library writes the same bytes. CLIP is the
one of `shapes`, which the project ships.
"""

import os
from pathlib import Path

import numpy as np

CLASSES = ("red circle", "green star", "blue square")
N_ITEMS = {"train": 4, "val": 2, "test": 5}  # images of each class
SIZE, CHANGED_S = 24, 1_600_000_000  # pixels; when the files were changed
TRAINER_YAML = """
DATALOADER: {NUM_WORKERS: 0, TRAIN_X: {BATCH_SIZE: 4}, TEST: {BATCH_SIZE: 8}}
INPUT: {SIZE: "(48, 48)", TRANSFORMS: [random_resized_crop, random_flip, normalize]}
MODEL: {BACKBONE: {NAME: ViT-T/8-shapes}}
OPTIM: {NAME: sgd, LR: 0.01, MAX_EPOCH: 3, LR_SCHEDULER: cosine}
TRAIN: {PRINT_FREQ: 1}
TEST: {FINAL_MODEL: best_val}
TRAINER: {COOP: {PREC: fp32, N_CTX: 2}, COCOOP: {PREC: fp32, N_CTX: 2}}
"""
RUNS = {  # folder: the words that it differs by
    "coop": (),
    "coop_csc": ("TRAINER.COOP.CSC", "True"),
    "cocoop": ("TRAINER.NAME", "CoCoOp"),
    "views": ("INPUT.VIEWS", "2", "FEATURES.DIR", "features"),
}


def write_experiment(folder: Path) -> None:
    """Writes data/SPLIT/CLASS/I.ppm, tiny.yaml and folder.yaml into the folder that the calls are made in."""
    for split, n_items in N_ITEMS.items():
        for label, classname in enumerate(CLASSES):
            for index in range(n_items):
                path = folder / "data" / split / classname / f"{index}.ppm"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"P6 {SIZE} {SIZE} 255\n".encode() + draw(label, index).tobytes())
                os.utime(path, (CHANGED_S, CHANGED_S))
    (folder / "tiny.yaml").write_text(TRAINER_YAML)
    (folder / "folder.yaml").write_text("DATASET: {NAME: Folder}\n")


def draw(label: int, index: int) -> np.ndarray:
    """(24, 24, 3) uint8: a pattern, brighter in the channel of the class; in some images hardly."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.stack(
        [(x * (31 + index) + y * (17 + 2 * index) + x * y * (channel + 3)) % 120 for channel in range(3)], 2
    )
    image[:, :, label] += (5, 60, 15, 100, 30)[index]
    return image.astype(np.uint8)


def words(run: str, *pairs: str, output_dir: str = "") -> list[str]:
    """train.py's words for one of RUNS; `pairs` are KEY, VALUE, ... on top."""
    flags = ["--root=data", f"--output-dir={output_dir or run}", "--seed=1", "--trainer=CoOp"]
    files = ["--config-file=tiny.yaml", "--dataset-config-file=folder.yaml"]
    return [*flags, *files, "USE_CUDA", "False", "FEATURES.DIR", "", *RUNS[run], *pairs]
