"""Zero-shot CLIP as a guide while a context is learned: what KgCoOp and ProGrad share.

Few images teach a context little about other classes, and it forgets what the hand-made prompt knew. So a second loss
says how far the learned prompts have gone from the hand-made ones. What the two losses make of a step is the method's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from engine import compute_accuracy

from .class_features import ensemble_features
from .static_prompts import StaticPromptTrainer

logger = logging.getLogger(__name__)


class GuidedTrainer(StaticPromptTrainer):
    """Trains static prompts by the cross entropy and a guide. A method defines `guide_loss` and `step`."""

    own_templates: Mapping[str, str] = {}  # DATASET.NAME -> hand-made prompt, where it is not the data set's

    def guide_loss(self, features: Tensor, text_features: Tensor, logits: Tensor) -> Tensor:
        """Returns how far a batch's answers, or the prompts, are from zero-shot CLIP's: a scalar.

        Args:
            features: (B, E) of the images, float32, not normalised.
            text_features: (C, E) of the learned prompts, float32, normalised.
            logits: (B, C) of the two.
        """
        raise NotImplementedError

    def step(self, loss: Tensor, guide_loss: Tensor) -> Tensor:
        """Does one step by the cross entropy and the guide, a batch's means, and returns the loss that is logged."""
        raise NotImplementedError

    @property
    def template(self) -> str:
        """The guide's hand-made prompt, with `{}` for the class name."""
        return self.own_templates.get(self.cfg.DATASET.NAME, self.dm.dataset.prompt_template)

    def templates(self) -> tuple[str, ...]:
        return (self.template,)

    @cached_property
    def zero_shot_features(self) -> Tensor:
        """The guide's text features, (C, E) float32, normalised. Only training needs them."""
        logger.info("The guide's prompt: %s", self.template)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):  # the same as of ZeroshotCLIP
            return ensemble_features(self.clip_model, self.dm.dataset.classnames, (self.template,))

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        with self.autocast:
            if "features" in batch:  # INPUT.VIEWS
                features, labels = (batch[key].to(self.device, non_blocking=True) for key in ("features", "label"))
            else:
                images, labels = self.parse_batch_train(batch)
                features = self.encode_images(images)
            text_features = self.model.text_features()
            logits = self.model.classify(features, text_features)
            loss, guide_loss = self.loss(logits, labels), self.guide_loss(features, text_features, logits)
        loss = self.step(loss, guide_loss)
        accuracy = compute_accuracy(logits, labels)[0]
        return {"loss": loss.detach(), "guide": guide_loss.detach(), "acc": accuracy}

    def image_tower(self) -> nn.Module:
        """Stands beside forward_backward, which takes features: so INPUT.VIEWS works."""
        return self.model.image_encoder
