"""Intervals. All are 95 %, and all are seeded: the same data give the same interval."""

from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1000
SEED = 20260101


def rate_interval(successes: int, count: int) -> tuple[float, float]:
    """Wilson score interval of a rate (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(successes, count).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979); Wilson where every value is 0 or 1."""
    if len(values) and np.isin(values, (0.0, 1.0)).all():
        return rate_interval(int(values.sum()), len(values))
    random = np.random.default_rng(SEED)
    means = np.array([values[random.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)])
    return resampled_interval(means)


def mean_difference_interval(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Paired bootstrap interval of mean(left) - mean(right); both of shape (N,), on the same examples.

    Where few examples differ the bootstrap is too sure of itself (with none it would say +-0), so the interval is never
    narrower than that of one more example changing to either side.
    """
    difference = left - right
    random = np.random.default_rng(SEED)
    count = len(difference)
    means = np.array([difference[random.integers(0, count, count)].mean() for _ in range(RESAMPLES)])
    low, high = resampled_interval(means)
    if np.isin(difference, (-1.0, 0.0, 1.0)).all():
        value = float(difference.mean())
        return min(low, value - 1 / count), max(high, value + 1 / count)
    return low, high


def block_median_interval(blocks: Sequence[np.ndarray]) -> tuple[float, float]:
    """Interval of the median of all samples, by a bootstrap over whole blocks: samples of one block depend on each other."""
    random = np.random.default_rng(SEED)
    count = len(blocks)
    medians = [np.median(np.concatenate([blocks[k] for k in random.integers(0, count, count)])) for _ in range(RESAMPLES)]
    return resampled_interval(np.array(medians))


def block_ratio_interval(above: Sequence[np.ndarray], below: Sequence[np.ndarray]) -> tuple[float, float]:
    """Interval of the ratio of medians over paired blocks: drift hits both sides of a pair and cancels."""
    random = np.random.default_rng(SEED)
    count = len(above)
    ratios = []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, count, count)
        ratios.append(np.median(np.concatenate([above[k] for k in drawn])) / np.median(np.concatenate([below[k] for k in drawn])))
    return resampled_interval(np.array(ratios))


def resampled_interval(values: np.ndarray) -> tuple[float, float]:
    """Percentile interval of a statistic that was computed on resampled examples."""
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
