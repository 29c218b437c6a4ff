"""A method's answers and how they are tested: from the pixels, or from the features of a frozen image tower.

Features are computed once and kept (engine/features.py), so that a test costs little more than reading them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from .features import FeatureReader
from .images import DatasetWrapper
from .interruption import raise_if_asked
from .log import progress
from .samplers import whole_batch
from .trainer_base import TrainerBase

logger = logging.getLogger(__name__)

# A subclass that redefines one of these below the level that defines `classify_features` means the pixels.
PIXELS_TO_LOGITS = ("model_inference", "parse_batch_test", "classify_features")


class Tester(TrainerBase):
    """What a method answers. It defines `model_inference`, or the three that go through a frozen tower in its place.

    Attributes:
        features: Reads the features of images; None where the method wants the pixels.
        precision: In which it computes, such as fp32; None where the method does not say.
        results: Of the last test.
    """

    features: FeatureReader | None = None
    precision: str | None = None
    results: dict[str, Any]

    def model_inference(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the logits (B, C) of images (B, 3, H, W)."""
        return self.classify_features(self.encode_images(images))

    def image_tower(self) -> nn.Module | None:
        """Returns the frozen module that `encode_images` calls; None where a method has no such part."""
        return None

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the features (B, E) float32 of images (B, 3, H, W); what `classify_features` takes."""
        raise NotImplementedError

    def classify_features(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the logits (B, C) of the images with these features (B, E)."""
        raise NotImplementedError

    def build_features(self) -> FeatureReader | None:
        """Returns what reads features; None where they are no use: the method, or a subclass of it, wants the pixels.

        Raises:
            ValueError: If INPUT.VIEWS is set and the method needs the pixels.
        """
        tower, n_views = self.image_tower(), self.cfg.INPUT.VIEWS
        level = {name: next(c for c in type(self).__mro__ if name in vars(c)) for name in PIXELS_TO_LOGITS}
        pixels = any(not issubclass(level["classify_features"], owner) for owner in level.values())
        if tower is not None and not pixels:
            return FeatureReader(self.cfg, tower, self.encode_images)
        if n_views:
            raise ValueError(
                f"INPUT.VIEWS is {n_views}, expected 0: {self.cfg.TRAINER.NAME} computes on images, not on features of "
                "a frozen tower. Leave INPUT.VIEWS out."
            )
        return None

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluates on a split (TEST.SPLIT by default) and returns the main result, in percent."""
        start_s, split = time.monotonic(), split or self.cfg.TEST.SPLIT
        loader = self.val_loader if split == "val" else self.test_loader
        self.set_model_mode("eval")
        self.evaluator.reset()
        logger.info("Evaluate on the *%s* set", split)
        for logits, labels in self.predictions(loader, split):
            self.evaluator.process(logits, labels)
            raise_if_asked()
        self.results = self.evaluator.evaluate()
        self.testing_s += time.monotonic() - start_s
        step = (self.epochs_done or 0) * self.num_batches  # None of a checkpoint that does not say
        for name, value in self.results.items():
            self.write_scalar(f"{split}/{name}", value, step)
        return next(iter(self.results.values()))

    def predictions(self, loader: DataLoader, label: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields the logits (B, C) and labels (B,) of a loader's batches, from cached features where it can."""
        dataset = loader.dataset
        if self.features is None or type(dataset) is not DatasetWrapper or len(dataset.transforms) != 1:
            for i, batch in enumerate(progress(loader, label)):
                images, labels = self.parse_batch_test(batch)
                yield whole_batch(loader, i, self.model_inference(images), labels)
            return
        items = dataset.data_source
        features = self.features.read(items, transform=dataset.transforms[0])
        labels = torch.tensor([item.label for item in items])
        for i, indices in enumerate(progress(list(loader.batch_sampler), label)):
            logits = self.classify_features(features[indices].to(self.device))
            yield whole_batch(loader, i, logits, labels[indices].to(self.device))

    def parse_batch_train(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns a batch's images (B, 3, H, W) and labels (B,) on the device."""
        return batch["img"].to(self.device, non_blocking=True), batch["label"].to(self.device, non_blocking=True)

    def parse_batch_test(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns a batch's images (B, 3, H, W) and labels (B,) on the device."""
        return self.parse_batch_train(batch)
