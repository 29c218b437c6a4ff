"""Linear probe: a logistic regression on the features of CLIP's image tower, a baseline of CoOp.

Paper: Learning Transferable Visual Models From Natural Language Supervision, Radford et al., ICML 2021,
       https://arxiv.org/abs/2103.00020; with few shots: Table 1 of CoOp (see trainers/coop.py)

    z_k      = f(x_k)                                             f image tower, frozen; not normalised, no augmentation
    w, b     = argmin C sum_k -log softmax_{y_k}(w z_k + b) + |w|^2 / 2
    p(y=i|x) = softmax_i(w_i . f(x) + b_i)

C is searched on the data set's `selection`. No optimiser of the engine takes part: OPTIM in the config is not used.

Run:   bash scripts/linear_probe/main.sh caltech101 rn50 16
Cost:  one pass of the images through the image tower; then 16 fits on the CPU, which dominate with 1,000 classes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.prepared import prepare
from engine import TRAINER_REGISTRY, Datum, TrainerX
from engine.config.load import option_errors
from engine.distributed import on_first_rank
from engine.features.head import LinearHead
from engine.interruption import starting_over
from engine.random_state import same_random_state
from engine.text import shorten

from .backbone import facts_of_backbone, load_clip, prepare_as_trained, usable_precision
from .base import count_parameters

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

logger = logging.getLogger(__name__)

GRID = (6.0, 4.0, 2.0, 0.0, -2.0, -4.0, -6.0)  # of log10 C
N_BISECTIONS = 8
MAX_ITERATIONS = 1000

Labelled = tuple[np.ndarray, np.ndarray]  # features (N, E) float32, labels (N,) int64


def search_log_c(accuracy: Callable[[float], float]) -> float:
    """Returns the log10 C that wins: the best of GRID, then N_BISECTIONS of the two decades around it.

    Each bisection keeps the half at the better end; the better end of the last one wins. A tie goes to the largest C on
    the grid, and to the smaller C of two ends.

    Args:
        accuracy: From log10 C to the accuracy of a fit; called once for each value.
    """
    accuracy = cache(accuracy)
    peak = max(GRID, key=accuracy)
    left, right, better = peak - 1, peak + 1, peak
    for _ in range(N_BISECTIONS):
        better = left if accuracy(left) >= accuracy(right) else right
        middle = (left + right) / 2
        left, right = (left, middle) if better == left else (middle, right)
    return better


def fit(features: np.ndarray, labels: np.ndarray, log_c: float) -> LogisticRegression:
    """Fits features (N, E) and labels (N,), with scikit-learn's defaults but for C and the number of iterations."""
    with same_random_state():  # the import draws from Python's generator; no other method needs its second
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is logged
        warnings.filterwarnings("ignore", "The number of unique classes")  # one shot is meant
        return LogisticRegression(solver="lbfgs", C=10.0**log_c, max_iter=MAX_ITERATIONS).fit(features, labels)


def measure(train: Labelled, selection: Labelled, log_c: float) -> float:
    """Returns the accuracy on the selection, in percent, of a fit on the training features."""
    classifier = fit(*train, log_c)
    accuracy = 100 * classifier.score(*selection)
    n_items, n_iterations = len(selection[1]), classifier.n_iter_.max()
    logger.info(f"C = {10**log_c:.3e}: {accuracy:.2f}% of {n_items:,} items (iterations: {n_iterations:,})")
    return accuracy


def linear_weights(classifier: LogisticRegression) -> dict[str, Tensor]:
    """Returns what a fit on the labels 0..C-1 learned as the state dict of an nn.Linear: (C, E) and (C,) float32."""
    weight, bias = classifier.coef_, classifier.intercept_
    if len(weight) == 1:  # of two classes scikit-learn has one row, the second class's logit; the first one's is 0
        weight, bias = np.vstack([0 * weight, weight]), np.concatenate([0 * bias, bias])
    return {"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias).float()}


@TRAINER_REGISTRY.register()
class LinearProbe(TrainerX):
    """Logistic regression on frozen features; it knows the classes that it was trained on and no others."""

    complete_config, backbone_fields = staticmethod(prepare_as_trained), staticmethod(facts_of_backbone)
    prepare_tower = staticmethod(prepare)
    reads_classnames = False
    learned_per_class = {"weight": True, "bias": True}
    log_c: float | None = None

    @staticmethod
    def add_config(cfg: CN) -> None:
        cfg.TRAINER.LINEAR_PROBE = CN()
        cfg.TRAINER.LINEAR_PROBE.PREC = "fp16"  # of the image tower: fp32, fp16, bf16

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        errors = option_errors(cfg, {"TRAINER.LINEAR_PROBE.PREC": ("fp32", "fp16", "bf16")})
        for key, value in (("RESUME", cfg.RESUME), ("MODEL.INIT_WEIGHTS", cfg.MODEL.INIT_WEIGHTS)):
            if value:
                errors.append(f"{key} is {value}, but LinearProbe is fitted from the start. Leave it out.")
        return errors

    @classmethod
    def searched(cls, cfg: CN) -> tuple[str, ...]:
        return ("C",)

    def check_splits(self) -> None:
        super().check_splits()
        if self.cfg.RUN.EVAL_ONLY:
            return
        name = self.cfg.DATASET.NAME
        if self.num_classes < 2:
            raise ValueError(f"The data set {name} has 1 class. A linear probe needs at least 2 to tell apart.")
        lacking = self.num_classes - len({item.label for item in self.dm.dataset.train_x})
        if lacking:
            raise ValueError(
                f"The data set {name} has {lacking:,} class(es) without a training image, which a linear probe cannot "
                "learn. Replace the images that were skipped."
            )
        if not self.dm.dataset.selection:
            raise ValueError(
                f"The data set {name} has no items to choose C on. Add validation items, or a second training image of "
                "a class, which is then held out."
            )

    def build_model(self) -> None:
        self.precision = usable_precision(self.cfg.TRAINER.LINEAR_PROBE.PREC, self.device)
        self.clip_model = load_clip(self.cfg, self.precision, self.device)
        self.classifier = nn.Linear(self.clip_model.visual.output_dim, self.num_classes, device=self.device)
        self.register_model("classifier", self.classifier)
        logger.info("Parameters to be fitted: %s", f"{count_parameters(self.classifier):,}")

    @starting_over()
    def train(self) -> None:
        """Searches C, fits, saves the classifier as the best model and tests it; an interrupted run starts over."""
        self.before_train()
        train_x, selection = self.dm.dataset.train_x, self.dm.dataset.selection
        features, labels = self.extract_features(train_x)
        held_out = {item.impath for item in selection}
        kept = np.array([item.impath not in held_out for item in train_x])
        search_set = features[kept], labels[kept]
        selection_set = self.extract_features(selection)
        # Of several ranks the first fits, and tells the others each result.
        self.log_c = search_log_c(lambda log_c: on_first_rank(partial(measure, search_set, selection_set, log_c)))
        logger.info(f"Choose C = {10**self.log_c:.3e}")
        weights = on_first_rank(lambda: linear_weights(fit(features, labels, self.log_c)))
        self.classifier.load_state_dict(weights)
        self.save_model(self.epochs_done, is_best=True)
        self.after_train()

    @torch.no_grad()
    def extract_features(self, items: Sequence[Datum]) -> Labelled:
        """Returns the features and labels of the items, in their order, without augmentation."""
        return self.features.read(items).numpy(), np.array([item.label for item in items])

    def image_tower(self) -> nn.Module:
        return self.clip_model.visual

    def classify_features(self, features: Tensor) -> Tensor:
        return self.classifier(features)

    def feature_head(self) -> LinearHead:
        return LinearHead(self.classifier.weight.detach(), bias=self.classifier.bias.detach())

    def checkpoint_fields(self) -> dict[str, Any]:
        return {**super().checkpoint_fields(), "log_c": self.log_c}

    def load_model(self, directory: str | Path, epoch: int | None = None) -> None:
        if not directory:
            raise ValueError("--model-dir is empty. Give the folder of a LinearProbe run.")
        super().load_model(directory, epoch)

    def before_load(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Takes C from the checkpoint, too."""
        self.log_c, limit = checkpoint.get("log_c"), GRID[0] + 1
        if not (self.log_c is None or (isinstance(self.log_c, float) and abs(self.log_c) <= limit)):
            raise ValueError(
                f"The checkpoint's `log_c` is {shorten(self.log_c)}; it must be a number from {-limit:g} to {limit:g}, "
                "or None. Name another checkpoint."
            )

    def result_fields(self) -> dict[str, Any]:
        c = None if self.log_c is None else 10**self.log_c
        return {"n_params": count_parameters(self.classifier), "c": c}
