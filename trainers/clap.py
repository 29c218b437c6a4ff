"""ZS-LP and CLAP: a linear probe that starts as zero-shot CLIP, and one whose classes are held near that start.

Paper: A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models, Silva-Rodriguez, Hajimiri, Ben Ayed,
       Dolz, CVPR 2024, https://arxiv.org/abs/2312.12730

    t_i      = mean_k g(template_k(CLASS_i))                  not normalised; seven templates and one on ImageNet
    w_i      = t_i at the start; learned
    p(y=i|x) = softmax_i(cos(w_i, f(x)) / tau)
    loss     = cross entropy                                  ZSLP
             + mean_i alpha_i |w_i - t_i|^2                   CLAP
    a_i      = mean of p(y=i|x) at the start, over all views x of the training images of class i

CONSTRAINT of CLAP says what alpha_i is. l2: a_i; balanced: 1; corrected: a_i / mean_j a_j; constant: mean_j a_j;
adaptative: a_i, and after each epoch, with h_i = |w_i - t_i|^2, alpha_i += rho_i h_i, then rho_i = h_i, at first 0.

Run:   TRAINER=CLAP bash scripts/few_shot.sh caltech101 rn50 16
       TRAINER=ZSLP bash scripts/few_shot.sh caltech101 rn50 16
Cost:  a matrix of C x E; with INPUT.VIEWS an epoch takes milliseconds once each view has been encoded.

Decisions where the authors' code says one thing and this project another:
- An epoch of the code is floor(K C / 256) batches of 256 of the 20 K C views, shuffled. Here it has as many batches, of
  images in random order, each in one of its 20 views; of fewer than 256 images, the one batch is a view of each.
- For a class without training images the code has alpha = 0 / 0. Here it is the mean of the others, which is warned of.
- The code keeps the underscores of class names in prompts. Here they are spaces, as for every method.
- 100 in the code is exp(logit_scale).
- The augmented Lagrangian's max(0, ...) is left out: nothing in it is negative. "adaptative" is the code's word.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY
from engine.config.load import option_errors
from engine.features.head import LinearHead

from .base import PromptedCLIP
from .class_features import mean_features
from .feature_methods import MAX_VIEWS, FeatureTrainer

logger = logging.getLogger(__name__)

CONSTRAINTS = ("l2", "balanced", "corrected", "constant", "adaptative")


class Prototypes(nn.Module):
    """A learned vector for each class, at the start its text feature (C, E), float32, not normalised.

    `alpha` (C,) is how strongly each is held to it, `rho` (C,) how fast that grows; 0 unless CLAP sets them.
    """

    def __init__(self, text_features: Tensor):
        super().__init__()
        self.register_buffer("text_features", text_features, persistent=False)
        self.prototypes = nn.Parameter(text_features.clone())
        self.register_buffer("alpha", torch.zeros_like(text_features[:, 0]))
        self.register_buffer("rho", torch.zeros_like(self.alpha))

    def distances(self) -> Tensor:
        """Returns the squared distances (C,) of prototypes and text features."""
        return (self.prototypes - self.text_features).pow(2).sum(dim=-1)

    @torch.no_grad()
    def hold(self, means: Tensor, constraint: str) -> None:
        """Sets alpha as a constraint says, by the mean probability (C,) that zero-shot CLIP gives each class."""
        alphas = {"balanced": torch.ones_like(means), "corrected": means / means.mean(), "constant": means.mean()}
        self.alpha.copy_(alphas.get(constraint, means))
        self.rho.zero_()

    @torch.no_grad()
    def outer_step(self) -> None:
        """Raises alpha by how far each prototype has gone."""
        distances = self.distances()
        self.alpha += self.rho * distances
        self.rho.copy_(distances)


class PrototypeCLIP(PromptedCLIP):
    """CLIP whose class features are Prototypes."""

    def classify(self, features: Tensor, class_features: Tensor | None = None) -> Tensor:
        class_features = self.prompt_learner.prototypes if class_features is None else class_features
        return self.logit_scale.exp() * F.normalize(features, dim=-1) @ F.normalize(class_features, dim=-1).t()


@TRAINER_REGISTRY.register()
class ZSLP(FeatureTrainer):
    """Zero-shot initialised linear probe, of the classes that it was trained on alone. Its options are CLAP's."""

    node = "CLAP"
    class_features = staticmethod(mean_features)
    learned_per_class = {"prototypes": True, "alpha": True, "rho": True}

    def templates(self) -> tuple[str, ...]:
        return self.templates_of_imagenet(self.dm.dataset.prompt_template)

    def feature_model(self, clip_model: TwoTowers, class_features: Tensor, **changes) -> PrototypeCLIP:
        return PrototypeCLIP(clip_model, Prototypes(class_features))

    @torch.no_grad()
    def feature_head(self) -> LinearHead:
        weight = F.normalize(self.model.prompt_learner.prototypes, dim=-1)
        return LinearHead(weight, float(self.model.logit_scale.exp()))


@TRAINER_REGISTRY.register()
class CLAP(FeatureTrainer):
    """Class-adaptive linear probe: ZSLP with a penalty."""

    node, learned_per_class = ZSLP.node, ZSLP.learned_per_class
    class_features = staticmethod(mean_features)
    templates, feature_model, feature_head = ZSLP.templates, ZSLP.feature_model, ZSLP.feature_head

    @staticmethod
    def add_config(cfg: CN) -> None:
        cfg.TRAINER.CLAP = CN()
        cfg.TRAINER.CLAP.PREC = "fp16"  # of CLIP: fp32, fp16, amp, bf16
        cfg.TRAINER.CLAP.CONSTRAINT = "l2"  # weights of the penalty: l2, balanced, corrected, constant, adaptative

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        return super().config_errors(cfg) + option_errors(cfg, {"TRAINER.CLAP.CONSTRAINT": CONSTRAINTS})

    @torch.no_grad()
    def prepare(self) -> None:
        """Sets alpha by zero-shot CLIP's answers to the views that training sees."""
        views, labels = self.support_features(min(self.cfg.INPUT.VIEWS or MAX_VIEWS, self.max_epoch))
        learner = self.model.prompt_learner
        answers = (self.model.classify(view, learner.text_features).softmax(dim=-1) for view in views.unbind(dim=1))
        right = sum(answer.gather(1, labels[:, None])[:, 0] for answer in answers) / views.shape[1]  # (N,)
        owners = F.one_hot(labels, self.num_classes).to(right)  # (N, C)
        n_images = owners.sum(dim=0)
        means = right @ owners / n_images
        means[n_images == 0] = means[n_images > 0].mean()
        learner.hold(means, self.cfg.TRAINER.CLAP.CONSTRAINT)
        logger.info("Weights of the penalty: %.3f to %.3f", learner.alpha.min(), learner.alpha.max())

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        learner = self.model.prompt_learner
        return super().loss(logits, labels) + (learner.alpha * learner.distances()).mean()

    def model_backward_and_update(self, loss: Tensor, *args, **kwargs) -> None:
        super().model_backward_and_update(loss, *args, **kwargs)
        # Within the epoch's last step: a run that goes on later has done both or neither.
        if self.cfg.TRAINER.CLAP.CONSTRAINT == "adaptative" and self.batch_idx + 1 == self.num_batches:
            self.model.prompt_learner.outer_step()
