"""Deep language prompting: CoOp with other learned vectors before every block of the text tower.

Paper: MaPLe: Multi-modal Prompt Learning, Khattak, Rasheed, Maaz, Khan, Khan, CVPR 2023,
       https://arxiv.org/abs/2210.03117, where it is a baseline

    text block i   reads [SOS] t_i,1 ... t_i,M [CLASS] . [EOT]   t_0 starts as "a photo of a", others from N(0, 0.02)
    loss = cross entropy(s cos(g(t, CLASS), f(x)), y)            g text tower, f image tower: frozen

Where the authors' code and this project differ:
- The authors run their IVLP without vision prompts; here it is a method of its own, which IVLP with 0 vectors equals.
- Vectors are kept in float32 and gradients are scaled with PREC fp16; theirs are rounded to float16 in each step.
With PROMPT_DEPTH_TEXT 1 it is CoOp.

Run:   TRAINER=DeepLanguage bash scripts/cocoop/base2new_train.sh caltech101 1
Cost:  CoOp's. The image tower is frozen, so features of images are kept and INPUT.VIEWS works.
"""

from __future__ import annotations

from yacs.config import CfgNode as CN

from engine import TRAINER_REGISTRY

from .deep_prompts import DeepPromptTrainer


@TRAINER_REGISTRY.register()
class DeepLanguage(DeepPromptTrainer):
    """Deep language prompting."""

    node = "DEEP_LANGUAGE"
    learned_per_class = {"ctx": False, "text": False}

    @staticmethod
    def add_config(cfg: CN) -> None:
        node = cfg.TRAINER.DEEP_LANGUAGE = CN()
        node.N_CTX_TEXT = 4  # M, vectors in front of the class name
        node.CTX_INIT = "a photo of a"  # words before the class name, the first M of them learned; "": M random vectors
        node.PREC = "fp16"  # fp32, fp16, amp, bf16
        node.PROMPT_DEPTH_TEXT = 12  # blocks of the text tower that have vectors; 1: CoOp
        node.CHUNK_ROWS = -1  # rows of the text tower at once; 0: all; -1: as many as fit the GPU
        node.SHARD_CLASSES = False  # several ranks: each encodes the prompts of its share of the classes
