"""CoOp: the words of CLIP's prompt are replaced by learned vectors.

Paper: Learning to Prompt for Vision-Language Models, Zhou, Yang, Loy, Liu, IJCV 2022, https://arxiv.org/abs/2109.01134

    t_i      = [V]_1 ... [V]_M [CLASS_i] .                        one context for all classes, or [V]^i for each (CSC)
    p(y=i|x) = softmax_i(cos(g(t_i), f(x)) / tau)                 g text tower, f image tower: frozen

All of it is in trainers/context.py: [V] is `ContextLearner.ctx`, the softmax's logits are `CustomCLIP.classify`. KgCoOp
and ProGrad learn the same vectors, each in its own way.

Run:   bash scripts/coop/main.sh caltech101 rn50_ep50 end 16 1 False
Cost:  the text tower, forward and backward, for what differs between prompts (clip/prompts.py); images only forward.
"""

from __future__ import annotations

from engine import TRAINER_REGISTRY

from .backbone import load_clip_to_cpu  # noqa: F401  files written for the original look here
from .base import TextEncoder  # noqa: F401  and for this
from .context import ContextLearner as PromptLearner  # noqa: F401  and for these
from .context import ContextTrainer, CustomCLIP  # noqa: F401


@TRAINER_REGISTRY.register()
class CoOp(ContextTrainer):
    """Context optimisation."""

    node = "COOP"
