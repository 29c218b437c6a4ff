"""Cross-modal linear probe: a linear classifier on CLIP's features, for which a prompt's text feature is a sample too.

Paper: Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models, Lin, Yu, Kuang, Pathak,
       Ramanan, CVPR 2023, https://arxiv.org/abs/2301.06267

    w_i      = norm(mean_k norm(g(template_k(CLASS_i)))) at the start; learned, and not normalised again
    p(y=i|z) = softmax_i(w_i . norm(z) / tau)                 z = f(x) of an image, or z = g(template_k(CLASS_j))
    loss     = mean of -log p(y|z) over B images and B texts, y of a text its class

The texts, one of each class and on ImageNet seven, are shuffled and drawn in turn, then shuffled again.

Run:   TRAINER=CrossModal bash scripts/few_shot.sh caltech101 rn50 16
       python sweep.py --trainer CrossModal --dataset caltech101 --shots 16 --root $DATA --cfg rn50 \\
         --grid OPTIM.LR 1e-3 1e-4 --grid OPTIM.WEIGHT_DECAY 0.0 0.01 1e-4 --grid DATALOADER.TRAIN_X.BATCH_SIZE 4 16
Cost:  a matrix of C x E; with INPUT.VIEWS an epoch takes milliseconds once each view has been encoded.

Decisions where the authors' code says one thing and this project another:
- The code tries the 12 settings of that grid, each for 12,800 steps, validates every 100 steps, and takes the best step
  of the best setting, by few-shot validation items. Here a run has one setting, and its last epoch is tested;
  `sweep.py` compares settings on validation items, TEST.FINAL_MODEL best_val epochs. BATCH_SIZE counts images alone.
- A run has OPTIM.MAX_EPOCH epochs, one of them to warm up; in the code steps are counted, 50 of them to warm up.
- The texts' last, smaller batch is drawn together with the first ones of the next round; the code leaves it out, and
  a batch size that is not below the number of texts. So every batch is half texts, also where classes are few.
- The code sees each image as it is and flipped. Here INPUT says what is seen.
- 100 in the code is exp(logit_scale). The mean of w and its start, WiSE-FT, is not here.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY
from engine.data.samplers import mix_seeds
from engine.distributed import share
from engine.features.head import LinearHead

from .base import PromptedCLIP
from .class_features import encode_classes
from .feature_methods import FeatureTrainer

TEXTS = 1  # mixed into the seeds, so that the texts are not drawn in the images' order


def texts_of_step(step: int, n: int, n_texts: int, seed: int) -> list[int]:
    """Returns which n of the texts are drawn in a step: a function of the seed and the step alone."""
    rounds: dict[int, list[int]] = {}
    drawn = []
    for position in range(step * n, (step + 1) * n):
        number, index = divmod(position, n_texts)
        if number not in rounds:
            generator = torch.Generator().manual_seed(mix_seeds(seed, TEXTS, number))
            rounds[number] = torch.randperm(n_texts, generator=generator).tolist()
        drawn.append(rounds[number][index])
    return drawn


class LinearCLIP(PromptedCLIP):
    """A linear layer without bias on CLIP's normalised features."""

    def classify(self, features: Tensor) -> Tensor:
        return self.logit_scale.exp() * self.prompt_learner(F.normalize(features, dim=-1))


@TRAINER_REGISTRY.register()
class CrossModal(FeatureTrainer):
    """A linear classifier, of the classes that it was trained on alone, learned from images and texts."""

    node = "CROSS_MODAL"
    learned_per_class = {"weight": True}

    @staticmethod
    def add_config(cfg: CN) -> None:
        cfg.TRAINER.CROSS_MODAL = CN()
        cfg.TRAINER.CROSS_MODAL.PREC = "fp16"  # of CLIP: fp32, fp16, amp, bf16

    def templates(self) -> tuple[str, ...]:
        return self.templates_of_imagenet()

    def feature_model(self, clip_model: TwoTowers, class_features: Tensor, **changes) -> LinearCLIP:
        head = nn.Linear(*reversed(class_features.shape), bias=False)
        head.weight = nn.Parameter(class_features.clone())
        return LinearCLIP(clip_model, head)

    @cached_property
    def texts(self) -> tuple[Tensor, Tensor]:
        """The features (T, E) float32, not normalised, and labels (T,) of the texts. Only training needs them."""
        names, templates = self.dm.dataset.classnames, self.templates()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            features = torch.cat([encode_classes(self.clip_model, names, template) for template in templates])
        return features, torch.arange(len(names), device=self.device).repeat(len(templates))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the mean over this rank's images, and over its part of as many texts."""
        features, owners = self.texts
        n = min(self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE, len(self.train_loader_x.batch_sampler.sampler))  # of all ranks
        drawn = texts_of_step(self.epoch * self.num_batches + self.batch_idx, n, len(owners), self.cfg.SEED)
        drawn = drawn[share(n)] or drawn[:1]  # as the images
        logits = torch.cat([logits, self.classify_features(features[drawn])])
        return super().loss(logits, torch.cat([labels, owners[drawn]]))

    def feature_head(self) -> LinearHead:
        return LinearHead(self.model.prompt_learner.weight.detach(), float(self.model.logit_scale.exp()))
