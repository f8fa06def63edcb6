"""Paired tests and intervals: is a candidate worse than its baseline on the same examples?

All drops are signed so that more is worse, whatever the metric's direction.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
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
LEAST_RESAMPLES = 100
RESAMPLING_S = 20.0

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


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact one-sided p-value of McNemar's test (McNemar 1947).

    Only examples on which the two differ count: among equally good models each is as likely to be lost as to be gained.
    """
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue) if lost + gained else 1.0


def paired_share_interval(lost: int, gained: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of (lost - gained) / count.

    Adjusted Wald interval of Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on
    paired data", Journal of Educational and Behavioral Statistics 37(4), 2012.
    """
    from scipy.stats import norm

    worse, better = (lost + 1) / (count + 2), (gained + 1) / (count + 2)
    half = norm.ppf((1 + confidence) / 2) * np.sqrt((worse + better - (worse - better) ** 2) / (count + 2))
    return max(-1.0, float(worse - better - half)), min(1.0, float(worse - better + half))


def paired_mean_interval(differences: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Return (low, high, one-sided p-value of a mean above 0) of the mean of paired differences, shape (N,), by the bootstrap.

    The wider end of two intervals counts on each side. The expanded percentile interval (Hesterberg, "What teachers should know
    about the bootstrap", The American Statistician 69(4), 2015) is valid for symmetric differences; the bootstrap-t interval
    (Efron
    and Tibshirani 1993, chapter 12) if there are a few large ones on one side. With fewer than LEAST_EXAMPLES nothing is known.
    """
    count = len(differences)
    if count < LEAST_EXAMPLES:
        return -np.inf, np.inf, 1.0
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
    metric: Metric, candidate: Sequence[np.ndarray], baseline: Sequence[np.ndarray], labels: np.ndarray | None
) -> PairedDrop:
    """Compute the metric of both models' outputs on the same examples, and the loss.

    McNemar's test if every example is right or wrong, else a paired bootstrap; for a metric that is not a mean over examples,
    a bootstrap that computes it on resampled examples.

    Args:
        metric: The metric.
        candidate: For each output of the model an array, first axis the N examples.
        baseline: The baseline's outputs on the same examples.
        labels: First axis the N examples, or None.

    Raises:
        InputError: The metric cannot be computed on these outputs.
        MethodError: It is NaN or infinite.
    """
    sign = Direction(metric.direction).sign
    count = len(baseline[0])
    ours, theirs = (_scores(metric, side, labels, baseline, count) for side in (candidate, baseline))
    if ours.ndim == 0:
        return _of_a_function(metric, candidate, baseline, labels, sign)
    drops = sign * (theirs - ours)
    values = {"baseline": float(theirs.mean()), "candidate": float(ours.mean()), "drop": float(drops.mean()), "examples": count}
    if np.isin(np.concatenate([ours, theirs]), (0.0, 1.0)).all():
        lost, gained = int((drops > 0).sum()), int((drops < 0).sum())
        low, high = paired_share_interval(lost, gained, count)
        p_value = mcnemar(lost, gained)
        return PairedDrop(**values, low=low, high=high, p_value=p_value, test="McNemar, exact", lost=lost, gained=gained)  # type: ignore[arg-type]
    low, high, p_value = paired_mean_interval(drops)
    return PairedDrop(**values, low=low, high=high, p_value=p_value, test="paired bootstrap")  # type: ignore[arg-type]


def _scores(
    metric: Metric, outputs: Sequence[np.ndarray], labels: np.ndarray | None, reference: Sequence[np.ndarray], count: int
) -> np.ndarray:
    found = np.asarray(metric.score(outputs, labels, reference if metric.needs_reference else None), dtype=np.float64)
    if found.ndim > 1 or (found.ndim == 1 and len(found) != count):
        raise InputError(
            f"metric {metric.name} must return one score for each of {count} examples or a single number, "
            f"but got shape {found.shape}"
        )
    if not np.isfinite(found).all():
        raise MethodError(f"metric {metric.name} gave NaN or infinity")
    return found


def _of_a_function(
    metric: Metric,
    candidate: Sequence[np.ndarray],
    baseline: Sequence[np.ndarray],
    labels: np.ndarray | None,
    sign: float,
) -> PairedDrop:
    count = len(baseline[0])

    def values(drawn: np.ndarray | slice) -> tuple[float, float]:
        theirs = [output[drawn] for output in baseline]
        kept = None if labels is None else labels[drawn]
        sides = ([output[drawn] for output in candidate], theirs)
        ours, original = (float(_scores(metric, side, kept, theirs, count)) for side in sides)
        return ours, original

    ours, original = values(slice(None))
    random = np.random.default_rng(SEED)
    drops: list[float] = []
    end = time.monotonic() + RESAMPLING_S
    for _ in range(RESAMPLES):
        if len(drops) >= LEAST_RESAMPLES and time.monotonic() > end:
            break
        try:
            resampled = values(random.integers(0, count, count))
        except (InputError, MethodError):
            continue  # a resample may lack a class, so that the metric is undefined
        drops.append(sign * (resampled[1] - resampled[0]))
    if count < LEAST_EXAMPLES:
        drops = []
    elif len(drops) < LEAST_RESAMPLES:
        raise InputError(f"metric {metric.name} fails on resampled examples, so its interval cannot be given")
    low, high, p_value = _expanded(np.array(drops), count, CONFIDENCE) if drops else (-np.inf, np.inf, 1.0)
    return PairedDrop(
        baseline=original,
        candidate=ours,
        drop=sign * (original - ours),
        low=low,
        high=high,
        p_value=p_value,
        test="paired bootstrap",
        examples=count,
    )
