"""PromptSRC: IVLP's vectors, kept near zero-shot CLIP by three regularisers, and averaged over the epochs.

Paper: Self-regulating Prompts: Foundational Model Adaptation without Forgetting, Khattak, Wasim, Naseer, Khan, Yang,
       Khan, ICCV 2023, https://arxiv.org/abs/2307.06948

    w_i, f    norm(g(t, CLASS_i)), norm(f(x, v)) with vectors t, v before the blocks (trainers/deep_prompts.py)
    a_i, f0   norm(mean_k g(template_k(CLASS_i))), norm(f(x)) of CLIP itself, for the same view x; 60 templates
    loss = cross entropy(s f w, y) + TEXT_LOSS_WEIGHT mean|w - a| + IMAGE_LOSS_WEIGHT mean|f - f0|
           + mean_b,i p0_bi (log p0_bi - log p_bi),  p = softmax_i(s f w_i), p0 = softmax_i(s f0 a_i)
    theta = sum_e g_e theta_e after the last epoch,  g_e ~ N(e; GPA_MEAN, GPA_STD), sum_e g_e = 1, e = 1 ... MAX_EPOCH

All means go over all entries, that of the divergence over B C of them. Tests of an epoch before the last see theta_e.

Where the authors' code and this project differ:
- The average is of the learned vectors alone, in float32; theirs is of all of CLIP in float16, which rounds.
- Vectors are kept in float32 and gradients are scaled with PREC fp16; PREC amp computes the same loss, theirs does not
  run.
- An interrupted run goes on with its average.
With both weights 0 and without the divergence and the average it is IVLP.

Run:   TRAINER=PromptSRC bash scripts/cocoop/base2new_train.sh caltech101 1
       TRAINER=PromptSRC bash scripts/cocoop/base2new_test.sh caltech101 1
Cost:  IVLP's, one more forward pass of the image tower in every step, and 60 texts of each class once.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY, compute_accuracy
from engine.interruption import finishing

from .class_features import mean_features
from .deep_prompts import DeepPromptTrainer, IndependentLearner
from .templates import IMAGENET_TEMPLATES

N_TEMPLATES = 60  # the first of CLIP's 80, as the authors have them


def epoch_weights(n_epochs: int, mean: float, std: float) -> Tensor:
    """Returns the g_e, (n_epochs,) float64: the normal density at 1, 2, ..., with sum 1."""
    epochs = torch.arange(1, n_epochs + 1, dtype=torch.float64)
    return (-((epochs - mean) ** 2) / (2 * std**2)).softmax(dim=0)


class AveragedLearner(IndependentLearner):
    """The vectors, and their weighted sum over the epochs so far, which is saved with them."""

    def __init__(self, clip_model: TwoTowers, classnames: list[str], **options):
        super().__init__(clip_model, classnames, **options)
        self.average = nn.Module()
        for name, parameter in self.named_parameters():
            self.average.register_buffer(name.replace(".", "_"), torch.zeros_like(parameter))  # float32
        self.register_buffer("n_averaged", torch.tensor(0))

    def forget_average(self) -> None:
        for buffer in (*self.average.buffers(), self.n_averaged):
            buffer.zero_()

    @torch.no_grad()
    def after_epoch(self, epoch: int, weights: Tensor) -> None:
        """Adds the vectors as they are after `epoch` epochs, once; after the last one they become the sum."""
        sums = [(self.average.get_buffer(name.replace(".", "_")), own) for name, own in self.named_parameters()]
        if self.n_averaged < epoch:
            for total, own in sums:
                total.add_(own, alpha=weights[epoch - 1].item())
            self.n_averaged.fill_(epoch)
        if epoch == len(weights):
            for total, own in sums:
                own.copy_(total)


@TRAINER_REGISTRY.register()
class PromptSRC(DeepPromptTrainer):
    """Prompting with self-regulating constraints."""

    node, learner_class = "PROMPTSRC", AveragedLearner
    learned_per_class = dict.fromkeys(("ctx", "text", "vision", "average", "n_averaged"), False)

    @staticmethod
    def add_config(cfg: CN) -> None:
        node = cfg.TRAINER.PROMPTSRC = CN()
        node.N_CTX_VISION = 4  # K, vectors behind the patches
        node.N_CTX_TEXT = 4  # M, vectors in front of the class name
        node.CTX_INIT = "a photo of a"  # words before the class name, the first M of them learned; "": M random vectors
        node.PREC = "fp16"  # fp32, fp16, amp, bf16
        node.PROMPT_DEPTH_VISION = 9  # blocks of the image tower that have vectors
        node.PROMPT_DEPTH_TEXT = 9  # blocks of the text tower; 1: in its input alone
        node.TEXT_LOSS_WEIGHT = 25.0  # of the distance of the text features from zero-shot CLIP's
        node.IMAGE_LOSS_WEIGHT = 10.0  # of the images' features
        node.GPA_MEAN = 15.0  # epoch with the largest weight in the average, counted from 1
        node.GPA_STD = 1.0  # epochs, above 0; the larger, the more alike the weights
        node.CHUNK_ROWS = -1  # rows of the text tower at once; 0: all; -1: as many as fit the GPU
        node.SHARD_CLASSES = False  # several ranks: each encodes the prompts of its share of the classes
        node.CHECKPOINT_ACTIVATIONS = False  # compute those of the image tower again in the backward pass: less memory

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        errors, node, group = super().config_errors(cfg), cfg.TRAINER.PROMPTSRC, "TRAINER.PROMPTSRC"
        for key in ("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT"):
            if not node[key] >= 0:
                errors.append(f"{group}.{key} is {node[key]}; it must be 0 or more.")
        if not node.GPA_STD > 0:
            errors.append(f"{group}.GPA_STD is {node.GPA_STD}; it must be above 0.")
        if cfg.RESUME:
            errors.append(
                f"RESUME is {cfg.RESUME}, but PromptSRC averages over the epochs of one run. Leave it out: the command "
                "of an interrupted run goes on from its own folder."
            )
        return errors

    def templates(self) -> tuple[str, ...]:
        return IMAGENET_TEMPLATES[:N_TEMPLATES]

    @cached_property
    def zero_shot_features(self) -> Tensor:
        """The a_i, (C, E) float32, normalised. Only training needs them."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return F.normalize(mean_features(self.clip_model, self.dm.dataset.classnames, self.templates()), dim=-1)

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        model, node = self.model, self.cfg.TRAINER.PROMPTSRC
        images, labels = self.parse_batch_train(batch)
        with self.autocast:
            with torch.no_grad():
                features_0 = F.normalize(model.image_encoder(images).float(), dim=-1)
                logits_0 = model.classify(features_0, self.zero_shot_features).float()
            features, text_features = F.normalize(model.image_features(images), dim=-1), model.text_features()
            logits = model.classify(features, text_features).float()
            of_text = (text_features - self.zero_shot_features).abs().mean()
            of_images = (features - features_0).abs().mean()
            log_p, log_p_0 = logits.log_softmax(dim=-1), logits_0.log_softmax(dim=-1)
            divergence = (log_p_0.exp() * (log_p_0 - log_p)).mean()
            guide = node.TEXT_LOSS_WEIGHT * of_text + node.IMAGE_LOSS_WEIGHT * of_images + divergence
            loss = self.loss(logits, labels) + guide
        self.model_backward_and_update(loss)
        return {"loss": loss.detach(), "guide": guide.detach(), "acc": compute_accuracy(logits, labels)[0]}

    def before_train(self) -> None:
        super().before_train()
        if self.point is None:
            self.model.prompt_learner.forget_average()  # of MODEL.INIT_WEIGHTS

    def after_epoch(self) -> None:
        node = self.cfg.TRAINER.PROMPTSRC
        with finishing():  # a signal waits
            weights = epoch_weights(self.max_epoch, node.GPA_MEAN, node.GPA_STD)
            self.model.prompt_learner.after_epoch(self.epochs_done, weights)
        super().after_epoch()
