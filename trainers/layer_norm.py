"""LayerNorm tuning: the weights and biases of all layer norms of CLIP's towers, and nothing else.

Paper: the first stage of Rethinking Few-Shot Adaptation of Vision-Language Models in Two Stages, Farina, Mancini,
       Iacca, Ricci, CVPR 2025, https://arxiv.org/abs/2503.11609

    norm(x) = weight (x - mean(x)) / sqrt(var(x) + eps) + bias      weight and bias (D,) learned, from CLIP's values
    loss    = cross entropy(s f w, y)                               with the tuned towers, see trainers/tuned_towers.py

Where the authors' code and this project differ:
- All layer norms are tuned, as the paper has it. A fork of their code switches those outside of the blocks (ln_pre,
  ln_post, ln_final) off again; whether theirs does was not seen.
- They train 300 K steps with batches of 32, for K images of each class. That is about 9,600 / C epochs for C classes:
  MAX_EPOCH is 96, right for 100 classes. The log says how many steps a run has, and how many theirs would have.
- The rate follows its cosine from epoch to epoch and down to 0; theirs from step to step, and down to 1e-6.

Run:   TRAINER=LayerNormTuning bash scripts/few_shot.sh caltech101 vit_b16 16
Cost:  both towers, forward and backward, in every step.
"""

from __future__ import annotations

from torch import nn

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY

from .tuned_towers import TunedTowersTrainer, merge_norms, own_norms


@TRAINER_REGISTRY.register()
class LayerNormTuning(TunedTowersTrainer):
    """Tuning of CLIP's layer norms."""

    node, steps_per_shot = "LAYER_NORM", 300

    def tune(self, clip_model: TwoTowers, tower: str) -> nn.ModuleDict:
        return own_norms(clip_model, tower)

    def merge_into(self, clip_model: TwoTowers) -> None:
        merge_norms(self.model.prompt_learner, clip_model)
