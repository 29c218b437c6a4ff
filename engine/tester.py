"""A method's answers and how they are tested: from the pixels, or from the features of a frozen image tower.

Features are computed once and kept (engine/features/reader.py), so that a test costs little more than reading them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from .data.images import DatasetWrapper
from .data.samplers import whole_batch
from .features.reader import FeatureReader
from .interruption import raise_if_asked
from .log import progress
from .trainer_base import TrainerBase

logger = logging.getLogger(__name__)

# Methods that see the pixels. Where a subclass of the class that defines image_tower redefines one, features may not
# stand for them.
PIXELS_IN_TESTS = ("model_inference", "parse_batch_test")
PIXELS_IN_TRAINING = ("forward_backward", "parse_batch_train")


class Tester(TrainerBase):
    """What a method answers. It defines `model_inference`, or in its place `image_tower` and `classify_features`.

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
        """Returns the frozen module from images to features; None where a method has no such part.

        Features are found again by its weights, so nothing else may decide them.
        """
        return None

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the image tower's features (B, E) float32 of images (B, 3, H, W). No method redefines it."""
        return self.image_tower()(images).float()

    def classify_features(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the logits (B, C) of the images with these features (B, E)."""
        raise NotImplementedError

    def build_features(self) -> FeatureReader | None:
        """Returns what reads features; None where they are no use: the method, or a subclass of it, wants the pixels.

        Raises:
            ValueError: If the method encodes in a way of its own, or INPUT.VIEWS is set and it needs the pixels.
        """
        tower, name, n_views = self.image_tower(), self.cfg.TRAINER.NAME, self.cfg.INPUT.VIEWS
        if tower is not None and self._definer("encode_images") is not Tester:
            raise ValueError(
                f"{name} redefines encode_images, expected image_tower to return a module that does it all: features "
                "are kept by that module's weights. Return such a module, or redefine model_inference."
            )
        is_frozen = tower is not None and not any(parameter.requires_grad for parameter in tower.parameters())
        in_tests = is_frozen and self._keeps(*PIXELS_IN_TESTS)
        if n_views and not (in_tests and self._keeps(*PIXELS_IN_TRAINING) and self._trains_on_one_view()):
            raise ValueError(
                f"INPUT.VIEWS is {n_views}, expected 0: {name} looks at images, in a step, a test or a loader of its "
                "own, or its image tower is not frozen. Leave INPUT.VIEWS out."
            )
        return FeatureReader(self.cfg, tower, self.encode_images) if in_tests else None

    def _definer(self, name: str) -> type:
        return next(cls for cls in type(self).__mro__ if name in vars(cls))

    def _keeps(self, *names: str) -> bool:
        """Says whether no class below the one that defines the image tower redefines one of these methods."""
        return all(issubclass(self._definer("image_tower"), self._definer(name)) for name in names)

    def _trains_on_one_view(self) -> bool:
        """Says whether a training batch is images under one transform, as features stand for them."""
        return self.train_loader_x is None or is_plain(self.train_loader_x.dataset)

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
        if self.features is None or not is_plain(dataset):
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
        return on_device(batch, self.device)

    def parse_batch_test(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns a batch's images (B, 3, H, W) and labels (B,) on the device."""
        return on_device(batch, self.device)


def on_device(batch: dict, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a batch's images and labels on the device."""
    return batch["img"].to(device, non_blocking=True), batch["label"].to(device, non_blocking=True)


def is_plain(dataset: Dataset) -> bool:
    """Says whether an item is one image under one transform."""
    return type(dataset) is DatasetWrapper and len(dataset.transforms) == 1
