"""A tiny run on real code paths: a folder of small images, a golden-size CLIP in a file, a config that joins them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from yacs.config import CfgNode as CN

import datasets  # noqa: F401  registers the data sets
import train
import trainers  # noqa: F401  registers the trainers
from engine.config.load import check_cfg, full_default, merge, require
from engine.log import close_logging
from engine.registry import TRAINER_REGISTRY
from engine.run.folder import read_results
from engine.trainer import TrainerX
from tests.support.tiny_clip import VISION, golden_state_dict

CLASSES = ("face", "leopard", "wine_bottle")
N_ITEMS = {"train": 4, "val": 2, "test": 3}  # images of each class
TRAINER_YAML = """
DATALOADER: {NUM_WORKERS: 1, TRAIN_X: {BATCH_SIZE: 4}, TEST: {BATCH_SIZE: 4}}
INPUT: {SIZE: "(32, 32)", TRANSFORMS: [random_resized_crop, random_flip, normalize]}
OPTIM: {NAME: sgd, LR: 0.1, MAX_EPOCH: 3, LR_SCHEDULER: cosine}
TRAIN: {PRINT_FREQ: 1}
TRAINER: {COOP: {PREC: fp32, N_CTX: 2}}
"""


def write_images(root: Path, *, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """Writes root/SPLIT/CLASS/I.png, 40 x 36 px of noise around a colour for each class."""
    rng = np.random.default_rng(5)
    for split in splits:
        for c, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(N_ITEMS[split]):
                pixels = rng.integers(0, 100, (36, 40, 3), dtype=np.uint8)
                pixels[:, :, c] += 150
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def write_clip(path: Path, kind: str = "vit") -> Path:
    """Saves the golden CLIP of this kind as a plain state dict."""
    torch.save(golden_state_dict(kind), path)
    return path


def valid_cfg(**values) -> CN:
    """A config of CoOp without errors, of no file; `values` with __ for the dots of a key."""
    cfg = full_default()
    named = {"TRAINER.NAME": "CoOp", "DATASET.NAME": "Shapes", "MODEL.BACKBONE.NAME": "RN50", "SEED": 1}
    require(merge(cfg, {**named, **{key.replace("__", "."): value for key, value in values.items()}}, "test"))
    return cfg


def tiny_cfg(data: Path, clip_path: Path, output_dir: Path, *pairs, kind: str = "vit") -> CN:
    """Two epochs of CoOp, M = 2, batches of 4, float32; `pairs` are KEY, VALUE, ... on top. Frozen."""
    size = VISION[kind]["image_resolution"]
    values = {
        "OUTPUT_DIR": str(output_dir),
        "SEED": 1,
        "USE_CUDA": False,
        "INPUT.SIZE": (size, size),
        "INPUT.TRANSFORMS": ("random_resized_crop", "random_flip", "normalize"),
        "DATASET.NAME": "Folder",
        "DATASET.ROOT": str(data),
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.TRAIN_X.BATCH_SIZE": 4,
        "DATALOADER.TEST.BATCH_SIZE": 4,
        "MODEL.BACKBONE.NAME": str(clip_path),
        "OPTIM.NAME": "sgd",
        "OPTIM.LR": 0.02,
        "OPTIM.MAX_EPOCH": 2,
        "OPTIM.LR_SCHEDULER": "cosine",
        "TRAIN.PRINT_FREQ": 1,
        "TRAINER.NAME": "CoOp",
        "TRAINER.COOP.N_CTX": 2,
        "TRAINER.COOP.PREC": "fp32",
        "TRAINER.ZSCLIP.PREC": "fp32",
    }
    values.update(zip(pairs[::2], pairs[1::2], strict=True))
    cfg = full_default()
    require(merge(cfg, values, "test") + check_cfg(cfg))
    cfg.freeze()
    return cfg


def train_flags(folder: Path, data: Path, clip_path: Path, *, yaml: str = TRAINER_YAML) -> list[str]:
    """train.py's flags for a tiny run of CoOp, but for --output-dir; its two config files are written to a folder."""
    (folder / "tiny.yaml").write_text(yaml)
    (folder / "folder.yaml").write_text("DATASET: {NAME: Folder}\n")
    flags = [f"--root={data}", "--seed=1", "--trainer=CoOp", f"--backbone={clip_path}"]
    return [*flags, f"--config-file={folder}/tiny.yaml", f"--dataset-config-file={folder}/folder.yaml"]


def build_trainer(cfg: CN) -> TrainerX:
    """Builds the trainer that the config names."""
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)


def run_train(cfg: CN) -> dict:
    """Calls train.py's `run`; returns what results.json holds, which log.txt lies beside."""
    try:
        train.run(cfg)
    finally:
        close_logging()
    return read_results(cfg.OUTPUT_DIR)


def own_warnings(results: dict) -> list[str]:
    """The warnings of a run's results, but for the one that its tiny CLIP's weights are not OpenAI's."""
    of_weights = [text for text in results["warnings"] if re.match(r"The weights \S+ are not OpenAI's", text)]
    assert len(of_weights) <= 1
    return [text for text in results["warnings"] if text not in of_weights]


def repeatable(folder: Path) -> dict:
    """What a run's results say that another call makes again: not where it was computed, nor at what cost.

    Nor the temperature to the bit: a feature differs in its last ones with the images that are encoded beside it.
    """
    results = read_results(folder)
    temperature = results["temperature"] and pytest.approx(results["temperature"], rel=1e-4)
    kept = {key: value for key, value in results.items() if key not in ("provenance", "cost")}
    return {**kept, "temperature": temperature}
