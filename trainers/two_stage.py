"""2SFS: first the layer norms of CLIP's towers are tuned, then a classifier on top of them.

Paper: Rethinking Few-Shot Adaptation of Vision-Language Models in Two Stages, Farina, Mancini, Iacca, Ricci, CVPR 2025,
       https://arxiv.org/abs/2503.11609

    stage 1   loss = cross entropy(s f w, y)          as LayerNorm tuning, see trainers/tuned_towers.py
    stage 2   loss = cross entropy(s f norm(V), y)    V (C, E) learned, from stage 1's w; the towers are as it left them
    test      norm(v_i) for a class of the training, w_i of the tuned text tower for any other

Stage 1 has the first round(FIRST_STAGE MAX_EPOCH) epochs. What has no gradient in a stage is not touched by the
optimiser, by its weight decay neither: AdamW passes over it. A checkpoint of stage 1 is tested with w.

Where the authors' code and this project differ:
- Each stage has its own cosine, as theirs; it falls from epoch to epoch and down to 0, theirs from step to step and
  down to 1e-6. Stage 2 goes on with the scale of the loss in float16; theirs starts anew.
- All layer norms are tuned, and 300 K steps are about 9,600 / C epochs: see trainers/layer_norm.py.

Run:   TRAINER=TwoStage bash scripts/few_shot.sh caltech101 vit_b16 16
       TRAINER=TwoStage bash scripts/cocoop/base2new_train.sh caltech101 1       then base2new_test.sh
Cost:  stage 1: both towers, forward and backward, in every step. Stage 2: the image tower, forward.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY, build_lr_scheduler
from engine.interruption import finishing
from engine.optim import ClosedFormLR

from .tuned_towers import TunedCLIP, TunedLearner, TunedTowersTrainer, merge_norms, own_norms

logger = logging.getLogger(__name__)


class TwoStageLearner(TunedLearner):
    """The layer norms, and the classifier V with a mark for each class that has a row of it."""

    def __init__(self, clip_model: TwoTowers, classnames: list[str], *tuned):
        super().__init__(clip_model, classnames, *tuned)
        n_classes, embed_dim = len(classnames), clip_model.text_projection.shape[1]
        self.classifier = nn.Parameter(torch.zeros(n_classes, embed_dim))  # float32
        self.register_buffer("known", torch.zeros(n_classes, dtype=torch.long))  # 1: its row is V's
        self.n_known = 0
        self.register_load_state_dict_post_hook(lambda learner, _: learner.count_known())

    def count_known(self) -> None:
        self.n_known = int(self.known.sum())  # a number here: reading it waits for no GPU

    @torch.no_grad()
    def start_classifier(self, text_features: Tensor) -> None:
        """Starts V from features (C, E)."""
        self.classifier.copy_(text_features)
        self.known.fill_(1)
        self.count_known()

    @torch.no_grad()
    def forget_classifier(self) -> None:
        self.classifier.zero_()
        self.known.zero_()
        self.count_known()


class TwoStageCLIP(TunedCLIP):
    """CLIP with tuned towers, and rows of V for the classes that it knows."""

    def text_features(self) -> Tensor:
        learner = self.prompt_learner
        if not learner.n_known:
            return super().text_features()
        rows = F.normalize(learner.classifier, dim=-1)
        if learner.n_known == len(rows):
            return rows
        return torch.where(learner.known[:, None] > 0, rows, super().text_features())


@TRAINER_REGISTRY.register()
class TwoStage(TunedTowersTrainer):
    """Two-stage few-shot adaptation."""

    node, steps_per_shot = "TWO_STAGE", 300
    learner_class, model_class = TwoStageLearner, TwoStageCLIP
    learned_per_class = {**TunedTowersTrainer.learned_per_class, "classifier": True, "known": True}
    image_tower = TunedTowersTrainer.image_tower  # named beside forward_backward, which takes features

    @classmethod
    def add_config(cls, cfg: CN) -> None:
        super().add_config(cfg)
        cfg.TRAINER[cls.node].FIRST_STAGE = 0.6  # share of the epochs in which the towers are tuned

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        errors, share, n_epochs = super().config_errors(cfg), cfg.TRAINER[cls.node].FIRST_STAGE, cfg.OPTIM.MAX_EPOCH
        n_first = round(share * n_epochs)
        if not 0 < n_first < n_epochs and not cfg.RUN.EVAL_ONLY:
            errors.append(
                f"TRAINER.{cls.node}.FIRST_STAGE is {share}, which are {n_first} of {n_epochs} epochs; each stage must "
                "have at least one. Set it between 0 and 1, and OPTIM.MAX_EPOCH to at least 2."
            )
        return errors

    @property
    def n_first(self) -> int:
        """The number of epochs of stage 1."""
        return round(self.cfg.TRAINER[self.node].FIRST_STAGE * self.max_epoch)

    def tune(self, clip_model: TwoTowers, tower: str) -> nn.ModuleDict:
        return own_norms(clip_model, tower)

    def merge_into(self, clip_model: TwoTowers) -> None:
        """Raises ValueError if there is a classifier: it is no part of a CLIP."""
        if self.model.prompt_learner.n_known:
            raise ValueError(
                "2SFS answers the classes of its training with a classifier, which is no part of a CLIP. Use --format "
                "onnx; or name with --epoch a checkpoint of the first stage, as TRAIN.CHECKPOINT_FREQ saves them."
            )
        merge_norms(self.model.prompt_learner, clip_model)

    def build_schedule(self, optim: Optimizer) -> ClosedFormLR:
        """Returns the schedule of OPTIM, once for each stage."""
        rates = []
        for n_epochs in (self.n_first, self.max_epoch - self.n_first):
            own = self.cfg.OPTIM.clone()
            own.defrost()
            own.MAX_EPOCH = max(n_epochs, 1)
            rates.append(build_lr_scheduler(optim, own).rate)
        first, second = rates
        return ClosedFormLR(
            optim, lambda epoch, lr: first(epoch, lr) if epoch < self.n_first else second(epoch - self.n_first, lr)
        )

    def before_load(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Gives a checkpoint that does not know all classes asked for rows for the new ones, marked as such."""
        super().before_load(name, checkpoint)
        names, found, dataset = checkpoint.get("classnames"), checkpoint["state_dict"], self.dm.dataset
        if names is None or dataset.source_labels is not None or not {"classifier", "known"} <= found.keys():
            return
        rows = self.class_rows().known(names)
        if None in rows and self.cfg.DATASET.SUBSAMPLE_CLASSES == "new":
            rows = [None] * len(rows)  # of two classes of one name, as ImageNet has, this is the other one
        if None not in rows or len(found["classifier"]) != len(names):
            return  # ClassRows takes it, or refuses it
        for key in ("classifier", "known"):
            taken = [torch.zeros_like(found[key][0]) if row is None else found[key][row] for row in rows]
            found = {**found, key: torch.stack(taken)}
        checkpoint["state_dict"], checkpoint["classnames"] = found, list(dataset.classnames)

    def before_train(self) -> None:
        super().before_train()
        learner = self.model.prompt_learner
        if self.point is None:
            learner.forget_classifier()  # of MODEL.INIT_WEIGHTS
        elif learner.n_known and self.start_epoch < self.n_first:
            raise ValueError(
                f"The state to go on from is of the second stage, but epoch {self.start_epoch + 1} of {self.max_epoch} "
                "is in the first. Set OPTIM.MAX_EPOCH and FIRST_STAGE as in the run that saved it."
            )

    def before_epoch(self) -> None:
        super().before_epoch()
        learner = self.model.prompt_learner
        if self.epoch >= self.n_first and not learner.n_known:
            logger.info("The towers are tuned; from here on a classifier is learned")
            with finishing(), torch.no_grad():  # a signal waits
                learner.start_classifier(self.model.text_features())

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        if self.epoch >= self.n_first and self.image_tower() is None:  # else no gradient passes it anyway
            images, labels = self.parse_batch_train(batch)
            with self.autocast, torch.no_grad():
                batch = {"features": self.model.image_encoder(images).float(), "label": labels}
        return super().forward_backward(batch)
