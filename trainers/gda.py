"""GDA: a Gaussian for each class, all of one covariance, beside zero-shot CLIP; nothing is trained.

Paper: A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation, Wang, Liang, Sheng, He, Wang, Tan, ICLR 2024,
       https://arxiv.org/abs/2402.04087

    x        = norm(f(view))                             N of them, V views of each training image
    mu_c     = mean of the x of class c;  z = x - mu_c
    P        = E pinv(sum z z^T + tr(S) I),  S = sum z z^T / (N - 1)
    w_c, b_c = P mu_c, -mu_c^T P mu_c / 2
    logits_c = cos(t_c, f(x)) / tau + alpha (w_c . norm(f(x)) + b_c)      t_c as zero-shot CLIP's, seven on ImageNet

Base to new. A run on base classes has P = pinv(mean_c S_c), S_c the covariance of class c. New classes have

    X_c      = the 64 x nearest to t_c, of all base classes;  D = X_c - t_c
    mu_c     = mean of X_c and 16 times t_c
    P        = mean_c of E inverse(D^T D + tr(D^T D) / 63 I)

Run:   TRAINER=GDA bash scripts/few_shot.sh caltech101 rn50 16
       TRAINER=GDA bash scripts/cocoop/base2new_train.sh caltech101 1      then base2new_test.sh
Cost:  V views of each training image pass the image tower once; then an E x E inverse.

Decisions where the authors' code says one thing and this project another:
- alpha is chosen on the few-shot validation items, the code's on the full validation split, on ImageNet on test images:
  DATASET.SELECTION full_val TEST.ALLOW_ORACLE True.
- The prior log(1 / C) is left out: it is the same for all classes. 100 in the code is exp(logit_scale).
- Sums and pinv are float64; what the code's float32 pinv cuts off is cut off.
- The code answers base or new classes. Here any class names are answered. Where some of them are new, all classes have
  the new ones' P, and those of the training keep their means: scores by two precisions cannot be compared. (On `shapes`
  no new class would be answered.)
- So a checkpoint holds all x, in float16: 82 MB for ImageNet's 500 base classes, 16 shots, 10 views, ViT-B/16. A run on
  all classes holds none and refuses new names, unless NEW_CLASSES is True.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY
from engine.features.head import LinearHead
from engine.text import shorten

from .base import PromptedCLIP
from .feature_methods import FeatureTrainer

logger = logging.getLogger(__name__)

ALPHAS = tuple(10.0**exponent for exponent in range(-4, 3))
N_NEAREST, N_TEXTS = 64, 16  # of a new class: features, and copies of its text feature
PER_CLASS = ("class_features", "means", "weight", "bias")
EPS = torch.finfo(torch.float32).eps


def class_gaussians(features: Tensor, labels: Tensor, n_classes: int, *, classwise: bool) -> tuple[Tensor, Tensor]:
    """Returns the means (C, E) and the one precision (E, E) of classes, float64.

    Args:
        features: (N, E), normalised.
        labels: (N,); each class has at least one feature.
        n_classes: C.
        classwise: Whether the covariance is the mean of the classes' own; else it is pooled, and shrunk.
    """
    n, dim = features.shape
    means = features.new_zeros(n_classes, dim, dtype=torch.float64)
    scatter = features.new_zeros(dim, dim, dtype=torch.float64)
    for c in range(n_classes):
        own = features[labels == c].double()
        means[c] = own.mean(dim=0)
        centred = own - means[c]
        scatter += centred.t() @ centred / (max(len(own) - 1, 1) * n_classes if classwise else 1)
    if classwise:
        return means, inverse(scatter)
    ridge = scatter.trace() / max(n - 1, 1)
    return means, dim * inverse(scatter.diagonal_scatter(scatter.diagonal() + ridge))


def inverse(matrix: Tensor) -> Tensor:
    """Returns the pseudo-inverse of a symmetric matrix (E, E) float64, without what float32's would leave out."""
    return torch.linalg.pinv(matrix, rtol=len(matrix) * EPS, hermitian=True)


def new_gaussians(texts: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the means (C, E) and the one precision (E, E) of new classes, float64.

    Args:
        texts: (C, E) text features, normalised.
        support: (N, E) features of the images of other classes, normalised; where N is below N_NEAREST, all count.
    """
    texts, k = texts.double(), min(N_NEAREST, len(support))
    means, precision = torch.empty_like(texts), texts.new_zeros(texts.shape[1], texts.shape[1])
    for text, mean in zip(texts, means):
        near = support[(support @ text.to(support.dtype)).topk(k).indices].double()
        mean.copy_((near.sum(dim=0) + N_TEXTS * text) / (k + N_TEXTS))
        away = near - text
        ridge = away.pow(2).sum() / max(k - 1, 1)
        # (D^T D + r I)^-1 = (I - D^T (D D^T + r I)^-1 D) / r: a k x k inverse in place of an E x E one.
        kernel = away @ away.t()
        inside = torch.linalg.solve(kernel.diagonal_scatter(kernel.diagonal() + ridge), away)
        precision -= away.t() @ inside / ridge
        precision.diagonal().add_(1 / ridge)
    return means, len(precision) * precision / len(texts)


def rows(means: Tensor, precision: Tensor) -> dict[str, Tensor]:
    """Returns "means" (C, E), and "weight" (C, E) and "bias" (C,) of the scores: float32."""
    weight = means @ precision
    return {"means": means.float(), "weight": weight.float(), "bias": (weight * means).sum(dim=1).float() / -2}


class Gaussians(nn.Module):
    """What decides the scores of C classes, their text features (C, E), normalised, and alpha; at first zero-shot."""

    def __init__(self, class_features: Tensor):
        super().__init__()
        self.register_buffer("class_features", class_features)
        self.register_buffer("means", torch.zeros_like(class_features))
        self.register_buffer("weight", torch.zeros_like(class_features))
        self.register_buffer("bias", torch.zeros_like(class_features[:, 0]))
        self.register_buffer("alpha", torch.ones_like(class_features[0, 0]))
        self.register_buffer("support", class_features[:0].half())  # (N, E), what new classes are made of


class GaussianCLIP(PromptedCLIP):
    """CLIP's class features, and Gaussians beside them."""

    def parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns zero-shot CLIP's logits and the Gaussians' scores, each (B, C), of features (B, E)."""
        own, features = self.prompt_learner, F.normalize(features, dim=-1)
        return (
            self.logit_scale.exp() * features @ own.class_features.t(),
            F.linear(features, own.weight, own.bias),
        )

    def classify(self, features: Tensor) -> Tensor:
        zero_shot, scores = self.parts(features)
        return zero_shot + self.prompt_learner.alpha * scores


@TRAINER_REGISTRY.register()
class GDA(FeatureTrainer):
    """Nothing is trained; OPTIM in the config is not used."""

    node = "GDA"
    learns = False
    learned_per_class = {**dict.fromkeys(PER_CLASS, True), "alpha": False}
    ignored_on_load = ("support",)  # read by `before_load` alone

    @staticmethod
    def add_config(cfg: CN) -> None:
        cfg.TRAINER.GDA = CN()
        cfg.TRAINER.GDA.PREC = "fp16"  # of CLIP: fp32, fp16, amp, bf16
        cfg.TRAINER.GDA.AUGMENT_EPOCH = 10  # views of each training image, 1 to 20
        cfg.TRAINER.GDA.NEW_CLASSES = False  # keep what new classes are made of; runs on base classes always do

    @classmethod
    def searched(cls, cfg: CN) -> tuple[str, ...]:
        return ("alpha",)

    def templates(self) -> tuple[str, ...]:
        return self.templates_of_imagenet()

    def feature_model(self, clip_model: TwoTowers, class_features: Tensor, **changes) -> GaussianCLIP:
        return GaussianCLIP(clip_model, Gaussians(class_features))

    @torch.no_grad()
    def prepare(self) -> None:
        views, labels = self.support_features(self.cfg.TRAINER.GDA.AUGMENT_EPOCH)
        if n_lacking := self.num_classes - len(labels.unique()):
            raise ValueError(
                f"The data set {self.cfg.DATASET.NAME} has {n_lacking:,} class(es) without a training image, which "
                "have no mean. Replace the images that were skipped."
            )
        features, labels = F.normalize(views, dim=-1).flatten(0, 1), labels.repeat_interleave(views.shape[1])
        own, on_base = self.model.prompt_learner, self.cfg.DATASET.SUBSAMPLE_CLASSES == "base"
        own.load_state_dict(rows(*class_gaussians(features, labels, self.num_classes, classwise=on_base)), strict=False)
        if not own.weight.any():
            self.warnings.add(
                "Each class has one feature, which gives no covariance: GDA is zero-shot CLIP. Raise "
                "TRAINER.GDA.AUGMENT_EPOCH or DATASET.NUM_SHOTS."
            )
        if self.cfg.TRAINER.GDA.NEW_CLASSES or on_base:
            own.support = features.half()

    def search(self, features: Tensor, labels: Tensor) -> tuple[dict[str, float], int]:
        zero_shot, scores = self.model.parts(features)
        n_hits = [int(((zero_shot + alpha * scores).argmax(dim=1) == labels).sum()) for alpha in ALPHAS]
        return {"alpha": ALPHAS[n_hits.index(max(n_hits))]}, max(n_hits)

    def before_load(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Adds the rows of new classes to a checkpoint that does not know all classes asked for."""
        super().before_load(name, checkpoint)
        asked, names, found = self.dm.dataset.classnames, checkpoint.get("classnames"), checkpoint["state_dict"]
        if names is None or self.dm.dataset.source_labels is not None:
            return
        learned, own = self.class_rows().known(names), self.model.prompt_learner.state_dict()
        is_whole = found.keys() >= own.keys() and all(found[key].shape[1:] == own[key].shape[1:] for key in own)
        if None not in learned or not is_whole or any(len(found[key]) != len(names) for key in PER_CLASS):
            return  # ClassRows takes it, or refuses it
        if not len(found["support"]):
            raise ValueError(
                f"The checkpoint does not know {shorten(asked[learned.index(None)])}, and keeps nothing to make new "
                "classes of. Train on base classes, or with TRAINER.GDA.NEW_CLASSES True."
            )
        if self.cfg.DATASET.SUBSAMPLE_CLASSES == "new":
            learned = [None] * len(asked)  # of two classes of one name, as ImageNet has, this is the other one
        checkpoint["state_dict"], checkpoint["classnames"] = {**found, **self.with_new(learned, found)}, list(asked)

    def with_new(self, learned: list[int | None], found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns PER_CLASS of all classes asked for: which of `found` each is, None for a new one."""
        is_new = torch.tensor([row is None for row in learned])
        kept = torch.tensor([row for row in learned if row is not None], dtype=torch.long)
        texts = self.model.prompt_learner.class_features.clone()  # of all
        means, precision = new_gaussians(texts[is_new], found["support"].to(texts))
        all_means = means.new_empty(texts.shape)
        all_means[is_new], all_means[~is_new] = means, found["means"][kept].to(means)
        texts[~is_new] = found["class_features"][kept].to(texts)
        logger.info(f"Classes of the training: {len(kept):,}; new ones: {len(means):,}")
        return {"class_features": texts, **rows(all_means, precision)}

    def feature_head(self) -> LinearHead:
        own, scale = self.model.prompt_learner, self.model.logit_scale.exp()
        return LinearHead(scale * own.class_features + own.alpha * own.weight, 1.0, own.alpha * own.bias)
