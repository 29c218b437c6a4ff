"""IVLP: independent vision and language prompts, learned vectors before the blocks of both towers.

Paper: MaPLe: Multi-modal Prompt Learning, Khattak, Rasheed, Maaz, Khan, Khan, CVPR 2023,
       https://arxiv.org/abs/2210.03117, where it is the baseline without coupling

    text block i    reads [SOS] t_i,1 ... t_i,M w [CLASS] . [EOT]   t_0 w is "a photo of a" at the start
    image block i   reads [CLS] patches v_i,1 ... v_i,K             v_i, and t_i of i > 0, start from N(0, 0.02)
    loss = cross entropy(s cos(g(t, CLASS), f(x, v)), y)            g text tower, f image tower: frozen; w is fixed

Where the authors' code and this project differ:
- Vectors are kept in float32 and gradients are scaled with PREC fp16; theirs are rounded to float16 in each step.
- More vectors than CTX_INIT has tokens are refused; theirs start at random then.
- Widths and numbers of blocks are the backbone's, not always 512, 768 and 12.
N_CTX_VISION 0 and PROMPT_DEPTH_VISION 0 leave the image tower as it is: that is DeepLanguage.

Run:   TRAINER=IVLP bash scripts/cocoop/base2new_train.sh caltech101 1
       TRAINER=IVLP bash scripts/cocoop/base2new_test.sh caltech101 1
Cost:  CoOp's text tower (trainers/deep_prompts.py), and the image tower forward and backward in every step.
"""

from __future__ import annotations

from yacs.config import CfgNode as CN

from engine import TRAINER_REGISTRY

from .deep_prompts import DeepPromptTrainer


@TRAINER_REGISTRY.register()
class IVLP(DeepPromptTrainer):
    """Independent vision-language prompting."""

    node = "IVLP"
    learned_per_class = {"ctx": False, "text": False, "vision": False}
    may_leave_images = True

    @staticmethod
    def add_config(cfg: CN) -> None:
        node = cfg.TRAINER.IVLP = CN()
        node.N_CTX_VISION = 2  # K, vectors behind the patches; 0, with a depth of 0: none
        node.N_CTX_TEXT = 2  # M, vectors in front of the class name
        node.CTX_INIT = "a photo of a"  # words before the class name, the first M of them learned; "": M random vectors
        node.PREC = "fp16"  # fp32, fp16, amp, bf16
        node.PROMPT_DEPTH_VISION = 9  # blocks of the image tower that have vectors
        node.PROMPT_DEPTH_TEXT = 9  # blocks of the text tower; 1: in its input alone
        node.CHUNK_ROWS = -1  # rows of the text tower at once; 0: all; -1: as many as fit the GPU
        node.SHARD_CLASSES = False  # several ranks: each encodes the prompts of its share of the classes
        node.CHECKPOINT_ACTIVATIONS = False  # compute those of the image tower again in the backward pass: less memory
