"""What methods on frozen features share: class features to start from, support features, items to choose by.

CLIP's towers are frozen, so a run is a few arrays: a feature for each class (C, E), and the features of V random views
of each training image, which the feature cache keeps. The steps are those of the common loop. With INPUT.VIEWS they
read features, too: then a run encodes each view once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import Datum
from engine.distributed import on_first_rank
from engine.interruption import starting_over

from .base import PromptTrainer
from .class_features import ensemble_features
from .templates import IMAGENET_TEMPLATES_SELECT

logger = logging.getLogger(__name__)

MAX_VIEWS = 20  # of support features


class FeatureTrainer(PromptTrainer):
    """Trains what stands on frozen features; a method defines `feature_model`, a PromptedCLIP with its `classify`.

    Where `prompt_learner` holds what is computed and not trained, `prepare` computes it before the first step. `choose`
    sets its buffers () that `searched` names. Where these two are all, the method says `learns = False`.
    """

    class_features = staticmethod(ensemble_features)  # of a CLIP, names and templates: (C, E), as zero-shot CLIP's

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        errors, node = super().config_errors(cfg), cfg.TRAINER.get(cls.node, {})
        if "AUGMENT_EPOCH" in node:  # of support features
            if not 1 <= node.AUGMENT_EPOCH <= MAX_VIEWS:
                key = f"TRAINER.{cls.node}.AUGMENT_EPOCH"
                errors.append(f"{key} is {node.AUGMENT_EPOCH}; it must be from 1 to {MAX_VIEWS}.")
            errors += start_errors(cfg, cls.__name__)
        if cfg.RESUME and not cls.learns:
            errors.append(f"RESUME is {cfg.RESUME}, but {cls.__name__} is made from the start. Leave it out.")
        return errors

    def feature_model(self, clip_model: TwoTowers, class_features: Tensor, **changes) -> nn.Module:
        """Builds the model on `class_features` (C, E) float32, as `class_features` returns them."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Computes what a run starts from besides the class features; not called for a run that goes on."""

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> nn.Module:
        with torch.no_grad():
            class_features = self.class_features(clip_model, classnames, self.templates())
        self.warn_of_features(class_features)
        return self.feature_model(clip_model, class_features, **changes)

    def templates(self) -> tuple[str, ...]:
        """Returns the hand-made prompts, here the data set's own."""
        return (self.dm.dataset.prompt_template,)

    def templates_of_imagenet(self, *more: str) -> tuple[str, ...]:
        """Returns CLIP's seven prompts, and `more`, on ImageNet; on other data sets their own."""
        on_imagenet = self.cfg.DATASET.NAME == "ImageNet"
        return (*IMAGENET_TEMPLATES_SELECT, *more) if on_imagenet else (self.dm.dataset.prompt_template,)

    def train(self) -> None:
        """Trains and tests. Where nothing is learned: computes, chooses, saves and tests, without a resume point."""
        if self.learns:
            super().train()
            return
        with starting_over():
            self.before_train()
            self.choose()
            self.save_model(self.epochs_done, is_best=True)
            self.after_train()

    def before_train(self) -> None:
        super().before_train()
        if n_lacking := self.num_classes - len({item.label for item in self.dm.dataset.train_x}):
            self.warnings.add(
                f"{n_lacking:,} of {self.num_classes:,} classes have no training image: {self.cfg.TRAINER.NAME} knows "
                "them by their names alone."
            )
        if self.point is None:
            self.prepare()

    def choose(self) -> None:
        """Sets what is searched to what has the most hits on the items to choose by, if there are any."""
        found = self.choice_features() if self.searched(self.cfg) else None
        if found is None:
            return
        values, n_hits = on_first_rank(lambda: self.search(*found))
        for name, value in values.items():
            getattr(self.model.prompt_learner, name).fill_(value)
        chosen = ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
        logger.info(f"Choose {chosen}: {n_hits:,} of {len(found[1]):,} items are right")

    def search(self, features: Tensor, labels: Tensor) -> tuple[dict[str, float], int]:
        """Returns what is searched with the most hits, and how many, on features (N, E), not normalised, of labels."""
        raise NotImplementedError

    def result_fields(self) -> dict[str, Any]:
        found = {name: getattr(self.model.prompt_learner, name).item() for name in self.searched(self.cfg)}
        return {**super().result_fields(), **found}

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
                f"nothing has chosen {' and '.join(self.searched(self.cfg))} of {self.cfg.TRAINER.NAME}, which stay as "
                "they start."
            )
            return None
        return self.features.read(items).to(self.device), labels_of(items).to(self.device)


def start_errors(cfg: CN, name: str) -> list[str]:
    """Returns what is wrong with what the method `name` would start from, if it starts from the training images."""
    path = cfg.MODEL.INIT_WEIGHTS
    wrong = f"MODEL.INIT_WEIGHTS is {path}, but {name} starts from the training images. Leave it out."
    return [wrong] if path else []


def labels_of(items: Sequence[Datum]) -> Tensor:
    return torch.tensor([item.label for item in items])
