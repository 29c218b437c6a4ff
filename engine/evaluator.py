"""Accuracy, error rate, macro F1, and on request the accuracy per class and the confusion matrix.

    accuracy = 100 correct / total
    macro_f1 = 100 mean over the classes c that occur in the labels of 2 TP_c / (2 TP_c + FP_c + FN_c)
    chance   = sum_c p_c q_c          p_c: part of the images with label c, q_c: of those with the prediction c

The log lines below `=> result` are what parse_test_res.py reads.
"""

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from .checkpoint import write_torch_file
from .distributed import is_first_rank
from .interruption import raise_if_asked
from .registry import EVALUATOR_REGISTRY
from .text import printable

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
    for logits, labels in batches:
        evaluator.process(logits, labels)
        raise_if_asked()
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
        self.per_class_result = cfg.TEST.PER_CLASS_RESULT
        self.cmat_path = Path(cfg.OUTPUT_DIR) / "cmat.pt" if cfg.TEST.COMPUTE_CMAT and is_first_rank() else None
        self.reset()

    def reset(self) -> None:
        """Forgets all processed batches."""
        self._labels: list[int] = []
        self._predictions: list[int] = []

    def process(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch.

        Args:
            logits: (B, C), any floating dtype and device.
            labels: (B,) int64, in 0 ... C - 1.

        Raises:
            ValueError: A label outside the classes.
            FloatingPointError: A logit that is NaN: every answer would count, as that of the first class.
        """
        n_classes = logits.shape[1]
        if n_wrong := int(logits.isnan().any(dim=1).sum()):
            raise FloatingPointError(
                f"The logits of {n_wrong} of {len(logits)} images of a batch are NaN. Use PREC fp32; if they stay so, "
                "the weights or the checkpoint hold NaN: name others, or lower OPTIM.LR."
            )
        batch_labels = labels.tolist()
        for label in batch_labels:
            if not 0 <= label < n_classes or label not in self.lab2cname:
                raise ValueError(
                    f"A label of this batch is {label}, but the data set has {len(self.lab2cname)} classes and the "
                    f"model {n_classes} outputs: labels go from 0 to {min(n_classes, len(self.lab2cname)) - 1}. "
                    "Check DATASET.SUBSAMPLE_CLASSES and the labels in the split file."
                )
        self._labels.extend(batch_labels)
        self._predictions.extend(logits.argmax(dim=1).tolist())

    def evaluate(self) -> OrderedDict:
        """Logs and returns the result over all processed batches.

        Returns:
            accuracy, error_rate, macro_f1 in percent, total and correct as counts; with TEST.PER_CLASS_RESULT also
            perclass_accuracy, the mean of the classes' accuracies in percent.

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
            macro_f1=100.0 * self._macro_f1(),
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
        if self.per_class_result:
            result["perclass_accuracy"] = self._log_per_class()
        if self.cmat_path is not None:
            self._save_confusion_matrix()
        return result

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

    def _macro_f1(self) -> float:
        labels, counts = np.unique(self._labels, return_counts=True)
        predicted = np.bincount(self._predictions, minlength=labels[-1] + 1)[labels]
        hits = np.bincount(np.array(self._labels)[np.equal(self._labels, self._predictions)], minlength=labels[-1] + 1)
        return float((2.0 * hits[labels] / (counts + predicted)).mean())

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

    def _save_confusion_matrix(self) -> None:
        # Differs from the original: a tensor over all classes (C, C), so that a class without images keeps its row;
        # row i holds the shares of label i's images by predicted class, float64.
        n_classes = len(self.lab2cname)
        counts = np.zeros((n_classes, n_classes), dtype=np.int64)
        for label, prediction in zip(self._labels, self._predictions, strict=True):
            if prediction < n_classes:  # a model may have outputs beyond the classes
                counts[label, prediction] += 1
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        write_torch_file(torch.from_numpy(shares), self.cmat_path)
        logger.info("Confusion matrix is saved to %s", self.cmat_path)
