"""The training loop, the same for every method: what a step is, a method says in `forward_backward`."""

from __future__ import annotations

import datetime
import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from yacs.config import CfgNode as CN

from .data import DataManager
from .distributed import is_first_rank, n_ranks, sum_over_ranks
from .evaluator import build_evaluator
from .features import ViewBatches
from .files import missing_path
from .log import AverageMeter, MetricMeter, progress
from .samplers import batch_share
from .tester import Tester

logger = logging.getLogger(__name__)


class TrainerX(Tester):
    """A method on a data set: builds both, trains, validates and tests.

    A method is a subclass. It must define `build_model`, which calls `register_model` for what is trained;
    `forward_backward(batch)`, one optimisation step, which returns its losses by name; and
    `model_inference(images)`, from (B, 3, H, W) to logits (B, C). The loop steps the schedules.

    Class attributes:
        not_in_identity: The method's keys that change how it computes, not what: another value is still the same run.
        loop_steps_schedules: Whether the loop steps the schedules; False for a method that does it itself.
    """

    not_in_identity: tuple[str, ...] = ()
    loop_steps_schedules = True

    @staticmethod
    def add_config(cfg: CN) -> None:
        """Declares the method's own keys in the default config."""

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        """Returns what is wrong with the method's own keys, one message each."""
        return []

    def __init__(self, cfg: CN):
        super().__init__(cfg)
        self.check_cfg(cfg)
        self.build_data_loader()
        self.check_splits()
        self.build_model()
        self.load_init_weights()
        self.features = self.build_features()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.results: dict[str, Any] = {}  # of the last test
        self.num_batches = 0  # of an epoch, while training
        self.writer: SummaryWriter | None = None  # while training

    def check_cfg(self, cfg: CN) -> None:
        """Raises what is wrong with `cfg` and cannot be seen before the trainer is built."""

    def build_data_loader(self) -> None:
        """Builds the data set and its loaders."""
        self.dm = DataManager(self.cfg)
        self.train_loader_x, self.val_loader = self.dm.train_loader_x, self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes, self.lab2cname = self.dm.num_classes, self.dm.lab2cname

    def check_splits(self) -> None:
        """Raises what the config asks for and the data set does not have, before any work is done."""
        splits = {"val": self.val_loader, "test": self.test_loader}
        name, wanted = self.cfg.DATASET.NAME, self.cfg.TEST.SPLIT
        if not self.cfg.TEST.NO_TEST and splits[wanted] is None:
            raise ValueError(f"TEST.SPLIT is {wanted}, expected a split that {name} has. Set TEST.SPLIT.")
        if not self.cfg.TEST.NO_TEST:
            self.check_ranks(splits[wanted], wanted)
        if self.cfg.RUN.EVAL_ONLY:
            return
        if self.train_loader_x is None:
            raise ValueError(
                f"The data set {name} has no training items, expected some. It is for testing: give --eval-only with "
                "--model-dir."
            )
        if self.cfg.TEST.FINAL_MODEL == "best_val" and self.val_loader is None:
            raise ValueError(
                f"TEST.FINAL_MODEL is best_val, expected last_step: the data set {name} has no validation items."
            )
        self.check_ranks(self.train_loader_x, "training")

    def check_ranks(self, loader: DataLoader, split: str) -> None:
        """Raises if there are more ranks than items."""
        if n_ranks() > 1 and n_ranks() > len(loader.dataset):
            raise ValueError(
                f"The number of ranks is {n_ranks()}, expected at most {len(loader.dataset)}, the {split} items of "
                f"{self.cfg.DATASET.NAME}. Lower torchrun's --nproc_per_node or --nnodes."
            )

    def build_model(self) -> None:
        """Builds the model and registers its trained part."""
        raise NotImplementedError

    def forward_backward(self, batch: dict) -> dict[str, float]:
        """Does one optimisation step on a batch and returns its losses by name."""
        raise NotImplementedError

    def half_at_once(self) -> dict[str, int]:
        """Returns the keys that decide how much is computed at once, with half of what is, best first."""
        loader = self.cfg.DATALOADER
        sizes = {"DATALOADER.TEST.BATCH_SIZE": loader.TEST.BATCH_SIZE}
        if not self.cfg.RUN.EVAL_ONLY:
            sizes["DATALOADER.TRAIN_X.BATCH_SIZE"] = loader.TRAIN_X.BATCH_SIZE
        return {key: size // 2 for key, size in sizes.items() if size > 1}

    def result_fields(self) -> dict[str, Any]:
        """Returns the method's own entries of results.json."""
        return {}

    def checkpoint_fields(self) -> dict[str, Any]:
        return {"trainer": self.cfg.TRAINER.NAME, "classnames": list(self.dm.dataset.classnames)}

    # The loop

    def train(self) -> None:
        """Trains from the last checkpoint, or from the start, to MAX_EPOCH; then tests."""
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_train(self) -> None:
        """Resumes if RESUME or OUTPUT_DIR holds a checkpoint."""
        self.start_epoch = self.epochs_done = self.resume_model_if_exist(self.cfg.RESUME or self.output_dir)
        if self.cfg.RESUME and not self.start_epoch:
            marker = Path(self.cfg.RESUME) / next(iter(self.models)) / "checkpoint"
            raise FileNotFoundError(missing_path(marker, "RESUME's file", "Correct --resume, or leave it out."))
        if self.cfg.INPUT.VIEWS:
            self.train_loader_x = ViewBatches(self.features, self.train_loader_x, self.cfg.INPUT.VIEWS)
        self.num_batches, self.batch_share = len(self.train_loader_x), batch_share(self.train_loader_x)
        if is_first_rank():
            self.writer = SummaryWriter(self.output_dir / "tensorboard", purge_step=self.start_epoch * self.num_batches)
        self.time_start_s = time.monotonic()

    def before_epoch(self) -> None:
        """Draws the epoch's order and augmentations."""
        self.dm.set_epoch(self.epoch)

    def run_epoch(self) -> None:
        """One pass over the training items."""
        self.set_model_mode("train")
        losses, batch_time_s, data_time_s = MetricMeter(), AverageMeter(), AverageMeter()
        start_s = time.monotonic()
        for self.batch_idx, batch in enumerate(progress(self.train_loader_x, f"epoch {self.epoch + 1}")):
            data_time_s.update(time.monotonic() - start_s)
            losses.update(self.over_all_ranks(self.forward_backward(batch)))
            batch_time_s.update(time.monotonic() - start_s)
            self.log_batch(losses, batch_time_s, data_time_s)
            start_s = time.monotonic()
        self.read_losses(losses)
        if self.loop_steps_schedules:
            self.update_lr()
        self.epochs_done = self.epoch + 1

    def over_all_ranks(self, losses: dict[str, float | torch.Tensor]) -> dict[str, float | torch.Tensor]:
        """Returns the losses of a whole batch from those of this rank's share of it."""
        if n_ranks() == 1:
            return losses
        own = [torch.as_tensor(value, dtype=torch.float32, device=self.device).reshape(()) for value in losses.values()]
        return dict(zip(losses, sum_over_ranks(torch.stack(own) * self.batch_share)))

    def after_epoch(self) -> None:
        """Validates if the best model is wanted; saves."""
        done = self.epochs_done
        if self.cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(done, val_result=result, is_best=True)
        frequency = self.cfg.TRAIN.CHECKPOINT_FREQ
        asked_for = done == self.max_epoch or (frequency > 0 and done % frequency == 0)
        if asked_for or time.monotonic() - self.last_saved_s >= self.cfg.TRAIN.CHECKPOINT_SECONDS:
            self.roll_model(done, val_result=self.best_result)

    def after_train(self) -> None:
        """Tests the final model."""
        logger.info("Finish training")
        self.results = {}  # not those of the last validation
        if not self.cfg.TEST.NO_TEST:
            best = self.cfg.TEST.FINAL_MODEL == "best_val"
            logger.info("Deploy the %s", "model with the best val performance" if best else "last-step model")
            if best:
                self.load_model(self.output_dir)
            self.test()
        logger.info("Elapsed: %s", datetime.timedelta(seconds=round(time.monotonic() - self.time_start_s)))
        self.close_writer()

    def log_batch(self, losses: MetricMeter, batch_time_s: AverageMeter, data_time_s: AverageMeter) -> None:
        """Reads the losses and logs a line with the time that is left, every PRINT_FREQ batches."""
        done, lr = self.batch_idx + 1, self.get_current_lr()
        step = self.epoch * self.num_batches + self.batch_idx
        self.write_scalar("train/lr", lr, step)
        if done % self.cfg.TRAIN.PRINT_FREQ == 0 or self.num_batches < self.cfg.TRAIN.PRINT_FREQ:
            self.read_losses(losses)
            left = self.max_epoch * self.num_batches - step - 1
            eta = datetime.timedelta(seconds=int(batch_time_s.average * left))
            logger.info(
                f"epoch [{self.epoch + 1}/{self.max_epoch}] batch [{done}/{self.num_batches}] "
                f"time {batch_time_s.value:.3f} ({batch_time_s.average:.3f}) "
                f"data {data_time_s.value:.3f} ({data_time_s.average:.3f}) {losses} lr {lr:.4e} eta {eta}"
            )

    def read_losses(self, losses: MetricMeter) -> None:
        """Writes the losses since the last call, up to this batch, to TensorBoard; raises if one is no number."""
        self.check_losses()
        read = losses.read()
        first = self.epoch * self.num_batches + self.batch_idx + 1 - len(read)
        for step, values in enumerate(read, start=first):
            for name, value in values.items():
                self.write_scalar(f"train/{name}", value, step)

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Writes a value to TensorBoard while training."""
        if self.writer is not None:
            self.writer.add_scalar(tag, scalar_value, global_step)

    def close_writer(self) -> None:
        """Closes TensorBoard's file."""
        if self.writer is not None:
            self.writer.close()
