"""Zero-shot CLIP: hand-made prompts, one or an ensemble, nothing trained.

Paper: Learning Transferable Visual Models From Natural Language Supervision, Radford et al., ICML 2021,
       https://arxiv.org/abs/2103.00020

    w_i      = norm(g("a photo of a CLASS_i."))                   ZeroshotCLIP: the data set's prompt
    w_i      = norm(mean_k norm(g(template_k(CLASS_i))))          ZeroshotCLIP2: an ensemble
    p(y=i|x) = softmax_i(cos(w_i, f(x)) / tau)

Run:   bash scripts/coop/zeroshot.sh caltech101 rn50
Cost:  one pass of the images through the image tower.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.prepared import prepare
from engine import TRAINER_REGISTRY, TrainerX
from engine.config.load import option_errors
from engine.features.head import LinearHead

from .backbone import PRECISIONS, facts_of_backbone, load_clip, prepare_as_trained, usable_precision
from .base import untrained_errors
from .class_features import ensemble_features
from .same_prompts import features_warning
from .templates import IMAGENET_TEMPLATES, IMAGENET_TEMPLATES_SELECT

logger = logging.getLogger(__name__)


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(TrainerX):
    """CLIP with the data set's hand-made prompt."""

    complete_config, backbone_fields = staticmethod(prepare_as_trained), staticmethod(facts_of_backbone)
    prepare_tower = staticmethod(prepare)

    @staticmethod
    def add_config(cfg: CN) -> None:
        cfg.TRAINER.ZSCLIP = CN()
        cfg.TRAINER.ZSCLIP.PREC = "fp16"  # fp32, fp16, amp, bf16
        cfg.TRAINER.ZSCLIP.TEMPLATES = "select"  # ZeroshotCLIP2: select (seven, and the data set's own), full (80)

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        options = {"TRAINER.ZSCLIP.PREC": PRECISIONS, "TRAINER.ZSCLIP.TEMPLATES": ("select", "full")}
        errors = option_errors(cfg, options) + untrained_errors(cfg)
        if cfg.RUN.MODEL_DIR:
            errors.append(f"--model-dir is {cfg.RUN.MODEL_DIR}, but {cfg.TRAINER.NAME} learns nothing. Leave it out.")
        return errors

    def templates(self) -> tuple[str, ...]:
        """Returns the prompts that are averaged."""
        return (self.dm.dataset.prompt_template,)

    @torch.no_grad()
    def build_model(self) -> None:
        self.precision = usable_precision(self.cfg.TRAINER.ZSCLIP.PREC, self.device)
        self.clip_model = load_clip(self.cfg, self.precision, self.device)
        templates = self.templates()
        logger.info("Prompts: %s", " | ".join(templates))
        self.text_features = ensemble_features(self.clip_model, self.dm.dataset.classnames, templates)
        backbone = self.cfg.MODEL.BACKBONE.NAME
        self.warnings.add(features_warning(self.text_features, self.dm.dataset, backbone, self.clip_model))

    def image_tower(self) -> nn.Module:
        return self.clip_model.visual

    def feature_head(self) -> LinearHead:
        return LinearHead(self.text_features, float(self.clip_model.logit_scale.exp()))

    def classify_features(self, features: Tensor) -> Tensor:
        image_features = F.normalize(features, dim=-1)  # (B, E)
        return self.clip_model.logit_scale.exp() * image_features @ self.text_features.t()


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """CLIP with an ensemble of hand-made prompts."""

    @staticmethod
    def add_config(cfg: CN) -> None:
        """The options are ZeroshotCLIP's."""

    def templates(self) -> tuple[str, ...]:
        if self.cfg.TRAINER.ZSCLIP.TEMPLATES == "full":
            return IMAGENET_TEMPLATES
        own = () if self.cfg.DATASET.NAME == "ImageNet" else (self.dm.dataset.prompt_template,)
        return (*IMAGENET_TEMPLATES_SELECT, *own)
