"""KgCoOp: CoOp whose text features are kept near those of the hand-made prompt.

Paper: Visual-Language Prompt Tuning with Knowledge-guided Context Optimization, Yao, Zhang, Xu, CVPR 2023,
       https://arxiv.org/abs/2303.13283

    t_i  = [V]_1 ... [V]_M [CLASS_i] .                            V starts as "a photo of a"
    w_i  = norm(g(t_i)),  a_i = norm(g("a photo of a CLASS_i."))  g text tower, frozen; a_i never changes
    loss = cross entropy(s cos(w_i, f(x)), y) + W (1 - mean_i cos(w_i, a_i))

Where code and paper differ:
- The penalty is the released code's cosine. |w_i - a_i|^2 = 2 (1 - cos(w_i, a_i)) for unit vectors, so the squared
  distance of the paper with the weight W / 2 is the same loss.
- W is 8, as the released scripts set it. The code's own default is 1.
- The hand-made prompts are the code's: the data set's own, but for DTD.
- The code has a context at the end for all classes. Here CSC and CLASS_TOKEN_POSITION work as CoOp's do.
- PREC amp computes the same loss in mixed precision. In the code that branch does not run.
With W 0 it is CoOp.

Run:   TRAINER=KgCoOp bash scripts/cocoop/base2new_train.sh caltech101 1
       TRAINER=KgCoOp bash scripts/coop/main.sh caltech101 vit_b16_ep100_ctxv1 end 4 4 False
Cost:  CoOp's, and one pass of the hand-made prompts through the text tower for the whole run.
"""

from __future__ import annotations

from functools import cached_property

from torch import Tensor
from yacs.config import CfgNode as CN

from engine import TRAINER_REGISTRY
from engine.config.published import PublishedOptions

from .class_features import guide_features
from .context import ContextTrainer


@TRAINER_REGISTRY.register()
class KgCoOp(ContextTrainer):
    """Knowledge-guided context optimisation."""

    node = "KGCOOP"
    published_options = PublishedOptions("KGCOOP", "COOP", {"CTX_INIT": {"True": "a photo of a", "False": ""}})
    unused_entries = ("bias_vectors", "meta_net.linear1.weight", "meta_net.linear1.bias")
    own_templates = {"DescribableTextures": "a photo of a {}, a type of texture."}
    image_tower = ContextTrainer.image_tower  # named beside forward_backward, which takes features: INPUT.VIEWS works

    @classmethod
    def add_config(cls, cfg: CN) -> None:
        super().add_config(cfg)
        cfg.TRAINER.KGCOOP.W = 8.0  # weight of the penalty; 0: CoOp

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        errors, weight = super().config_errors(cfg), cfg.TRAINER.KGCOOP.W
        if not weight >= 0:
            errors.append(f"TRAINER.KGCOOP.W is {weight}; it must be 0 (CoOp) or more.")
        return errors

    def published_names(self) -> dict[str, str]:
        return {"ctx": "ctx"}  # beside unused_entries

    @cached_property
    def zero_shot_features(self) -> Tensor:
        """The a_i, (C, E) float32, normalised. Only training needs them."""
        return guide_features(self.clip_model, self.dm.dataset.classnames, self.templates())

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        return self.guided_step(batch, self.zero_shot_features, self.cfg.TRAINER.KGCOOP.W)
