"""Confidence intervals. All are 95 %, and all are seeded: the same data give the same interval."""

from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1000
SEED = 20260101
FEW = 8


def rate_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the Wilson score interval of a rate (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(successes, count).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean (Efron and Tibshirani 1993, chapter 13).

    If every value is 0 or 1, return Wilson's interval.
    """
    if len(values) and np.isin(values, (0.0, 1.0)).all():
        return rate_interval(int(values.sum()), len(values))
    random = np.random.default_rng(SEED)
    means = np.array([values[random.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)])
    return resampled_interval(means)


Rounds = Sequence[Sequence[np.ndarray]]
"""Samples by round (each with new processes) and, within it, by block (without a pause)."""


def median_interval(rounds: Rounds) -> tuple[float, float]:
    """Return the interval of the median, by a bootstrap over rounds and, within them, over whole blocks.

    Samples of one block are correlated, and so are blocks of one process (memory placement), so that rounds and blocks are
    resampled (Kalibera and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013).
    """
    return _bootstrap_of_median([np.array([np.median(block) for block in blocks]) for blocks in rounds])


def ratio_interval(above: Rounds, below: Rounds) -> tuple[float, float, float]:
    """Return (value, low, high) of a ratio of medians: the median over neighbouring blocks, and its interval.

    Drift affects both sides of a pair and cancels.
    """
    logs = [
        np.array([np.log(np.median(a) / np.median(b)) for a, b in zip(ours, theirs, strict=True)])
        for ours, theirs in zip(above, below, strict=True)
    ]
    value = float(np.median(np.concatenate(logs)))
    low, high = _bootstrap_of_median(logs)
    return float(np.exp(value)), float(np.exp(min(low, value))), float(np.exp(max(high, value)))


def _bootstrap_of_median(groups: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the percentile interval of the median of all groups' values; groups are resampled first, then values within each.

    A bootstrap over n things is too narrow by the root of (n-1)/n (Hesterberg, "What teachers should know about the bootstrap",
    The American Statistician 69(4), 2015), which is corrected.
    """
    random = np.random.default_rng(SEED)
    most = max(len(group) for group in groups)
    padded = np.array([np.resize(group, most) for group in groups])
    counts = np.array([len(group) for group in groups])
    chosen = random.integers(0, len(groups), (RESAMPLES, len(groups)))
    within = (random.random((RESAMPLES, len(groups), most)) * counts[chosen][:, :, None]).astype(int)
    drawn = padded[chosen[:, :, None], within]
    low, high = resampled_interval(np.median(drawn.reshape(RESAMPLES, -1), axis=1))
    middle = float(np.median(np.concatenate(groups)))
    count = len(groups) if len(groups) > 1 else most
    wider = np.sqrt(count / (count - 1)) if count > 1 else 1.0
    below, above = wider * max(0.0, middle - low), wider * max(0.0, high - middle)
    if 1 < len(values := np.concatenate(groups)) < FEW:
        student = _student_half_width(values)
        below, above = max(below, student), max(above, student)
    return middle - below, middle + above


def _student_half_width(values: np.ndarray) -> float:
    """Return the half-width of Student's interval of a mean: a bootstrap of three values ends at their extremes, 75 % at best."""
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def outliers(samples: np.ndarray) -> int:
    """Return the number of samples above the third quartile by three times the interquartile range (Tukey 1977)."""
    first, third = np.percentile(samples, [25, 75])
    return int((samples > third + 3 * (third - first)).sum())


def resampled_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval of a statistic that was computed on resampled examples."""
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
