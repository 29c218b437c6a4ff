"""engine/evaluation/evaluator.py against numbers worked out by hand and scikit-learn's classification report."""

import logging
import math

import pytest
import torch
from sklearn.metrics import classification_report

from engine.config.defaults import get_cfg_default
from engine.evaluation.evaluator import build_evaluator, compute_accuracy

# label -> prediction: 0 -> 0 0 1, 1 -> 1, 2 -> 0; class 3 has no image
LABELS, PREDICTIONS = [0, 0, 0, 1, 2], [0, 0, 1, 1, 0]
LAB2CNAME = {0: "cat", 1: "dog", 2: "sea star", 3: "yak"}


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    return cfg


def logits_of(predictions, n_classes=4):
    return torch.nn.functional.one_hot(torch.tensor(predictions), n_classes).float()


def evaluate(cfg, labels=LABELS, predictions=PREDICTIONS, lab2cname=LAB2CNAME):
    evaluator = build_evaluator(cfg, lab2cname)
    n_classes = len(lab2cname)
    evaluator.process(logits_of(predictions[:2], n_classes), torch.tensor(labels[:2]))
    evaluator.process(logits_of(predictions[2:], n_classes), torch.tensor(labels[2:]))
    return evaluator.evaluate()


def test_result_by_hand(cfg):
    result = evaluate(cfg)
    # F1: class 0 2*2/(2*2+1+1) = 2/3, class 1 2*1/(2*1+1+0) = 2/3, class 2 0; class 3 does not occur
    # every answer has the probability p = e / (e + 3), each other class q = 1 / (e + 3); recalls 2/3, 1, 0
    p, q = math.e / (math.e + 3), 1 / (math.e + 3)
    expected = {"accuracy": 60.0, "error_rate": 40.0, "macro_f1": 100 * 4 / 9, "total": 5, "correct": 3}
    expected["balanced_accuracy"] = 100 * 5 / 9
    expected["nll"] = -(3 * math.log(p) + 2 * math.log(q)) / 5
    expected["brier"] = (3 * ((1 - p) ** 2 + 3 * q**2) + 2 * (p**2 + (1 - q) ** 2 + 2 * q**2)) / 5
    expected["ece"] = 100 * (0.6 - p)  # all in one bin
    assert list(result) == list(expected)  # 4 classes: no top 5
    assert result == pytest.approx(expected)


def test_result_equals_scikit_learns_report(cfg):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (300,), generator=generator).tolist()
    predictions = torch.randint(5, (300,), generator=generator).tolist()
    report = classification_report(labels, predictions, output_dict=True)
    result = evaluate(cfg, labels, predictions, {label: f"class {label}" for label in range(5)})
    assert result["accuracy"] == pytest.approx(100 * report["accuracy"])
    assert result["macro_f1"] == pytest.approx(100 * report["macro avg"]["f1-score"])


def test_log_lines(cfg, caplog):
    caplog.set_level(logging.INFO, logger="engine")
    evaluate(cfg, [0] * 2268 + [1] * 197, [0] * 2465)
    # F1 of class 0: 2*2268/(2*2268+197) = 0.95838, of class 1: 0
    assert caplog.messages[0].splitlines() == [
        "=> result",
        "* total: 2,465",
        "* correct: 2,268",
        "* accuracy: 92.01%",
        "* error: 7.99%",
        "* macro_f1: 47.92%",
    ]
    assert caplog.records[0].name == "engine.evaluation.evaluator" and caplog.records[0].levelno == logging.INFO


def test_per_class_result(cfg, caplog):
    caplog.set_level(logging.INFO, logger="engine")
    cfg.TEST.PER_CLASS_RESULT = True
    assert evaluate(cfg)["perclass_accuracy"] == pytest.approx(100 * (2 / 3 + 1 + 0) / 3)
    assert caplog.messages[1].splitlines() == [
        "=> per-class result",
        "* class: 0 (cat)\ttotal: 3\tcorrect: 2\tacc: 66.67%",
        "* class: 1 (dog)\ttotal: 1\tcorrect: 1\tacc: 100.00%",
        "* class: 2 (sea star)\ttotal: 1\tcorrect: 0\tacc: 0.00%",
        "* average: 55.56%",
    ]


def test_confusion_matrix(cfg, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="engine")
    cfg.TEST.COMPUTE_CMAT = True
    evaluate(cfg)
    expected = torch.tensor([[2 / 3, 1 / 3, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(torch.load(tmp_path / "run" / "cmat.pt", weights_only=True), expected)
    assert caplog.messages[-1] == f"Confusion matrix is saved to {tmp_path / 'run' / 'cmat.pt'}"


def test_reset_forgets_and_half_precision_is_taken(cfg):
    evaluator = build_evaluator(cfg, LAB2CNAME)
    evaluator.process(logits_of([0, 0]), torch.tensor([1, 1]))
    evaluator.reset()
    evaluator.process(logits_of([2]).bfloat16(), torch.tensor([2]))
    assert evaluator.evaluate()["accuracy"] == 100.0


def test_what_cannot_be_evaluated(cfg):
    evaluator = build_evaluator(cfg, LAB2CNAME)
    with pytest.raises(ValueError, match="No image was processed"):
        evaluator.evaluate()
    for label in (4, -1):
        with pytest.raises(ValueError, match=f"A label of this batch is {label}, but the data set has 4 classes"):
            evaluator.process(logits_of([0, 0]), torch.tensor([0, label]))
    with pytest.raises(ValueError, match=r"is 3, but .* the model 2 outputs: labels go from 0 to 1"):
        evaluator.process(logits_of([0], n_classes=2), torch.tensor([3]))


def test_compute_accuracy_by_hand():
    output = torch.tensor([[0.1, 0.5, 0.4], [0.9, 0.0, 0.1], [0.2, 0.3, 0.5], [0.3, 0.6, 0.1]])
    target = torch.tensor([2, 0, 2, 2])  # ranks of the labels: 2, 1, 1, 3
    top1, top2, top3 = compute_accuracy(output, target, topk=(1, 2, 3))
    assert (top1.item(), top2.item(), top3.item()) == (50.0, 75.0, 100.0)
    assert compute_accuracy(output, target)[0].shape == (1,)


def test_answers_that_are_no_numbers_are_refused(cfg):
    """argmax would take every NaN for the first class; minus infinity is how classes are left out."""
    evaluator = build_evaluator(cfg, LAB2CNAME)
    logits = logits_of(PREDICTIONS)
    logits[:, 3] = -torch.inf
    evaluator.process(logits, torch.tensor(LABELS))
    logits[1, 2] = torch.nan
    with pytest.raises(
        FloatingPointError, match=f"The logits of 1 of {len(LABELS)} images of a batch are NaN or infinite"
    ):
        evaluator.process(logits, torch.tensor(LABELS))
