"""CLIP-Adapter: a small network on CLIP's image feature, mixed with the feature itself.

Paper: CLIP-Adapter: Better Vision-Language Models with Feature Adapters, Gao et al., IJCV 2023,
       https://arxiv.org/abs/2110.04544

    A(f)     = relu(W_2 relu(W_1 f))                          E -> E/4 -> E, no biases; f not normalised
    f'       = r A(f) + (1 - r) f
    p(y=i|x) = softmax_i(cos(w_i, f') / tau)                  w_i of the data set's hand-made prompt, fixed

Run:   TRAINER=CLIPAdapter bash scripts/few_shot.sh caltech101 rn50 16
       TRAINER=CLIPAdapter bash scripts/cocoop/base2new_train.sh caltech101 1
Cost:  two matrices of E x E/4; with INPUT.VIEWS an epoch takes milliseconds once each view has been encoded.

Decisions where the authors' code says one thing, or nothing, and this project another:
- The code has 1024 for E, which is RN50's. Here E is the backbone's.
- Its settings are not released; its trainer runs with CoOp's YAML. So do the YAML files here, with INPUT.VIEWS 20.
- r is 0.2 as in the code. The paper chooses it for each data set: `sweep.py --grid TRAINER.CLIP_ADAPTER.RATIO` does so
  on validation items.

The adapter is shared by all classes, so it answers new ones.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY

from .base import PromptedCLIP
from .feature_methods import FeatureTrainer

REDUCTION = 4  # the adapter's width is E / 4


class Adapter(nn.Module):
    """From image features (B, E) to adapted ones (B, E), of which a share of `ratio` is the network's."""

    def __init__(self, dim: int, ratio: float):
        super().__init__()
        self.down = nn.Linear(dim, dim // REDUCTION, bias=False)
        self.up = nn.Linear(dim // REDUCTION, dim, bias=False)
        self.ratio = ratio

    def forward(self, features: Tensor) -> Tensor:
        adapted = F.relu(self.up(F.relu(self.down(features))))
        return self.ratio * adapted + (1 - self.ratio) * features


class AdaptedCLIP(PromptedCLIP):
    """CLIP with an Adapter on its image features, and fixed class features (C, E), normalised."""

    def __init__(self, clip_model: TwoTowers, adapter: Adapter, class_features: Tensor):
        super().__init__(clip_model, adapter)
        self.register_buffer("class_features", class_features)

    def classify(self, features: Tensor) -> Tensor:
        return self.logit_scale.exp() * F.normalize(self.prompt_learner(features), dim=-1) @ self.class_features.t()


@TRAINER_REGISTRY.register()
class CLIPAdapter(FeatureTrainer):
    """A bottleneck on the image feature."""

    node = "CLIP_ADAPTER"
    learned_per_class = {"down": False, "up": False}  # E / 4 may be the number of classes

    @staticmethod
    def add_config(cfg: CN) -> None:
        cfg.TRAINER.CLIP_ADAPTER = CN()
        cfg.TRAINER.CLIP_ADAPTER.PREC = "fp16"  # of CLIP: fp32, fp16, amp, bf16
        cfg.TRAINER.CLIP_ADAPTER.RATIO = 0.2  # the network's share of the adapted feature, 0 to 1

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        ratio = cfg.TRAINER.CLIP_ADAPTER.RATIO
        wrong = f"TRAINER.CLIP_ADAPTER.RATIO is {ratio}; it must be from 0 (zero-shot CLIP) to 1 (the network alone)."
        return super().config_errors(cfg) + ([] if 0 <= ratio <= 1 else [wrong])

    def feature_model(self, clip_model: TwoTowers, class_features: Tensor, **changes) -> AdaptedCLIP:
        adapter = Adapter(class_features.shape[1], self.cfg.TRAINER.CLIP_ADAPTER.RATIO)
        return AdaptedCLIP(clip_model, adapter, class_features)
