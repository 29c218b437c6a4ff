"""The training loop, and what a method is made of: its options, a data set, models, a step.

train() -> for each epoch: run_epoch() -> for each batch: forward_backward(batch), which a method defines
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from .checkpoint import Checkpointer, backbone_warning, save_checkpoint
from .config.defaults import BEST_ON
from .data.class_rows import ClassRows
from .data.manager import DataManager, check_splits
from .data.samplers import batch_share, gather_batch
from .device import pick_device, smaller_batches
from .distributed import any_rank, gather_objects, mean_over_ranks, n_ranks
from .evaluation.evaluator import build_evaluator, evaluate
from .features.head import Head
from .features.path import choose_path, is_plain, require_choice
from .features.reader import FeatureReader, ViewBatches
from .files import naming
from .interruption import Interrupted, finishing, is_asked, raise_if_asked
from .log import Clock, LossWatch, StepLog, Warnings, progress, which_model
from .optim import TrainedModels
from .random_state import random_state, restore_random_state
from .resume import ResumeFile, ResumePoint, nothing_to_resume
from .trackers import Trackers, trackers_of

logger = logging.getLogger(__name__)


class TrainerX:
    """A method on a data set: builds both, trains, validates and tests.

    A method is a subclass. It defines `build_model`, which calls `register_model` for what is trained; if it trains,
    `forward_backward(batch)`, a step that returns its losses by name; and `model_inference(images)`, (B, 3, H, W) ->
    logits (B, C), or `image_tower` and `classify_features`: then each test image is encoded once, its feature kept.

    Attributes:
        epochs_done: Of the model as it is; None of a checkpoint that does not say.
        point: Where in the run the models stand, which may be saved; None while a step changes them.
        warnings: What makes the results doubtful; `warnings.add(sentence)` logs it, and it stands in results.json.
    """

    loop_steps_schedules = True  # False for a method that steps them itself
    reads_classnames = True  # False for a method that does not classify by the words of the class names
    transductive = False  # True for a method that sees the images to be tested on, without their labels
    choice_items: Callable[[], list] | None = None  # the items that a search chooses by, where not all of `selection`
    templates: Callable[[], tuple[str, ...]] | tuple[str, ...] = ()  # the hand-made prompts, where a method uses some
    published_options: Any = None  # the PublishedOptions of a method whose authors' files name its keys otherwise
    not_in_identity: tuple[str, ...] = ()  # the method's keys that change how it computes, not what
    ignored_on_load: tuple[str, ...] = ()  # state-dict entries that are saved for reference and never read back
    learned_per_class: Mapping[str, bool] = {}  # whether a tensor or part is, where shapes mislead: see ClassRows
    prepare_tower: Callable[[nn.Module], nn.Module] | None = None  # to one that computes the same features sooner
    precision: str | None = None  # in which the method computes, such as fp32; None where it does not say
    test_transform: Callable | None = None  # what makes of an RGB PIL image what a test sees; None: what INPUT says
    epoch = batch_idx = num_batches = 0

    @staticmethod
    def add_config(cfg: CN) -> None:
        """Declares the method's own keys in the default config."""

    @staticmethod
    def complete_config(cfg: CN, given: Collection[str]) -> None:
        """Sets the keys that the backbone decides, but for those `given`, which the user has set for this very run."""

    @staticmethod
    def backbone_fields(cfg: CN) -> dict[str, Any]:
        """Returns a checkpoint's entries "backbone" and "weights_sha256", where the method knows them."""
        return {}

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        """Returns what is wrong with the method's own keys, one message each."""
        return []

    @classmethod
    def searched(cls, cfg: CN) -> tuple[str, ...]:
        """Returns the names of the hyper-parameters that a training chooses by the data set's `selection`."""
        return ()

    def __init__(self, cfg: CN):
        self.cfg, self.output_dir = cfg, Path(cfg.OUTPUT_DIR)
        self.device = pick_device(use_cuda=cfg.USE_CUDA)
        self.trained = TrainedModels(cfg.TRAINER.NAME)
        self.models, self.optims, self.scheds = self.trained.models, self.trained.optims, self.trained.scheds
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        self.checkpointer = Checkpointer(self.trained, ignored=self.ignored_on_load)
        self.resume_file = ResumeFile(self.output_dir, every_s=cfg.TRAIN.RESUME_EVERY_S)
        self.point = self.resumed = self.features = None  # resumed: the ResumePoint that the first epoch begins with
        self.start_epoch, self.max_epoch, self.epochs_done = 0, cfg.OPTIM.MAX_EPOCH, 0
        self.best_result = -1.0  # of an epoch, in percent, on the items that choose it
        self.batch_share = 1 / n_ranks()  # this rank's part of a training batch
        self.clock, self.writer, self.warnings, self.results = Clock(), Trackers(), Warnings(), {}

        self.check_cfg(cfg)
        self.build_data_loader()
        self.check_splits()
        self.build_model()
        self.load_init_weights()
        self.decide_features()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)

    # The loop

    def train(self) -> None:
        """Trains from where it was interrupted, or from the start, to MAX_EPOCH; then tests."""
        try:
            self.before_train()
            for self.epoch in range(self.start_epoch, self.max_epoch):
                self.before_epoch()
                self.point = None  # a run_epoch of the method's own may not set it
                self.run_epoch()
                self.after_epoch()
            self.results = {}  # not those of the last validation
            self.after_train()
        except Interrupted:
            self.save_point()
            logger.info("Interrupted%s", f" {self.point}" if self.point else "")
            raise

    def run_epoch(self) -> None:
        """One pass over the training items, or over what an interrupted one has left of them."""
        self.set_model_mode("train")
        first, batches = self.begin_epoch()
        if first < self.num_batches:
            with finishing():  # a signal waits until a step is done
                self.point = None  # the models change
                for self.batch_idx, batch in enumerate(self.step_log.timed(batches, first), start=first):
                    losses = self.forward_backward(batch)
                    self.step_log.add(mean_over_ranks(losses, self.batch_share, self.device), self.trained.lr())
                    self.save_if_due()
                self.step_log.read()
                self.warnings.add(self.loss_watch.after_epoch(self.step_log.losses))
                if self.loop_steps_schedules:
                    self.trained.update_lr()
                self.point = self.point_after(self.epoch, self.num_batches)
        self.epochs_done = self.epoch + 1

    def after_epoch(self) -> None:
        """Tests on validation or test items if the best epoch is wanted; saves."""
        done, frequency = self.epochs_done, self.cfg.TRAIN.CHECKPOINT_FREQ
        if split := BEST_ON.get(self.cfg.TEST.FINAL_MODEL):
            if (result := self.test(split=split)) > self.best_result:
                self.save_model(done, val_result=result, is_best=True)
                self.best_result = result
        if done == self.max_epoch or (frequency > 0 and done % frequency == 0):
            self.save_model(done, val_result=self.best_result)
        self.point = self.point_after(done, 0)
        if any_rank([self.resume_file.is_due()])[0]:
            self.save_point()

    def forward_backward(self, batch: dict) -> dict[str, float | Tensor]:
        """Does one optimisation step on a batch and returns its losses by name."""
        raise NotImplementedError

    def model_backward_and_update(
        self, loss: Tensor, names: str | list[str] | None = None, change: Callable[[], None] | None = None
    ) -> None:
        """Does one step on `loss`, a finite scalar, this rank's mean; `change()` may change the summed gradients."""
        when, on_cpu = f"{self.when()}, at learning rate {self.trained.lr():.4e}", self.device.type == "cpu"
        self.trained.step(loss * self.batch_share, names, self.scaler, when=when, check=on_cpu, change=change)

    def before_train(self) -> None:
        """Resumes if OUTPUT_DIR, or else RESUME, holds a state to go on from."""
        for folder in filter(None, (self.output_dir, self.cfg.RESUME)):
            if self.point is None:
                self.start_epoch = self.epochs_done = self.resume_model_if_exist(folder)
        if self.cfg.RESUME and self.point is None:
            raise nothing_to_resume(self.cfg.RESUME, list(self.models))
        if self.cfg.RESUME and self.start_epoch == self.max_epoch:
            self.save_model(self.start_epoch, val_result=self.best_result)  # for --eval-only calls on this folder
        if n_views := min(self.cfg.INPUT.VIEWS, self.max_epoch):
            self.train_loader_x = ViewBatches(self.features, self.train_loader_x, n_views)
        self.num_batches, self.batch_share = len(self.train_loader_x), batch_share(self.train_loader_x)
        step = self.start_epoch * self.num_batches + (self.resumed.batch if self.resumed else 0)
        self.writer.open(trackers_of(self.cfg), first_step=step)
        self.loss_watch = LossWatch(self.num_classes, self.max_epoch)
        self.clock.start()

    def before_epoch(self) -> None:
        """Draws the epoch's order and augmentations."""
        self.dm.set_epoch(self.epoch)

    def begin_epoch(self) -> tuple[int, Iterator[dict]]:
        """Returns the number of the epoch's first batch that is left, and the batches from it on."""
        resumed, self.resumed = self.resumed, None
        first = resumed.batch if resumed else 0
        if first:
            self.dm.set_epoch(self.epoch, first)
        self.point = resumed if first else self.point_after(self.epoch, 0)
        batches = iter(self.train_loader_x)
        if first:
            restore_random_state(resumed.random)  # the iterator may have drawn what was drawn before
        position = {"epoch": self.epoch, "max_epoch": self.max_epoch, "n_batches": self.num_batches}
        self.step_log = StepLog(self.writer, self.trained.check_losses, self.cfg.TRAIN.PRINT_FREQ, **position)
        return first, batches

    def save_if_due(self) -> None:
        """Between two steps, saves the run's state if it is time, or if somebody asks the run to end; then it ends."""
        if self.batch_idx + 1 == self.num_batches:
            return  # the epoch's end does it
        if not (self.dm.can_skip(self.train_loader_x) or isinstance(self.train_loader_x, ViewBatches)):
            raise_if_asked()  # a loader of the method's own cannot skip: it goes on from the last save
        elif any_rank([is_asked() or self.resume_file.is_due()])[0]:
            self.step_log.read()
            self.point = self.point_after(self.epoch, self.batch_idx + 1)
            self.save_point()
            raise_if_asked()
            self.point = None

    def after_train(self) -> None:
        """Tests the final model."""
        logger.info("Finish training")
        self.point = None  # the last checkpoint has it
        if not self.cfg.TEST.NO_TEST:
            if split := BEST_ON.get(self.cfg.TEST.FINAL_MODEL):
                self.load_model(self.output_dir)
            logger.info("Deploy the %s", which_model(split, self.epochs_done))
            self.test()
        logger.info("Elapsed: %s", self.clock)
        self.writer.close()

    # Testing

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluates on a split (TEST.SPLIT by default) and returns the main result, in percent."""
        split = split or self.cfg.TEST.SPLIT
        self.set_model_mode("eval")
        logger.info("Evaluate on the *%s* set", split)
        with self.clock.testing():
            self.results = evaluate(self.evaluator, self.predictions(split))
        self.writer.add_scalars(split, self.results, max((self.epochs_done or 0) * self.num_batches - 1, 0))
        return next(iter(self.results.values()))

    def predictions(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the logits (B, C) and labels (B,) of a split's batches, from kept features where it can."""
        loader = self.dm.selection_loader if split == "selection" else getattr(self, f"{split}_loader")
        if self.uses_features and is_plain(loader.dataset):
            yield from self.features.predictions(loader, self.classify_features, split)
            return
        for i, batch in enumerate(progress(loader, split)):
            images, labels = self.parse_batch_test(batch)
            yield gather_batch(loader, i, self.model_inference(images), labels)

    def model_inference(self, images: Tensor) -> Tensor:
        """Returns the logits (B, C) of images (B, 3, H, W)."""
        return self.classify_features(self.encode_images(images))

    def image_tower(self) -> nn.Module | None:
        """Returns the frozen module that alone decides the features of images; None where a method has none."""
        return None

    def encode_images(self, images: Tensor) -> Tensor:
        """Returns the image tower's features (B, E) float32 of images (B, 3, H, W). No method redefines it."""
        return self.features.encode(images) if self.features else self.image_tower()(images).float()

    def classify_features(self, features: Tensor) -> Tensor:
        """Returns the logits (B, C) of the images with these features (B, E)."""
        raise NotImplementedError

    def feature_head(self) -> Head | None:
        """Returns the head from features to logits where a few arrays are all of it, for all images; else None."""
        return None

    def decide_features(self) -> None:
        """Decides whether tests see kept features of images or their pixels, which is logged."""
        self.uses_features = not choose_path(type(self), self.image_tower(), self.train_loader_x, self.cfg.INPUT.VIEWS)

    @property
    def uses_features(self) -> bool:
        """Whether tests see kept features of images, or their pixels; a method may set it."""
        return self.features is not None

    @uses_features.setter
    def uses_features(self, value: bool) -> None:
        require_choice(value, self.image_tower(), self.cfg.INPUT.VIEWS, type(self).__name__)
        self.features = FeatureReader(self.cfg, self.image_tower(), self.prepare_tower) if value else None

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Returns a batch's images (B, 3, H, W) and labels (B,) on the device."""
        return batch["img"].to(self.device, non_blocking=True), batch["label"].to(self.device, non_blocking=True)

    parse_batch_train = parse_batch_test

    # What it is made of

    def check_cfg(self, cfg: CN) -> None:
        """Raises an error for what is wrong with `cfg` and `config_errors` cannot see."""

    def build_data_loader(self) -> None:
        """Builds the data set and its loaders."""
        self.dm = DataManager(self.cfg, custom_tfm_test=self.test_transform)
        self.train_loader_x, self.val_loader = self.dm.train_loader_x, self.dm.val_loader
        self.test_loader, self.num_classes, self.lab2cname = self.dm.test_loader, self.dm.num_classes, self.dm.lab2cname
        self.warnings.add(*self.dm.warnings)

    def check_splits(self) -> None:
        """Raises ValueError if the config asks for items that the data set does not have."""
        check_splits(self.cfg, train=self.train_loader_x, val=self.val_loader, test=self.test_loader)

    def build_model(self) -> None:
        """Builds the model and registers its trained part."""
        raise ValueError(f"{type(self).__name__} has no build_model. Define it, and register there what is trained.")

    def register_model(self, name: str = "model", model: nn.Module | None = None, optim=None, sched=None) -> None:
        """Makes `model` one that is saved and loaded under `name`, and trained if it has an optimiser."""
        self.trained.register(name, model, optim, sched)

    def load_init_weights(self) -> None:
        """Starts every model from MODEL.INIT_WEIGHTS, if it is set."""
        if path := self.cfg.MODEL.INIT_WEIGHTS:
            self.warnings.add(*self.checkpointer.start(path, self.class_rows().fit_start))

    def class_rows(self) -> ClassRows:
        """Returns what takes, of a checkpoint, the rows of the data set's classes."""
        return ClassRows(self.dm.dataset, self.learned_per_class, self.ignored_on_load, type(self).__name__)

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Sets what is trained to train() or eval(); everything else stays in eval() always."""
        self.trained.set_mode(mode, names)

    def smaller_settings(self) -> dict[str, int | bool]:
        """Returns the keys that decide how much memory is needed, with values that need less of it, best first."""
        return smaller_batches(self.cfg)

    def result_fields(self) -> dict[str, Any]:
        """Returns the method's own entries of results.json."""
        return {}

    # Saving and loading

    def save_model(self, epoch: int, *, val_result: float | None = None, is_best: bool = False) -> None:
        """Saves every model after `epoch` epochs."""
        self.trained.check_losses()
        for name in self.models:
            save_checkpoint(self.checkpoint(name, epoch, val_result), self.output_dir / name, is_best=is_best)

    def checkpoint(self, name: str, epoch: int, val_result: float | None = None) -> dict[str, Any]:
        """Returns what is saved of a model after `epoch` epochs."""
        own = {**self.checkpointer.entries(name, self.when()), "random": gather_objects(random_state())}
        return {**own, "epoch": epoch, "val_result": val_result, **self.checkpoint_fields()}

    def save_point(self) -> None:
        """Saves the run's state, where the models stand, once."""
        self.resume_file.save(self.point, self.state)

    def state(self) -> dict[str, Any]:
        """Returns what a resume file holds, besides the point."""
        self.trained.check_losses()
        return {"models": self.checkpointer.learned_entries(self.when()), **self.checkpoint_fields()}

    def checkpoint_fields(self) -> dict[str, Any]:
        """Returns the entries that the checkpoints of all models have in common; a method may add to them."""
        learned_from = {"classnames": list(self.dm.dataset.classnames), "data_sha256": self.dm.learned_from}
        own = {"trainer": self.cfg.TRAINER.NAME, **learned_from, **self.backbone_fields(self.cfg)}
        return {"scaler": self.scaler.state_dict(), **self.clock.times(), **own}

    def when(self) -> str:
        """Returns the words for the step."""
        return f"epoch {self.epoch + 1}, batch {self.batch_idx + 1}"

    def point_after(self, epoch: int, batch: int) -> ResumePoint:
        """Returns where the models stand after so many epochs and so many batches of the next one."""
        return ResumePoint(epoch, batch, self.best_result, random_state())

    def load_model(self, directory: str | Path, epoch: int | None = None) -> None:
        """Loads every model from a run's folder, see `load_checkpoint`; "" loads nothing, None the best epoch."""
        if self.models and not directory:
            logger.info("No --model-dir is given: the model is evaluated as it starts")
        for name in self.models if directory else ():
            path, checkpoint = self.checkpointer.read(directory, name, epoch)
            with naming(path):
                self.before_load(name, checkpoint)
                of_classes = self.class_rows().fit(checkpoint, self.models[name].state_dict(), path)
            self.warnings.add(of_classes, backbone_warning(checkpoint, self.backbone_fields(self.cfg), path))
            self.epochs_done = self.checkpointer.load(name, checkpoint, path)

    def before_load(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Adapts the model `name` to a checkpoint that is going to be loaded into it, or the other way round."""

    def resume_model_if_exist(self, directory: str | Path) -> int:
        """Restores the newest state in `directory`, see engine/resume.py; returns how many epochs it is after."""
        inputs = {**self.checkpoint_fields(), "dataset": self.cfg.DATASET.NAME}
        found = self.resume_file.restore(Path(directory), self.checkpointer, self.scaler, inputs)
        if found is None:
            return 0
        self.point, state = found
        self.resumed, self.best_result = self.point, self.point.val_result
        self.clock.restore(state)
        logger.info("Resume %s from %s", self.point, directory)
        return self.point.epoch
