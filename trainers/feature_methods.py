"""What methods on frozen features share: class features to start from, support features, items to choose by.

CLIP's towers are frozen, so a run is a few arrays: a feature for each class (C, E), and the features of V random views
of each training image, which the feature cache keeps. The steps are those of the common loop. With INPUT.VIEWS they
read features, too: then a run encodes each view once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clip.two_towers import TwoTowers
from engine import Datum

from .base import PromptTrainer
from .class_features import ensemble_features
from .same_prompts import features_warning
from .templates import IMAGENET_TEMPLATES_SELECT

MAX_VIEWS = 20  # of support features


class FeatureTrainer(PromptTrainer):
    """Trains what stands on frozen features; a method defines `feature_model`, a PromptedCLIP with its `classify`.

    Where `prompt_learner` holds what is computed and not trained, `prepare` computes it before the first step.
    """

    def feature_model(self, clip_model: TwoTowers, class_features: Tensor, **changes) -> nn.Module:
        """Builds the model on `class_features` (C, E) float32, as `class_features` returns them."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Computes what a run starts from besides the class features; not called for a run that goes on."""

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> nn.Module:
        with torch.no_grad():
            class_features = self.class_features(clip_model, classnames, self.templates())
        backbone = self.cfg.MODEL.BACKBONE.NAME
        self.warnings.add(features_warning(class_features, self.dm.dataset, backbone, clip_model))
        return self.feature_model(clip_model, class_features, **changes)

    def class_features(self, clip_model: TwoTowers, classnames: list[str], templates: tuple[str, ...]) -> Tensor:
        """Returns the class features (C, E) float32, here those of zero-shot CLIP, normalised."""
        return ensemble_features(clip_model, classnames, templates)

    def templates(self) -> tuple[str, ...]:
        """Returns the hand-made prompts, here the data set's own."""
        return (self.dm.dataset.prompt_template,)

    def templates_of_imagenet(self, *more: str) -> tuple[str, ...]:
        """Returns CLIP's seven prompts, and `more`, on ImageNet; on other data sets their own."""
        on_imagenet = self.cfg.DATASET.NAME == "ImageNet"
        return (*IMAGENET_TEMPLATES_SELECT, *more) if on_imagenet else (self.dm.dataset.prompt_template,)

    def before_train(self) -> None:
        super().before_train()
        if self.point is None:
            self.prepare()

    def support_features(self, n_views: int) -> tuple[Tensor, Tensor]:
        """Returns what the training images look like to the tower, each in `n_views` random views.

        The views are those of the first epochs of a run with INPUT.VIEWS: none is encoded for this alone.

        Returns:
            Features (N, V, E) float32, not normalised, and labels (N,), both on the device.
        """
        items = self.dm.dataset.train_x
        transform = self.dm.train_loader_x.dataset.transforms[0]
        features = self.features.read_views(items, transform, n_views)
        return features.to(self.device), labels_of(items).to(self.device)

    def choice_items(self) -> list[Datum]:
        """Returns the items to choose hyper-parameters by: those of `selection` that are not trained on."""
        trained_on = {item.impath for item in self.dm.dataset.train_x}
        return [item for item in self.dm.dataset.selection if item.impath not in trained_on]

    def choice_features(self) -> tuple[Tensor, Tensor] | None:
        """Returns the features (N, E) and labels (N,) of the items to choose hyper-parameters by, on the device.

        They are what DATASET.SELECTION says: few-shot validation items, or as many training images that were not drawn.
        None: there are no such items apart from those that are trained on, which is warned of.
        """
        items = self.choice_items()
        if not items:
            self.warnings.add(
                f"{self.cfg.DATASET.NAME} has no validation items, and no training images besides those trained on: "
                f"the hyper-parameters of {self.cfg.TRAINER.NAME} were not chosen but stayed as the config has them."
            )
            return None
        return self.features.read(items).to(self.device), labels_of(items).to(self.device)


def labels_of(items: Sequence[Datum]) -> Tensor:
    return torch.tensor([item.label for item in items])
