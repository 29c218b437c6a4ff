"""The measures of results.json against scikit-learn, torchmetrics and formulas; the temperature in closed form."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.metrics import balanced_accuracy_score, log_loss
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from engine.config.defaults import get_cfg_default
from engine.evaluation.evaluator import build_evaluator
from engine.evaluation.temperature import fit_temperature


def evaluate(logits, labels, *, batch=32):
    evaluator = build_evaluator(get_cfg_default(), {label: f"class {label}" for label in range(logits.shape[1])})
    for start in range(0, len(labels), batch):
        evaluator.process(logits[start : start + batch], labels[start : start + batch])
    return evaluator.evaluate(), evaluator.answers


@pytest.fixture(scope="module")
def drawn():
    """Logits (500, 8) that know something, and labels of 7 of the 8 classes, some rare."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.multinomial(torch.tensor([9.0, 8, 7, 0, 5, 1, 1, 1]), 500, replacement=True, generator=generator)
    logits = 2 * torch.randn(500, 8, generator=generator)
    return logits + 2 * torch.nn.functional.one_hot(labels, 8), labels


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_measures_equal_those_of_other_libraries(drawn):
    logits, labels = drawn
    result, answers = evaluate(logits, labels)

    p = logits.double().softmax(dim=1)
    top5 = MulticlassAccuracy(num_classes=8, top_k=5, average="micro")(logits, labels)
    ece = MulticlassCalibrationError(num_classes=8, n_bins=15, norm="l1")(p, labels)
    assert result["top5_accuracy"] == pytest.approx(100 * top5.item())
    assert result["balanced_accuracy"] == pytest.approx(100 * balanced_accuracy_score(labels, logits.argmax(dim=1)))
    assert result["nll"] == pytest.approx(log_loss(labels, p, labels=range(8)), rel=1e-9)
    assert result["brier"] == pytest.approx(((p - torch.eye(8)[labels]) ** 2).sum(dim=1).mean().item(), rel=1e-9)
    assert result["ece"] == pytest.approx(100 * ece.item(), rel=1e-5)
    best = p.topk(2)
    assert np.allclose(answers.probabilities, best.values[:, 0]) and (answers.predictions == best.indices[:, 0]).all()
    assert (
        np.allclose(answers.second_probabilities, best.values[:, 1]) and (answers.seconds == best.indices[:, 1]).all()
    )
    assert (answers.ranks == 1 + (p > p.gather(1, labels[:, None])).sum(dim=1)).all()


def test_the_size_of_batches_and_of_the_floats_is_no_matter(drawn):
    logits, labels = drawn
    whole, _ = evaluate(logits, labels, batch=500)
    assert evaluate(logits, labels, batch=7)[0] == whole
    half, _ = evaluate(logits.bfloat16(), labels)
    assert half == evaluate(logits.bfloat16().float(), labels)[0]


def test_equal_logits_rank_by_the_order_of_classes():
    """As argmax takes the first of them: the rank is 1 exactly where the answer is right."""
    result, answers = evaluate(torch.zeros(6, 6), torch.arange(6))
    assert answers.ranks.tolist() == [1, 2, 3, 4, 5, 6]
    assert answers.predictions.tolist() == [0] * 6 and answers.seconds.tolist() == [1] * 6
    assert result["top5_accuracy"] == pytest.approx(500 / 6)
    assert result["nll"] == pytest.approx(np.log(6))


def test_classes_that_are_left_out_have_the_probability_zero():
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [1.0, 1.0, -torch.inf]])
    result, _ = evaluate(logits, torch.tensor([0, 1]))
    assert result["nll"] == pytest.approx(np.log(2)) and result["brier"] == pytest.approx(0.5)
    result, answers = evaluate(logits, torch.tensor([0, 2]))
    assert "nll" not in result and result["brier"] == pytest.approx((0.5 + 1.5) / 2)
    assert answers.ranks.tolist() == [1, 3]


@pytest.mark.parametrize("row", [[torch.inf, 0.0], [-torch.inf, -torch.inf]])
def test_a_largest_logit_that_is_infinite_is_refused(row):
    with pytest.raises(FloatingPointError, match="The logits of 1 of 2 images of a batch are NaN or infinite"):
        evaluate(torch.tensor([[0.0, 1.0], row]), torch.tensor([0, 0]))


def test_a_single_class_is_always_right():
    result, answers = evaluate(torch.randn(3, 1), torch.zeros(3, dtype=torch.int64))
    assert (result["nll"], result["brier"], result["ece"]) == (0, 0, 0)
    assert answers.seconds.tolist() == [-1] * 3


class TestTemperature:
    """Rows that occur as often as their probabilities say are calibrated: scaled by T, their temperature is T."""

    counts = np.array([[6, 3, 1], [2, 2, 6], [1, 8, 1]])
    logits = np.repeat(np.log(counts / 10), 10, axis=0)
    labels = np.concatenate([np.repeat(np.arange(3), row) for row in counts])

    @pytest.mark.parametrize("temperature", [1e-4, 0.3, 1.0, 7.0, 1e4])
    def test_of_a_calibrated_model_times_a_factor(self, temperature):
        assert fit_temperature(temperature * self.logits, self.labels) == pytest.approx(temperature, rel=1e-6)

    def test_of_two_classes_in_closed_form(self):
        """All rows (a, 0), a part r of them right: softmax(a / T) = r at T = a / ln(r / (1 - r))."""
        logits = np.tile([[5.0, 0.0]], (10, 1)).astype(np.float32)
        assert fit_temperature(logits, np.array([0] * 9 + [1])) == pytest.approx(5 / np.log(9), rel=1e-6)

    @pytest.mark.parametrize("scale", [1e-3, 0.2, 1.0, 30.0, 1e3])
    def test_of_logits_without_a_closed_form_it_is_where_scipy_finds_the_least_nll(self, drawn, scale):
        logits, labels = (part.numpy() for part in drawn)
        logits = scale * logits.astype(np.float64)

        def nll(log_t):
            scaled = logits / np.exp(log_t)
            return np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels])

        found = minimize_scalar(nll, bounds=np.log(scale) + np.array([-3, 3]), options={"xatol": 1e-9})
        assert fit_temperature(logits, labels) == pytest.approx(np.exp(found.x), rel=1e-6)

    def test_a_class_that_is_left_out_changes_nothing(self):
        wider = np.c_[2 * self.logits, np.full(len(self.logits), -np.inf)]
        assert fit_temperature(wider, self.labels) == pytest.approx(2, rel=1e-6)

    @pytest.mark.parametrize(
        ("logits", "labels"),
        [
            (np.eye(3), [0, 1, 2]),  # all right: T -> 0
            (np.eye(3), [1, 2, 0]),  # worse than equal probabilities: T -> infinity
            ([[0.0, 1.0, -np.inf], [0.0, 1.0, 0.0]], [2, 1]),  # impossible at any T
        ],
    )
    def test_there_may_be_none(self, logits, labels):
        assert fit_temperature(np.array(logits), np.array(labels)) is None
