"""LP++: a linear probe that adds text features to its class vectors, with a weight for each class; steps of its own.

Paper: LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP, Huang, Shakeri, Dolz, Boudiaf, Bahig, Ben Ayed,
       CVPR 2024, https://arxiv.org/abs/2404.02285

    x        = norm(f(view))                                  one view of each training image, N of them
    logits_c = (w_c + a_c t_c) . x + b_c                      t_c as zero-shot CLIP's, seven templates on ImageNet
    at first: w_c = sum of the x of class c,  a_c = 250 mean_c mean_{x of c} x . t_c,  b_c uniform within 1 / sqrt(E)
    w, b     by SGD with steps LR N / lambda_max(sum x x^T)
    a        in every 10th step only, by LR_ALPHA N / max_c sum (x . t_c)^2, without momentum

Run:   TRAINER=LPPlusPlus bash scripts/few_shot.sh caltech101 rn50 16
Cost:  a matrix of C x E; one view of each image passes the tower once. A step is a product of all features with it; 300
       of them, each followed by a validation.

Decisions where paper and code differ, or this project from both:
- The code never zeroes the gradient of a: its j-th step takes the sum of all 10 j gradients so far. The published
  numbers come from the code, so this does the same; SUM_GRADIENTS False is the paper's descent.
- Steps are the code's: LR 4, LR_ALPHA 0.25, where the paper has 4. OPTIM's schedule, if any, applies to both.
- The epoch with the best few-shot validation is kept, of equals the first; the code keeps the last of them, and
  validates on as many images of a class as it trains on, this project on four at most. Without validation items set
  TEST.FINAL_MODEL last_step, as the YAML files of ImageNet do: its validation images are its test images. There, the
  code validates on further training images.
- A class may have fewer images than others; the code takes the number of classes as N / shots.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY, build_lr_scheduler, build_optimizer
from engine.config.load import option_errors
from engine.features.head import LinearHead

from .base import PromptedCLIP
from .feature_methods import FeatureTrainer, start_errors

START_ALPHA = 250.0
EVERY = 10  # steps between two of alpha


class BlendedProbe(nn.Module):
    """Class vectors w (C, E) and text features t (C, E), normalised, with weights alpha (C,), and biases (C,); float32.

    `steps` () and `alpha_steps` () are the units of the learning rates, `alpha_gradient` (C,) the sum of gradients.
    """

    def __init__(self, class_features: Tensor, *, bias: bool):
        super().__init__()
        n_classes, dim = class_features.shape
        self.register_buffer("class_features", class_features)
        self.weight = nn.Parameter(torch.zeros_like(class_features))
        self.alpha = nn.Parameter(class_features.new_zeros(n_classes))
        start = torch.empty(n_classes).uniform_(-(dim**-0.5), dim**-0.5).to(class_features)
        if bias:
            self.bias = nn.Parameter(start)
        else:
            self.register_buffer("bias", torch.zeros_like(start))
        for name, value in (("steps", ()), ("alpha_steps", ()), ("alpha_gradient", (n_classes,))):
            self.register_buffer(name, class_features.new_ones(value))
        self.alpha_gradient.zero_()

    @torch.no_grad()
    def start(self, features: Tensor, labels: Tensor) -> None:
        """Sets start and steps by the training images' features (N, E), normalised, and labels (N,)."""
        cosines, n_images = features @ self.class_features.t(), torch.bincount(labels, minlength=len(self.weight))
        own = torch.zeros_like(self.alpha).index_add(0, labels, cosines.gather(1, labels[:, None])[:, 0])
        is_there = n_images > 0
        self.weight.zero_().index_add_(0, labels, features)
        self.alpha.fill_(START_ALPHA * (own[is_there] / n_images[is_there]).mean())
        self.steps.fill_(len(features) / torch.linalg.eigvalsh(features.t() @ features)[-1])
        self.alpha_steps.fill_(len(features) / cosines.pow(2).sum(dim=0).max())

    def forward(self) -> Tensor:
        """Returns the vectors (C, E) of the classes, not normalised."""
        return self.weight + self.alpha[:, None] * self.class_features


class BlendedCLIP(PromptedCLIP):
    """CLIP whose features are classified by a BlendedProbe."""

    def classify(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(features, dim=-1), self.prompt_learner(), self.prompt_learner.bias)


@TRAINER_REGISTRY.register()
class LPPlusPlus(FeatureTrainer):
    """A blended linear probe, of the classes that it was trained on alone."""

    node = "LP_PLUS_PLUS"
    learned_per_class = {
        **dict.fromkeys(("class_features", "weight", "alpha", "bias", "alpha_gradient"), True),
        **dict.fromkeys(("steps", "alpha_steps"), False),
    }

    @staticmethod
    def add_config(cfg: CN) -> None:
        cfg.TRAINER.LP_PLUS_PLUS = CN()
        cfg.TRAINER.LP_PLUS_PLUS.PREC = "fp16"  # of CLIP: fp32, fp16, bf16
        cfg.TRAINER.LP_PLUS_PLUS.BIAS = True  # whether classes have biases
        cfg.TRAINER.LP_PLUS_PLUS.LR_ALPHA = 0.25  # of alpha; like OPTIM.LR in units of the features' own
        cfg.TRAINER.LP_PLUS_PLUS.SUM_GRADIENTS = True  # alpha's, of all steps so far; False: the current one alone

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        options = {"TRAINER.LP_PLUS_PLUS.PREC": ("fp32", "fp16", "bf16"), "OPTIM.NAME": ("sgd",)}
        rate = cfg.TRAINER.LP_PLUS_PLUS.LR_ALPHA
        wrong = f"TRAINER.LP_PLUS_PLUS.LR_ALPHA is {rate}; it must be 0 (alpha stays) or more."
        errors = super().config_errors(cfg) + option_errors(cfg, options) + start_errors(cfg, cls.__name__)
        return errors + ([] if rate >= 0 else [wrong])

    def templates(self) -> tuple[str, ...]:
        return self.templates_of_imagenet()

    def feature_model(self, clip_model: TwoTowers, class_features: Tensor, **changes) -> BlendedCLIP:
        return BlendedCLIP(clip_model, BlendedProbe(class_features, bias=self.cfg.TRAINER.LP_PLUS_PLUS.BIAS))

    def build_learner(self, **changes) -> None:
        super().build_learner(**changes)
        own, optim = self.model.prompt_learner, self.cfg.OPTIM
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)  # all gradients are float32
        alpha = {"params": [own.alpha], "lr": self.cfg.TRAINER.LP_PLUS_PLUS.LR_ALPHA, "momentum": 0.0}
        others = {"params": [value for value in own.parameters() if value is not own.alpha]}
        optimizer = build_optimizer(own, optim, param_groups=[others, alpha])
        self.register_model("prompt_learner", own, optimizer, build_lr_scheduler(optimizer, optim))

    def prepare(self) -> None:
        views, labels = self.support_features(1)
        self.model.prompt_learner.start(F.normalize(views[:, 0], dim=-1), labels)

    def model_backward_and_update(self, loss: Tensor, *args, **kwargs) -> None:
        super().model_backward_and_update(loss, *args, **kwargs, change=self.own_steps)

    @torch.no_grad()
    def own_steps(self) -> None:
        """Makes steps of gradients: those of w and b in their unit, that of alpha in each EVERY-th step alone."""
        own, is_summed = self.model.prompt_learner, self.cfg.TRAINER.LP_PLUS_PLUS.SUM_GRADIENTS
        own.alpha_gradient.mul_(float(is_summed)).add_(own.alpha.grad)
        is_due = (self.epoch * self.num_batches + self.batch_idx + 1) % EVERY == 0
        for value in own.parameters():
            value.grad *= own.steps
        own.alpha.grad = own.alpha_steps * own.alpha_gradient if is_due else None

    @torch.no_grad()
    def feature_head(self) -> LinearHead:
        own = self.model.prompt_learner
        return LinearHead(own(), 1.0, own.bias.detach())
