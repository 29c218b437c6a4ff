"""TCP: the middle of the text tower is told of each class by vectors that are made from its hand-made prompt.

Paper: TCP: Textual-based Class-aware Prompt tuning for Visual-Language Model, Yao, Zhang, Xu, CVPR 2024,
       https://arxiv.org/abs/2311.18231

    t_i  = [V]_1 ... [V]_M [CLASS_i] .                    one context for all classes
    a_i  = norm(g("a photo of a CLASS_i."))               g text tower, frozen; a_i never changes
    k_i  = h(a_i), (M, D)                                 h Linear E -> E/4, QuickGELU, Linear -> M D
    w_i  = norm(g(t_i)), but that before block BLOCK of g the states of [V]_1 ... [V]_M are replaced by k_i
    loss = cross entropy(s cos(w_i, f(x)), y) + W (1 - mean_i cos(w_i, a_i))

Where code and paper differ, and where this file does:
- The vectors enter once, before block 8 of 12, counted from 0. In a tower of another depth that is two thirds of it.
- W is 8, a number in the code. The authors' scripts set TRAINER.COOP.W to 8, which their trainer does not use; here
  it is W.
- The prompts are the code's. Learned and hand-made prompt have different words behind the class name, by data set.
- The authors' h makes four vectors whatever N_CTX is; here M. Both are 4 in their runs.
- With CTX_INIT the authors' context starts from "a photo of a", whatever CTX_INIT is; here from its words.
- The authors train in float16 and do not scale the loss. Here what is learned stays float32, and PREC fp16 scales it;
  OPTIM.ADAM_EPS 1e-3, which float16 needed, is kept. PREC amp computes the same loss; in the code it does not run.
- Their scripts test SUN397 and ImageNet at epoch 25 of 50. Here the last epoch is tested.

Run:   TRAINER=TCP bash scripts/cocoop/base2new_train.sh caltech101 1
       TRAINER=TCP bash scripts/few_shot.sh caltech101 vit_b16 16
Cost:  CoOp's up to BLOCK; from there on each class computes M positions more (clip/packed_tower.py). Then the
       hand-made prompts pass the text tower once for the whole run.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.blocks import QuickGELU
from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY
from engine.config.published import PublishedOptions

from .class_features import guide_features
from .context import ContextLearner, ContextTrainer, CustomCLIP

REDUCTION = 4  # the bottleneck of h
WORDS = {  # behind the learned context; for other data sets "{}."
    "OxfordPets": "{}, a type of pet.",
    "OxfordFlowers": "{}, a type of flower.",
    "FGVCAircraft": "{}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "StanfordCars": "{}, a type of car",
    "Food101": "{}, a type of food.",
    "UCF101": "person doing {}.",
}


class PromptLearner(ContextLearner):
    """The context vectors, and the network h that makes the vectors of each class.

    Args:
        clip_model: Gives the token embedding and the widths.
        classnames: C names; underscores are read as spaces.
        knowledge: The a_i, (C, E) float32, normalised.
        block: Before which block of the text tower, counted from 0, the vectors enter; 0: two thirds of its depth.
        **start: n_ctx, ctx_init and words, as ContextLearner takes them.

    Raises:
        ValueError: If the text tower has no such block.
    """

    class_deep = True

    def __init__(self, clip_model: TwoTowers, classnames: list[str], knowledge: Tensor, *, block: int = 0, **start):
        super().__init__(clip_model, classnames, **start)
        n_blocks = len(clip_model.transformer.resblocks)
        self.block = block or n_blocks * 2 // 3
        if not 1 <= self.block < n_blocks:
            raise ValueError(
                f"TRAINER.TCP.BLOCK is {block}, but the text tower has {n_blocks} blocks; it must be 0 (two thirds of "
                f"them) or from 1 to {n_blocks - 1}."
            )
        embed_dim = knowledge.shape[1]
        layers = [
            ("linear1", nn.Linear(embed_dim, embed_dim // REDUCTION)),
            ("relu", QuickGELU()),  # named as in the authors' checkpoints
            ("linear2", nn.Linear(embed_dim // REDUCTION, self.ctx.numel())),
        ]
        self.meta_net = nn.Sequential(OrderedDict(layers))  # float32
        self.register_buffer("knowledge", knowledge, persistent=False)  # of these class names

    def deep(self) -> list[Tensor | None]:
        """Returns nothing for the blocks before BLOCK, then the vectors of each class (C, M, D)."""
        return [None] * (self.block - 1) + [self.meta_net(self.knowledge).unflatten(1, self.ctx.shape)]


@TRAINER_REGISTRY.register()
class TCP(ContextTrainer):
    """Textual-based class-aware prompt tuning."""

    node = "TCP"
    published_options = PublishedOptions(
        "TCP",
        "COOP",
        meanings={"CTX_INIT": {"True": "a photo of a", "False": ""}},
        fixed={"CSC": False, "CLASS_TOKEN_POSITION": "end"},
    )
    learned_per_class = {"ctx": False, "meta_net": False}
    own_templates = {
        "FGVCAircraft": "a photo of an aircraft {}.",
        "DescribableTextures": "a photo of a {}, a type of texture.",
        "Food101": "a photo of a {}, a type of food.",
    }
    image_tower = ContextTrainer.image_tower  # named beside forward_backward, which takes features: INPUT.VIEWS works

    @staticmethod
    def add_config(cfg: CN) -> None:
        cfg.TRAINER.TCP = CN()
        cfg.TRAINER.TCP.N_CTX = 4  # number of context vectors; with CTX_INIT its number of tokens
        cfg.TRAINER.TCP.CTX_INIT = ""  # words to start from; "": random
        cfg.TRAINER.TCP.W = 8.0  # weight of the distance from the hand-made prompt; 0: the cross entropy alone
        cfg.TRAINER.TCP.BLOCK = 0  # block of the text tower before which the classes' vectors enter; 0: 8 of 12
        cfg.TRAINER.TCP.PREC = "fp16"  # fp32, fp16, amp, bf16
        cfg.TRAINER.TCP.CHUNK_ROWS = -1  # rows of the text tower at once; 0: all; -1: as many as fit the GPU
        cfg.TRAINER.TCP.SHARD_CLASSES = False  # several ranks: each encodes the prompts of its share of the classes

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        errors, weight = super().config_errors(cfg), cfg.TRAINER.TCP.W
        if not weight >= 0:
            errors.append(f"TRAINER.TCP.W is {weight}; it must be 0 (the cross entropy alone) or more.")
        return errors

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> CustomCLIP:
        node, words = self.cfg.TRAINER.TCP, WORDS.get(self.cfg.DATASET.NAME, "{}.")
        knowledge = guide_features(clip_model, classnames, self.templates())
        start = {"words": words, **self.start_options(**changes)}
        learner = PromptLearner(clip_model, classnames, knowledge, block=node.BLOCK, **start)
        return CustomCLIP(clip_model, learner, chunk_rows=node.CHUNK_ROWS, shard_classes=node.SHARD_CLASSES)

    def learned_with(self) -> dict[str, tuple[Any, str]]:
        return {**super().learned_with(), "block": (self.model.prompt_learner.block, "TRAINER.TCP.BLOCK")}

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        return self.guided_step(batch, self.model.prompt_learner.knowledge, self.cfg.TRAINER.TCP.W)
