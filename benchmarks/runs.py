"""A run of CoOp as scripts/coop/main.sh starts it, and the same run computed naively, part by part.

Naively: in each step and for each test batch all 77 positions of every prompt pass the text tower; in each epoch and
each evaluation the pixels of every image pass the image tower. With another `--prec` than fp32 the naive run is
computed in float32, too, and compared in rows of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import train
from clip.clip import load
from clip.model import CLIP, convert_weights
from engine import TRAINER_REGISTRY, TrainerX, set_random_seed
from engine.data.manager import build_data_loader
from engine.data.transforms import build_transform
from engine.device import keep_freed_memory
from engine.features.reader import open_digests
from trainers.backbone import PRECISIONS
from trainers.base import TextEncoder

from .measure import add_arguments, add_precision, timed

RN50 = {
    "embed_dim": 1024,
    "image_resolution": 224,
    "vision_layers": (3, 4, 6, 3),
    "vision_width": 64,
    "vision_patch_size": None,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 512,
    "transformer_heads": 8,
    "transformer_layers": 12,
}
NAIVE_FP32 = ", naive fp32"  # ends the name of a case in which only ours has the precision of --prec


def add_run_arguments(parser: argparse.ArgumentParser, *, cfg: str, test_batches: int) -> None:
    """Declares what all benchmarks of whole runs take."""
    add_arguments(parser)
    add_precision(parser)
    root = os.environ.get("DATA")
    parser.add_argument("--root", default=root, required=not root, help="folder of the data sets (default: $DATA)")
    parser.add_argument("--dataset", default="caltech101", help="configs/datasets/DATASET.yaml (default: %(default)s)")
    parser.add_argument("--cfg", default=cfg, help="configs/trainers/CoOp/CFG.yaml (default: %(default)s)")
    parser.add_argument("--backbone", help="name or path of a CLIP (default: RN50 with random weights)")
    parser.add_argument(
        "--test-batches", type=int, default=test_batches, help="batches of a test, 0: all (default: %(default)s)"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")


def in_folder(compare: Callable[[argparse.Namespace, Path], None], args: argparse.Namespace) -> None:
    """Calls `compare(args, folder)` in a temporary folder; where no backbone is named, with a random RN50 in it."""
    with tempfile.TemporaryDirectory() as folder:
        args.backbone = args.backbone or write_rn50(Path(folder))
        compare(args, Path(folder))


def write_rn50(folder: Path) -> str:
    """Saves an RN50 of random weights and returns its path."""
    torch.manual_seed(0)
    path = folder / "rn50_random.pt"
    torch.save(CLIP(**RN50).state_dict(), path)
    return str(path)


def build_run(args: argparse.Namespace, folder: Path, *pairs: object) -> TrainerX:
    """Returns the trainer of a run with seed 1.

    Args:
        args: Of `add_run_arguments`, `backbone` set.
        folder: Of its output and of its cache of features.
        pairs: KEY, VALUE, ... of the config.
    """
    words = ["--root", args.root, "--output-dir", folder / "run", "--seed", 1, "--trainer", "CoOp"]
    words += ["--backbone", args.backbone, "--dataset-config-file", f"configs/datasets/{args.dataset}.yaml"]
    words += ["--config-file", f"configs/trainers/CoOp/{args.cfg}.yaml", "TRAINER.COOP.PREC", args.prec]
    words += ["FEATURES.DIR", folder / "features", *pairs, *args.opts]
    cfg = train.setup_cfg(train.parse_args([str(word) for word in words]))
    cfg.freeze()
    set_random_seed(cfg.SEED)
    keep_freed_memory()
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)


def keep_batches(trainer: TrainerX, n: int) -> None:
    """Leaves n whole batches of the test images, evenly spread; 0: all."""
    cfg, items = trainer.cfg, trainer.test_loader.dataset.data_source
    n_images = min(n * cfg.DATALOADER.TEST.BATCH_SIZE or len(items), len(items))
    kept = [items[i * len(items) // n_images] for i in range(n_images)]
    trainer.test_loader = build_data_loader(cfg, kept, build_transform(cfg, is_train=False), is_train=False)


def import_time() -> float:
    """Returns the seconds in which a process starts and imports what train.py needs."""
    return timed(lambda: subprocess.run([sys.executable, "-c", "import train"], check=True))


def our_epoch(trainer: TrainerX) -> None:
    """Does the next epoch of our training, after `trainer.before_train()`."""
    trainer.epoch = trainer.epochs_done
    trainer.before_epoch()
    trainer.run_epoch()
    trainer.after_epoch()


def encode_views(trainer: TrainerX) -> None:
    """Encodes the views that INPUT.VIEWS asks for, as before the first epoch, after `trainer.before_train()`."""
    remove_features(trainer)
    trainer.train_loader_x.views = None
    iter(trainer.train_loader_x)


def first_test(trainer: TrainerX) -> None:
    """Does our test as the first run with this tower and these images does it."""
    remove_features(trainer)
    trainer.test()


def remove_features(trainer: TrainerX) -> None:
    shutil.rmtree(trainer.cfg.FEATURES.DIR, ignore_errors=True)
    forget_features(trainer)


def later_test(trainer: TrainerX) -> None:
    """Does our test as a later run does it, in a process that has not read the cache of features."""
    forget_features(trainer)
    trainer.test()


def forget_features(trainer: TrainerX) -> None:
    """Leaves features, and the digests of files, on disk alone."""
    trainer.features.caches.clear()
    trainer.features.digests = open_digests(trainer.cfg)


def our_logits(trainer: TrainerX) -> Tensor:
    """Returns the logits of the test images, (N, C), from their cached features."""
    with torch.no_grad():
        return torch.cat([logits for logits, _ in trainer.predictions("test")])


class NaiveRun:
    """The naive computation of a run, with a CLIP of its own; data, context, optimiser and schedule are the trainer's.

    Attributes:
        positions: Positions of text in one pass of all prompts.
        logits: (N, C) of the last test.
    """

    def __init__(self, trainer: TrainerX):
        self.trainer, self.learner = trainer, trainer.models["prompt_learner"]
        self.clip_model = load(trainer.cfg.MODEL.BACKBONE.NAME, trainer.device)[0].requires_grad_(False)
        dtype = PRECISIONS[trainer.cfg.TRAINER.COOP.PREC]
        if dtype != torch.float32:
            convert_weights(self.clip_model, dtype)
        self.encode_prompts = TextEncoder(self.clip_model)
        self.positions = self.learner.layout.tokens.numel()
        self.epochs_done = 0

    def classify(self, images: Tensor) -> Tensor:
        dtype = self.learner.ctx.dtype  # float32
        image_features = F.normalize(self.clip_model.encode_image(images).type(dtype), dim=-1)
        prompts = self.learner()  # (C, L, D)
        text_features = F.normalize(self.encode_prompts(prompts, self.learner.layout.tokens).type(dtype), dim=-1)
        return self.clip_model.logit_scale.exp() * image_features @ text_features.t()

    def step(self, batch: dict) -> None:
        """Does one step of training."""
        images, labels = self.trainer.parse_batch_train(batch)
        loss = F.cross_entropy(self.classify(images), labels)
        optimizer = self.trainer.optims["prompt_learner"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # for the log

    def epoch(self) -> None:
        """Does the next epoch of training."""
        self.trainer.dm.set_epoch(self.epochs_done)
        for batch in self.trainer.train_loader_x:
            self.step(batch)
        self.trainer.scheds["prompt_learner"].step()
        self.epochs_done += 1

    @torch.no_grad()
    def test(self) -> None:
        """Tests on the pixels."""
        evaluator, logits = self.trainer.evaluator, []
        evaluator.reset()
        for batch in self.trainer.test_loader:
            images, labels = self.trainer.parse_batch_test(batch)
            logits.append(self.classify(images))
            evaluator.process(logits[-1], labels)
        evaluator.evaluate()
        self.logits = torch.cat(logits)


def naive_runs(args: argparse.Namespace, folder: Path) -> dict[str, NaiveRun]:
    """Returns the naive run in the precision of ours, and in float32 if that is another, by what each adds to a case.

    Args:
        args: Of `add_run_arguments`, `backbone` set.
        folder: Of their output and of their caches of features.
    """
    precisions = {NAIVE_FP32: "fp32", "": args.prec} if args.prec != "fp32" else {"": "fp32"}
    return {
        label: NaiveRun(build_run(args, folder / f"naive_{prec}", "TRAINER.COOP.PREC", prec))
        for label, prec in precisions.items()
    }


def build_test(side: str, args: argparse.Namespace, folder: Path) -> Callable:
    """Returns one side's test of a batch of images."""
    trainer = build_run(args, folder / side)
    keep_batches(trainer, 1)
    return naive_alone(trainer).test if side == "naive" else trainer.test


def build_step(side: str, args: argparse.Namespace, folder: Path) -> Callable:
    """Returns one side's first step of training."""
    trainer = build_run(args, folder / side)
    step = naive_alone(trainer).step if side == "naive" else trainer.forward_backward
    return lambda: step(next(iter(trainer.train_loader_x)))


def naive_alone(trainer: TrainerX) -> NaiveRun:
    """Returns the naive run of a trainer whose own CLIP is given up, so that one is in memory."""
    del trainer.model, trainer.clip_model
    return NaiveRun(trainer)
