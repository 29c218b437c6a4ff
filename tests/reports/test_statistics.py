"""Intervals over seeds, the signed-rank test and Holm's rule: against textbooks, scipy and all signs written out."""

import itertools
import statistics

import pytest
from scipy.stats import ttest_1samp

from reports.statistics import half_interval, holm, signed_rank


@pytest.mark.parametrize("n, t", [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262)])
def test_student_t_of_a_textbook(n, t):
    """t_{0.975, n-1} of the tables: with s = 1 half the interval is t / sqrt(n)."""
    population_std = ((n - 1) / n) ** 0.5
    assert half_interval(population_std, n) == pytest.approx(t / n**0.5, abs=3e-4)


def test_the_interval_is_that_of_scipys_t_test():
    values = [91.81, 92.01, 92.17, 90.4]
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    half = half_interval(statistics.pstdev(values), len(values))
    mean = statistics.fmean(values)
    assert (mean - half, mean + half) == pytest.approx((low, high), abs=1e-9)


def by_all_signs(differences):
    """Two-sided p of the signed-rank statistic: the share of all signs whose smaller rank sum is no larger."""
    sizes = sorted(map(abs, differences))
    ranks = [statistics.fmean(i for i, size in enumerate(sizes, start=1) if size == abs(d)) for d in differences]
    smaller = [
        min(sum(r for r, sign in zip(ranks, signs) if sign), sum(r for r, sign in zip(ranks, signs) if not sign))
        for signs in itertools.product((True, False), repeat=len(ranks))
    ]
    found = min(
        sum(r for r, d in zip(ranks, differences) if d > 0), sum(r for r, d in zip(ranks, differences) if d < 0)
    )
    return sum(value <= found + 1e-9 for value in smaller) / len(smaller)


@pytest.mark.parametrize(
    "differences, p",
    [
        ([1, 2, 3, 4, 5, 6], 2 / 64),  # all of one sign
        ([-1, 2, 3, 4, 5, 6], 4 / 64),  # rank sums 0 and 1, of either sign
        ([1, 2, 3, 4, 5, 6, 0, 0], 2 / 64),  # those of 0 are left out
        ([1, 1, -1, 3, 4, 5, 6], None),  # equal sizes share their rank
        ([0.3, 0.1 + 0.2, -0.3, 3, 4, 5, 6], None),  # ... though float64 tells them apart
        ([2.5, -1.25, 0.5, 4, 1, -0.25, 3, 6, 7, -2, 1.5], None),
    ],
)
def test_signed_rank_is_exact(differences, p):
    naive = by_all_signs([round(d, 6) for d in differences if d])
    assert p is None or naive == p
    assert signed_rank(differences) == pytest.approx(naive, abs=1e-12)


def test_five_differences_cannot_reach_a_twentieth():
    assert by_all_signs([1, 2, 3, 4, 5]) == 0.0625
    assert signed_rank([1, 2, 3, 4, 5]) is None
    assert signed_rank([1, 2, 3, 4, 5, 0]) is None
    assert signed_rank([1, 2, 3, 4, 5, 6]) is not None


def test_holm_worked_by_hand():
    """Sorted: 4 x 0.005, 3 x 0.01, 2 x 0.03; 1 x 0.04 is raised to the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03] and holm([]) == []
