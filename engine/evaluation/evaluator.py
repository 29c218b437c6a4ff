"""Accuracy and what says more of the answers; on request the accuracy per class and the confusion matrix.

    accuracy          = 100 correct / total
    macro_f1          = 100 mean over the classes c that occur in the labels of 2 TP_c / (2 TP_c + FP_c + FN_c)
    top5_accuracy     = 100 (images whose label is among the 5 largest logits) / total      of more than 5 classes
    balanced_accuracy = 100 mean over the classes c that occur in the labels of TP_c / (TP_c + FN_c)
    nll               = mean of -ln p_y              in nats; p: softmax of the logits in float64, y: the label
    brier             = mean of sum_c (p_c - [c = y])^2                                                  0 to 2
    ece               = 100 sum_b n_b / total |hits_b / n_b - mean of max_c p_c in b|
                        b: the images with max_c p_c in ((b - 1) / 15, b / 15], b = 1 ... 15
    chance            = sum_c r_c q_c    r_c: part of the images with label c, q_c: of those with prediction c

The log lines below `=> result` are what parse_test_res.py reads in a run without results.json.
"""

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ..distributed import is_first_rank
from ..interruption import raise_if_asked
from ..registry import EVALUATOR_REGISTRY
from ..run.names import CONFUSION
from ..text import printable
from .answers import Answers, answers_of, join
from .confusion import confusion_counts, save_shares
from .measures import calibration_error, f1_scores, recalls

logger = logging.getLogger(__name__)

N_STDS = 3  # above chance, from where on answers count as learned: one of 740 guessers gets there


def build_evaluator(cfg, lab2cname: Mapping[int, str]):
    """Builds the evaluator that cfg.TEST.EVALUATOR names.

    Args:
        cfg: The configuration.
        lab2cname: The class name of every label.

    Raises:
        KeyError: No evaluator of this name is registered.
    """
    return EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)(cfg, lab2cname)


@torch.no_grad()
def evaluate(evaluator, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> OrderedDict:
    """Returns what an evaluator measures.

    Args:
        evaluator: As EVALUATOR_REGISTRY describes it.
        batches: Logits (B, C) and labels (B,) of each batch.

    Raises:
        Interrupted: After a batch, if the process was asked to end.
    """
    evaluator.reset()
    try:
        for logits, labels in batches:
            evaluator.process(logits, labels)
            raise_if_asked()
    finally:
        if isinstance(batches, Generator):
            batches.close()  # what a method keeps for the time of an evaluation goes, after an error too
    return evaluator.evaluate()


def compute_accuracy(output: torch.Tensor, target: torch.Tensor, topk: Sequence[int] = (1,)) -> list[torch.Tensor]:
    """Computes the share of images whose label is among the k largest logits, for every k.

    Args:
        output: Logits, (B, C).
        target: Labels, (B,) int64.
        topk: The values of k, each at most C.

    Returns:
        For every k a float32 tensor (1,), in percent.
    """
    ranked = output.topk(max(topk), dim=1).indices  # (B, K)
    is_hit = ranked == target[:, None]
    return [100.0 * is_hit[:, :k].any(dim=1).float().mean(dim=0, keepdim=True) for k in topk]


@EVALUATOR_REGISTRY.register()
class Classification:
    """Evaluates single-label classification: reset(), process() for every batch, then evaluate()."""

    def __init__(self, cfg, lab2cname: Mapping[int, str]) -> None:
        self.lab2cname = dict(lab2cname)
        self.per_class_result, self.keeps_logits = cfg.TEST.PER_CLASS_RESULT, cfg.TEST.SAVE_LOGITS
        self.cmat_path = Path(cfg.OUTPUT_DIR) / CONFUSION if cfg.TEST.COMPUTE_CMAT and is_first_rank() else None
        self.reset()

    def reset(self) -> None:
        """Forgets all processed batches."""
        self._labels: list[int] = []
        self._predictions: list[int] = []
        self._parts: list[Answers] = []

    def process(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch.

        Args:
            logits: (B, C), any floating dtype and device.
            labels: (B,) int64, in 0 ... C - 1.

        Raises:
            ValueError: A label outside the classes.
            FloatingPointError: A row whose largest logit is NaN or infinite: it would count as an answer.
        """
        n_classes = logits.shape[1]
        if n_wrong := int((~logits.amax(dim=1).isfinite()).sum()):  # minus infinity is how classes are left out
            raise FloatingPointError(
                f"The logits of {n_wrong} of {len(logits)} images of a batch are NaN or infinite. Use PREC fp32; if "
                "they stay so, the weights or the checkpoint hold such numbers: name others, or lower OPTIM.LR."
            )
        batch_labels = labels.tolist()
        for label in batch_labels:
            if not 0 <= label < n_classes or label not in self.lab2cname:
                raise ValueError(
                    f"A label of this batch is {label}, but the data set has {len(self.lab2cname)} classes and the "
                    f"model {n_classes} outputs: labels go from 0 to {min(n_classes, len(self.lab2cname)) - 1}. "
                    "Check DATASET.SUBSAMPLE_CLASSES and the labels in the split file."
                )
        self._parts.append(answers_of(logits, labels, keep_logits=self.keeps_logits))
        self._labels.extend(batch_labels)
        self._predictions.extend(self._parts[-1].predictions.tolist())

    @property
    def answers(self) -> Answers | None:
        """What is kept of each image since `reset`, in order; None where a subclass counts in a way of its own."""
        answers = join(self._parts) if self._parts else None
        return answers if answers is not None and answers.labels.tolist() == self._labels else None

    def evaluate(self) -> OrderedDict:
        """Logs and returns the result over all processed batches.

        Returns:
            accuracy, error_rate, macro_f1 in percent, total and correct as counts; top5_accuracy (of more than 5
            classes), balanced_accuracy and ece in percent, nll in nats, brier; with TEST.PER_CLASS_RESULT also
            perclass_accuracy, the mean of the classes' accuracies in percent. The nll is left out where a label has
            the probability 0.

        Raises:
            ValueError: Nothing was processed.
        """
        total = len(self._labels)
        if total == 0:
            raise ValueError(
                "No image was processed. Check that the evaluated split holds images, and call process() before "
                "evaluate()."
            )
        correct = self._n_correct()
        accuracy = 100.0 * correct / total
        result = OrderedDict(
            accuracy=accuracy,
            error_rate=100.0 - accuracy,
            macro_f1=100.0 * float(f1_scores(np.array(self._labels), np.array(self._predictions)).mean()),
            total=total,
            correct=correct,
        )
        logger.info(
            "=> result\n* total: %s\n* correct: %s\n* accuracy: %.2f%%\n* error: %.2f%%\n* macro_f1: %.2f%%",
            f"{total:,}",
            f"{correct:,}",
            accuracy,
            result["error_rate"],
            result["macro_f1"],
        )
        result.update(self._measures())
        if self.per_class_result:
            result["perclass_accuracy"] = self._log_per_class()
        if self.cmat_path is not None:
            save_shares(self.cmat_path, confusion_counts(self._labels, self._predictions, len(self.lab2cname)))
        return result

    def _measures(self) -> dict[str, float]:
        answers = self.answers
        if answers is None:
            return {}
        labels, predictions = answers.labels, answers.predictions
        measures = {"top5_accuracy": 100.0 * float((answers.ranks <= 5).mean())} if len(self.lab2cname) > 5 else {}
        measures["balanced_accuracy"] = 100.0 * float(recalls(labels, predictions).mean())
        if np.isfinite(answers.nll).all():
            measures["nll"] = float(answers.nll.mean())
        measures["brier"] = float(answers.brier.mean())
        measures["ece"] = 100.0 * calibration_error(answers.probabilities, labels == predictions)
        return measures

    def chance_warning(self) -> str:
        """Says if the answers could be those of a model that does not look at the images; "" if they could not.

        Such a model may prefer some classes: chance is the accuracy of its answers dealt out to the images at random,
        and its standard deviation the binomial one. Where even perfect answers would not stand out, nothing is said.
        """
        labels, predictions, total = Counter(self._labels), Counter(self._predictions), len(self._labels)
        if len(labels) < 2:  # of one class every answer is by chance
            return ""
        chance = sum(count * predictions[label] for label, count in labels.items()) / total**2
        limit = chance + N_STDS * math.sqrt(chance * (1 - chance) / total)
        accuracy = self._n_correct() / total
        if accuracy > limit or limit >= 1:
            return ""
        if chance == 0:  # then the limit is 0 too, and no bound
            found = f"None of the {total:,} images is classified rightly: no answer is a class that they have."
        else:
            found = (
                f"The accuracy is {100 * accuracy:.2f}% of {total:,} images, not above {100 * limit:.2f}%: chance "
                f"({100 * chance:.2f}%) and {N_STDS} standard deviations."
            )
        return (
            f"{found} Check the images, the class names and whether the backbone knows them; after a training also "
            "OPTIM.LR, and in the log whether the loss fell."
        )

    def _n_correct(self) -> int:
        return sum(label == prediction for label, prediction in zip(self._labels, self._predictions, strict=True))

    def _log_per_class(self) -> float:
        hits: dict[int, list[bool]] = {}
        for label, prediction in zip(self._labels, self._predictions, strict=True):
            hits.setdefault(label, []).append(label == prediction)
        lines, accuracies = ["=> per-class result"], []
        for label in sorted(hits):
            total, correct = len(hits[label]), sum(hits[label])
            accuracies.append(100.0 * correct / total)
            lines.append(
                f"* class: {label} ({printable(self.lab2cname[label])})\ttotal: {total:,}\tcorrect: {correct:,}\t"
                f"acc: {accuracies[-1]:.2f}%"
            )
        mean = sum(accuracies) / len(accuracies)
        logger.info("\n".join([*lines, f"* average: {mean:.2f}%"]))
        return mean
