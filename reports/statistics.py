"""The arithmetic of results: mean, spread and interval over seeds, tests over data sets, what makes a mean doubtful.

scipy is imported where it is needed: it takes half a second, and most reports ask for no interval and no test.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from engine.text import printable

from .identity import differences, other_items, other_selection
from .named_config import unlike_config
from .runs import Run, seed_of

WIDE = 5.0  # points: three seeds then give a mean to 3.5, std / sqrt(n - 1), and few methods differ by more

MIN_DATASETS = 6  # so that a two-sided sign-rank test can reach 0.05: n differences of one sign have p = 2 / 2^n
DECIMALS = 9  # of a difference of two means: what is below is rounding, and would hide a tie or a zero


def summarise(values: Sequence[float], ci95: bool = False) -> tuple[float, float]:
    """Returns the mean of n >= 1 values and their population standard deviation, or with ci95 1.96 std / sqrt(n)."""
    std = statistics.pstdev(values)
    return statistics.fmean(values), 1.96 * std / math.sqrt(len(values)) if ci95 else std


def half_interval(std: float, n: int) -> float:
    """Returns half the width of the 95 % interval of a mean by Student's t, t_{0.975, n-1} s / sqrt(n).

    Args:
        std: Population standard deviation of the n >= 2 values; s is the sample's, std sqrt(n / (n - 1)).
        n: Their number.
    """
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1)) * std / math.sqrt(n - 1)


def signed_rank(differences: Sequence[float]) -> float | None:
    """Returns the two-sided p of Wilcoxon's signed-rank test on paired differences, those of 0 left out.

    scipy's `auto` method: exact for up to 50 differences, by all signs where some of up to 13 are equal.

    Returns:
        None where fewer than MIN_DATASETS differences are left.
    """
    from scipy.stats import wilcoxon

    rounded = [round(difference, DECIMALS) for difference in differences]
    nonzero = [difference for difference in rounded if difference]
    return float(wilcoxon(nonzero).pvalue) if len(nonzero) >= MIN_DATASETS else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p values corrected for their number by Holm's step-down rule, in the order given."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for n_before, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, (len(p_values) - n_before) * p_values[i])
        corrected[i] = min(1.0, largest)
    return corrected


def mean_text(cells: Sequence[float | str]) -> str:
    """Returns the mean and the population standard deviation of the numbers in some cells; "" where there is none."""
    values = [cell for cell in cells if not isinstance(cell, str)]
    missing = f" ({len(values)} of {len(cells)} seeds)" if len(values) < len(cells) else ""
    return "{:.2f} +- {:.2f}".format(*summarise(values)) + missing if values else ""


def spread_of_averages(by_seed: Sequence[Mapping[str, float]]) -> float | None:
    """Returns the population standard deviation of the averages that single seeds have over data sets.

    Args:
        by_seed: For each data set, the result of each seed.

    Returns:
        None unless all data sets have the same seeds, two or more: else it would be that of other runs than the mean.
    """
    seeds = by_seed[0].keys()
    if len(seeds) < 2 or any(results.keys() != seeds for results in by_seed):
        return None
    return summarise([statistics.fmean(results[seed] for results in by_seed) for seed in seeds])[1]


def warnings_of(runs: Sequence[Run]) -> list[str]:
    """Returns what makes the mean of runs doubtful: their own, and seeds that are unlike or far apart.

    Unlike: configured otherwise than their folder or each other, selected otherwise, or tested on other items.

    Seeds are far apart if their population standard deviation is over WIDE points and over three times what so few test
    images alone would give, the binomial standard deviation of an accuracy. For scale (COOP.md, docs/SHAPES.md): 0.15
    points in the authors' documentation, 1.72 with one shot of each class of `shapes`, 3.78 on one of its shifted sets.
    """
    found = _each_once((printable(run.folder.name), warning) for run in runs for warning in run.warnings)
    found += unlike_config(runs)
    seeds = [run for run in runs if seed_of(run.folder) is not None]
    if len(seeds) < 2:
        return found
    named = {run.folder.name: run for run in seeds}
    found += filter(None, [differences(seeds), other_items(named), other_selection(named)])
    mean, std = summarise([run.value for run in seeds])
    total = min((run.total for run in seeds if run.total), default=math.inf)
    limit = max(WIDE, 3 * math.sqrt(max(0.0, mean * (100 - mean)) / total))
    if std > limit:
        found.append(
            f"The standard deviation over {len(seeds)} seeds is {std:.2f} points, expected at most {limit:.2f}. "
            "Look into the log of the seed that stands apart, or run more seeds."
        )
    return found


def warnings_by_mean(means: Mapping[str, Sequence[Run]]) -> list[str]:
    """Returns what makes some means doubtful, each reason once, with the names of the means before it."""
    counted = {name: [run for run in runs if run.value is not None] for name, runs in means.items()}
    return _each_once((name, warning) for name, runs in counted.items() for warning in warnings_of(runs))


def _each_once(found: Iterable[tuple[str, str]]) -> list[str]:
    """Returns the sentences of pairs of a name and a sentence, each once, behind all its names."""
    said: dict[str, list[str]] = {}
    for name, sentence in found:
        said.setdefault(sentence, []).append(name)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in said.items()]
