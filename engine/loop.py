"""The training loop, the same for every method: what a step is, a method says in `forward_backward`."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from .checkpoint import MARKER
from .data.samplers import batch_share
from .distributed import any_rank, is_first_rank, n_ranks, sum_over_ranks
from .features.reader import ViewBatches
from .files import missing_path
from .interruption import Interrupted, finishing, is_asked, raise_if_asked
from .log import AverageMeter, MetricMeter, progress
from .random_state import restore_random_state
from .resume import Resumable, name_place
from .scalars import ScalarWriter

logger = logging.getLogger(__name__)


class Loop(Resumable):
    """Trains, validates and tests.

    Class attributes:
        loop_steps_schedules: Whether the loop steps the schedules; False for a method that does it itself.
    """

    loop_steps_schedules = True
    num_batches = 0  # of an epoch, while training
    writer: ScalarWriter | None = None  # while training

    def forward_backward(self, batch: dict) -> dict[str, float]:
        """Does one optimisation step on a batch and returns its losses by name."""
        raise NotImplementedError

    def train(self) -> None:
        """Trains from where it was interrupted, or from the start, to MAX_EPOCH; then tests."""
        try:
            self.before_train()
            for self.epoch in range(self.start_epoch, self.max_epoch):
                self.before_epoch()
                self.place = None  # unless `run_epoch` keeps it
                self.run_epoch()
                self.after_epoch()
            self.after_train()
        except Interrupted:
            self.save_place()
            logger.info("Interrupted%s", f" {name_place(self.place)}" if self.place else "")
            raise

    def before_train(self) -> None:
        """Resumes if OUTPUT_DIR, or else RESUME, holds a state to go on from."""
        for folder in filter(None, (self.output_dir, self.cfg.RESUME)):
            if self.place is None:
                self.start_epoch = self.epochs_done = self.resume_model_if_exist(folder)
        if self.cfg.RESUME and self.place is None:
            self.refuse_resume()
        if self.cfg.RESUME and self.start_epoch == self.max_epoch:
            self.save_model(self.start_epoch, val_result=self.best_result)  # for tests that look for it here
        if self.cfg.INPUT.VIEWS:
            n_views = min(self.cfg.INPUT.VIEWS, self.max_epoch)
            self.train_loader_x = ViewBatches(self.features, self.train_loader_x, n_views)
        self.num_batches, self.batch_share = len(self.train_loader_x), batch_share(self.train_loader_x)
        if is_first_rank():
            step = self.start_epoch * self.num_batches + self.first_batch
            self.writer = ScalarWriter(self.output_dir / "tensorboard", purge_step=step)
        self.time_start_s = time.monotonic()

    def refuse_resume(self) -> None:
        """Raises what is wrong with RESUME, where nothing to go on from was found."""
        marker = Path(self.cfg.RESUME) / next(iter(self.models)) / MARKER
        if not marker.exists():
            raise FileNotFoundError(missing_path(marker, "RESUME's file", "Correct --resume, or leave it out."))
        raise ValueError(f"RESUME is {self.cfg.RESUME}, expected a folder with a whole checkpoint. Name another one.")

    def before_epoch(self) -> None:
        """Draws the epoch's order and augmentations."""
        self.dm.set_epoch(self.epoch)

    def run_epoch(self) -> None:
        """One pass over the training items, or over what an interrupted one has left of them."""
        first, self.first_batch = self.first_batch, 0
        if first:
            self.dm.set_epoch(self.epoch, first)
        else:
            self.keep_place(self.epoch, 0)
        self.set_model_mode("train")
        batches = iter(self.train_loader_x)
        if first:
            restore_random_state(self.first_random)  # what comes before may have drawn, now a second time
            self.keep_place(self.epoch, first)
        if first < self.num_batches:
            with finishing():
                self.run_steps(batches, first)
        self.epochs_done = self.epoch + 1

    def run_steps(self, batches: Iterator[dict], first: int) -> None:
        """Does the steps of an epoch from batch `first` on. A signal waits until a step is done."""
        self.place = None
        losses, batch_time_s, data_time_s = MetricMeter(), AverageMeter(), AverageMeter()
        start_s = time.monotonic()
        bar = progress(batches, f"epoch {self.epoch + 1}", n_done=first, n=self.num_batches)
        for self.batch_idx, batch in enumerate(bar, start=first):
            data_time_s.update(time.monotonic() - start_s)
            losses.update(self.over_all_ranks(self.forward_backward(batch)))
            batch_time_s.update(time.monotonic() - start_s)
            self.log_batch(losses, batch_time_s, data_time_s)
            if self.batch_idx + 1 < self.num_batches:
                self.after_step(losses)
            start_s = time.monotonic()
        self.read_losses(losses)
        if self.loop_steps_schedules:
            self.update_lr()
        self.keep_place(self.epoch, self.num_batches)

    def after_step(self, losses: MetricMeter) -> None:
        """Saves where the run stands, if it is time or somebody asks it to end; then it does."""
        if not self.can_begin_later():
            raise_if_asked()
        elif any_rank([is_asked() or self.is_due()])[0]:
            self.read_losses(losses)
            if self.writer is not None:
                self.writer.flush()
            self.keep_place(self.epoch, self.batch_idx + 1)
            self.save_place()
            raise_if_asked()
            self.place = None

    def can_begin_later(self) -> bool:
        """Says whether an epoch can begin with a later batch; with a loader of the method's own it is begun again."""
        loader = self.train_loader_x
        return loader is self.dm.train_loader_x or isinstance(loader, ViewBatches)

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
                self.save_model(done, val_result=result, is_best=True)
                self.best_result = result
        frequency = self.cfg.TRAIN.CHECKPOINT_FREQ
        if done == self.max_epoch or (frequency > 0 and done % frequency == 0):
            self.save_model(done, val_result=self.best_result)
        self.keep_place(done, 0)
        self.save_place_if_due()

    def after_train(self) -> None:
        """Tests the final model."""
        logger.info("Finish training")
        self.place = None  # the last checkpoint has it
        self.results = {}  # not those of the last validation
        if not self.cfg.TEST.NO_TEST:
            best = self.cfg.TEST.FINAL_MODEL == "best_val"
            logger.info("Deploy the %s", "model with the best val performance" if best else "last-step model")
            if best:
                self.load_model(self.output_dir)
            self.test()
        logger.info("Elapsed: %s", datetime.timedelta(seconds=round(self.times()["time_s"])))
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
