"""Paired tests and intervals: is a candidate worse than its baseline on the same examples?

All drops are signed so that more is worse, whatever the metric's direction.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from orchestrator.errors import InputError, MethodError
from orchestrator.measuring.statistics import SEED
from orchestrator.plugin.metric import Metric
from orchestrator.values.direction import Direction

SIGNIFICANCE = 0.01
"""Largest probability of a false regression of one criterion."""
CONFIDENCE = 1 - 2 * SIGNIFICANCE
RESAMPLES = 2000
LEAST_EXAMPLES = 10
"""Least examples of a bootstrap: fewer do not represent the spread, and a resample may consist of one value."""
AT_ONCE = 1_000_000  # values that are resampled together
RESAMPLES_OF_A_FUNCTION = 400
LEAST_RESAMPLES = 40
RESAMPLING_S = 10.0  # of one model: a user's function may be slow
UNKNOWN = (-np.inf, np.inf, 1.0)
"""Interval and p-value from too few examples."""

Outputs = Sequence[np.ndarray]

Test = Literal["McNemar, exact", "paired bootstrap"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDrop:
    """The loss of quality of a candidate.

    Attributes:
        drop: Positive if the candidate is worse, in the metric's own unit.
        low: Low end of its interval, of CONFIDENCE.
        high: High end of its interval.
        p_value: One-sided probability of such a drop, or a larger one, among equally good models.
        lost: Number of examples that only the baseline has right, in McNemar's test.
        gained: Number of examples that only the candidate has right.
        extremes: Smallest and largest observed drop, which bound it if there are too few examples for an interval.
    """

    baseline: float
    candidate: float
    drop: float
    low: float
    high: float
    p_value: float
    test: Test
    examples: int
    lost: int | None = None
    gained: int | None = None
    extremes: tuple[float, float] | None = None


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact one-sided p-value of McNemar's test (McNemar 1947).

    Only examples on which the two differ count: among equally good models each is as likely to be lost as to be gained.
    """
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue) if lost + gained else 1.0


def paired_share_interval(lost: int, gained: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of (lost - gained) / count.

    Adjusted Wald interval of Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data", Journal of Educational and Behavioral Statistics 37(4), 2012.
    """
    from scipy.stats import norm

    worse, better = (lost + 1) / (count + 2), (gained + 1) / (count + 2)
    half = norm.ppf((1 + confidence) / 2) * np.sqrt((worse + better - (worse - better) ** 2) / (count + 2))
    return max(-1.0, float(worse - better - half)), min(1.0, float(worse - better + half))


def paired_mean_interval(differences: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Return (low, high, one-sided p-value of a mean above 0) of the mean of paired differences, shape (N,), by the bootstrap.

    The wider end of two intervals counts on each side. The expanded percentile interval (Hesterberg, "What teachers should
    know about the bootstrap", The American Statistician 69(4), 2015) is valid for symmetric differences; the bootstrap-t
    interval (Efron and Tibshirani 1993, chapter 12) if there are a few large ones on one side. With fewer than
    LEAST_EXAMPLES nothing is known.
    """
    count = len(differences)
    if count < LEAST_EXAMPLES:
        return UNKNOWN
    random = np.random.default_rng(SEED)
    means, errors = np.empty(RESAMPLES), np.empty(RESAMPLES)
    rows = max(1, AT_ONCE // count)
    for start in range(0, RESAMPLES, rows):
        drawn = differences[random.integers(0, count, (min(rows, RESAMPLES - start), count))]
        means[start : start + len(drawn)] = drawn.mean(axis=1)
        errors[start : start + len(drawn)] = drawn.std(axis=1, ddof=1) / np.sqrt(count)
    low, high, p_value = _expanded(means, count, confidence)
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / np.sqrt(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num((means - mean) / errors, nan=0.0)  # infinite if a resample has a single value
    ends = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2], method="nearest")
    if error > 0:
        low, high = min(low, float(mean - ends[1] * error)), max(high, float(mean - ends[0] * error))
        p_value = max(p_value, (1 + int((ratios >= mean / error).sum())) / (1 + RESAMPLES))
    return low, high, max(p_value, 0.5**count)


def _expanded(values: np.ndarray, count: int, confidence: float) -> tuple[float, float, float]:
    from scipy.stats import norm, t

    tail = float(norm.sf(t.ppf((1 + confidence) / 2, count - 1) * np.sqrt(count / (count - 1))))
    low, high = np.quantile(values, [tail, 1 - tail])
    p_value = (1 + int((values <= 0).sum())) / (1 + len(values))
    return float(low), float(high), float(p_value)


def paired_drop(
    metric: Metric, candidate: Outputs, baseline: Outputs, labels: np.ndarray | None, *, confidence: float = CONFIDENCE
) -> PairedDrop:
    """Compute the metric of both models' outputs on the same examples, and the loss; used by searches and by checks.

    McNemar's test if every example is right or wrong, else a paired bootstrap; for a metric that is not a mean over examples,
    a bootstrap that computes it on resampled examples.

    Args:
        metric: The metric.
        candidate: For each output of the model an array, first axis the N examples.
        baseline: The baseline's outputs on the same examples.
        labels: First axis the N examples, or None.
        confidence: Confidence of the interval, 0 to 1.

    Raises:
        InputError: The metric cannot be computed on these outputs.
        MethodError: It is NaN or infinite.
    """
    sign = Direction(metric.direction).sign
    count = len(baseline[0])
    ours, theirs = (scores(metric, side, labels, baseline) for side in (candidate, baseline))
    found = partial(PairedDrop, baseline=float(theirs.mean()), candidate=float(ours.mean()), examples=count)
    if ours.ndim == 0:
        resampled = [resampled_scores(metric, side, baseline, labels) for side in (baseline, candidate)]
        common = min(map(len, resampled))
        drops = sign * (resampled[0][:common] - resampled[1][:common])
        drops = drops[np.isfinite(drops)]
        low, high, p_value = _expanded(drops, count, confidence) if count >= LEAST_EXAMPLES else UNKNOWN
        drop = float(sign * (theirs - ours))
        return found(drop=drop, low=low, high=high, p_value=p_value, test="paired bootstrap", extremes=_extremes(drops))
    drops = sign * (theirs - ours)
    drop = float(drops.mean())
    if np.isin(np.concatenate([ours, theirs]), (0.0, 1.0)).all():
        lost, gained = int((drops > 0).sum()), int((drops < 0).sum())
        low, high = paired_share_interval(lost, gained, count, confidence)
        p_value = mcnemar(lost, gained)
        return found(drop=drop, low=low, high=high, p_value=p_value, test="McNemar, exact", lost=lost, gained=gained)
    low, high, p_value = paired_mean_interval(drops, confidence)
    return found(drop=drop, low=low, high=high, p_value=p_value, test="paired bootstrap", extremes=_extremes(drops))


def _extremes(drops: np.ndarray) -> tuple[float, float]:
    return float(drops.min()), float(drops.max())


def scores(metric: Metric, outputs: Outputs, labels: np.ndarray | None, reference: Outputs) -> np.ndarray:
    """Return the metric's score of each example, shape (N,), or of all, shape ().

    Raises:
        InputError: The metric returns another shape.
        MethodError: It returns NaN or infinity.
    """
    found = np.asarray(metric.score(outputs, labels, reference if metric.needs_reference else None), dtype=np.float64)
    if found.ndim > 1 or (found.ndim == 1 and len(found) != len(outputs[0])):
        raise InputError(
            f"metric {metric.name} must return one score for each of {len(outputs[0])} examples or a single number, "
            f"but got shape {found.shape}"
        )
    if not np.isfinite(found).all():
        raise MethodError(f"metric {metric.name} gave NaN or infinity")
    return found


def resampled_scores(metric: Metric, outputs: Outputs, reference: Outputs, labels: np.ndarray | None) -> np.ndarray:
    """Return the scores of a metric that is not a mean over examples, on the same resampled examples each time; NaN if it fails.

    Raises:
        InputError: The metric fails on most of them.
    """
    count = len(outputs[0])
    random = np.random.default_rng(SEED)
    found: list[float] = []
    end = time.monotonic() + RESAMPLING_S
    while len(found) < RESAMPLES_OF_A_FUNCTION and (len(found) < LEAST_RESAMPLES or time.monotonic() < end):
        drawn = random.integers(0, count, count)
        part, beside = ([array[drawn] for array in arrays] for arrays in (outputs, reference))
        try:
            found.append(float(scores(metric, part, None if labels is None else labels[drawn], beside)))
        except (InputError, MethodError):
            found.append(np.nan)  # a resample may lack a class, so that the metric is undefined
    values = np.array(found)
    if np.isfinite(values).sum() < LEAST_RESAMPLES / 2:
        raise InputError(f"metric {metric.name} fails on resampled examples, so its interval cannot be given")
    return values
