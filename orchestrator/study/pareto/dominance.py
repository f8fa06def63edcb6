"""Dominance over quality, latency and size, beyond the uncertainty of their comparison. Memory is a limit, not an objective."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult, Difference, LatencyResult

DISTURBED = 2.0
"""Factor on the width of a disturbed interval (in logarithms): an interval covers the scatter of the samples, while a disturbance
that lasts for seconds shifts all of them."""
FIRST_BLOCK = 8
"""Candidates that are compared first with all others; each further block is twice as large."""


def quality_of(candidate: CandidateResult) -> float:
    """Return the metric on the validation split, which is the objective."""
    if candidate.quality is None:
        raise ValueError(f"candidate {candidate.id} has no quality")
    return candidate.quality.validation.value


def size_of(candidate: CandidateResult) -> int:
    """Return the file's size in bytes."""
    if candidate.artifact is None:
        raise ValueError(f"candidate {candidate.id} has no artifact")
    return candidate.artifact.size_bytes


def relative_latency(candidate: CandidateResult) -> float:
    """Return the value that latencies are compared by.

    Measured latencies are compared by their ratio to the baseline, which does not depend on the board and the time of day.
    """
    latency = candidate.latency[0]
    if not latency.evidence.is_measured:
        return latency.median_ms
    return latency.ratio.value if latency.ratio is not None else 1.0


def quality_noise(candidate: CandidateResult) -> float:
    """Return the half-width of the interval of the paired difference to the baseline (sampling of examples)."""
    if candidate.quality is None or candidate.quality.validation.difference is None:
        return 0.0
    difference = candidate.quality.validation.difference
    return (difference.high - difference.low) / 2


def latency_noise(candidate: CandidateResult) -> tuple[float, float]:
    """Return the distances from the ratio to the baseline to its interval's lower and upper end, in natural logarithms.

    Computed latencies share their error of scale, so none is left. The baseline is the unit of measured latencies and has none.
    """
    latency = candidate.latency[0]
    if not latency.evidence.is_measured or latency.ratio is None:
        return 0.0, 0.0
    value, width = latency.ratio.value, DISTURBED if latency.disturbed else 1.0
    below = math.log(value / latency.ratio.low) if latency.ratio.low > 0 else math.inf
    return width * below, width * math.log(latency.ratio.high / value)


def gains(size_bytes: int, latency: list[LatencyResult], baseline: CandidateResult) -> bool:
    """Return True if the file is smaller or, beyond the noise of a measurement, faster than the baseline's."""
    if baseline.artifact is not None and size_bytes < baseline.artifact.size_bytes:
        return True
    first = latency[0]
    if first.ratio is not None or first.evidence.is_measured:
        return first.ratio is not None and first.ratio.high < 1
    return first.median_ms < baseline.latency[0].median_ms


class Objectives(NamedTuple):
    """Values that dominance compares, one element (of an array) a candidate.

    Attributes:
        quality: Signed so that more is better.
        latency: See `relative_latency`.
        latency_below, latency_above: See `latency_noise`.
        order: Rank by trial and id, which decides between candidates that are equal.
    """

    quality: np.ndarray
    quality_noise: np.ndarray
    latency: np.ndarray
    latency_below: np.ndarray
    latency_above: np.ndarray
    size: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, candidates: Sequence[CandidateResult], direction: Direction) -> "Objectives":
        """Return the objectives of complete candidates."""
        rows = np.array([objectives_row(candidate, direction) for candidate in candidates], np.float64).reshape(-1, 6)
        return cls._make([*rows.T, ranks(candidates)])

    def take(self, rows: np.ndarray) -> "Objectives":
        """Return the objectives of some of the candidates."""
        return Objectives(*(column[rows] for column in self))


def objectives_row(candidate: CandidateResult, direction: Direction) -> tuple[float, ...]:
    """Return one candidate's objectives, in the order of `Objectives` and without its rank."""
    quality, latency = direction.sign * quality_of(candidate), relative_latency(candidate)
    return quality, quality_noise(candidate), latency, *latency_noise(candidate), size_of(candidate)


def ranks(candidates: Sequence[CandidateResult]) -> np.ndarray:
    """Return each candidate's rank by trial, then by id."""
    keys = [(-1 if c.trial is None else c.trial, c.id) for c in candidates]
    result = np.empty(len(keys), int)
    result[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return result


def dominance(a: Objectives, b: Objectives) -> np.ndarray:
    """Return a matrix that is True where `a[i]` dominates `b[j]`: nowhere worse, and better somewhere beyond the uncertainty.

    Each latency was measured beside the baseline at a time of its own: the ends of the two intervals that face each other add as
    independent errors of the logarithm (Zou and Donner 2008, "Construction of confidence limits about effect measures").

    Of candidates with equal costs that cannot be distinguished one remains: the better by value, or the earlier trial.
    """
    worse = (a.quality[:, None] < b.quality) | (a.latency[:, None] > b.latency) | (a.size[:, None] > b.size)
    i, j = np.nonzero(~worse)
    gain, ratio = a.quality[i] - b.quality[j], a.latency[i] / b.latency[j]
    better = gain > np.hypot(a.quality_noise[i], b.quality_noise[j])
    faster = np.log(ratio) + np.hypot(a.latency_above[i], b.latency_below[j]) < 0
    first = (ratio == 1) & ((gain > 0) | (a.order[i] < b.order[j]))
    result = ~worse
    result[i, j] = better | faster | (a.size[i] < b.size[j]) | first
    return result


def dominated(candidates: Objectives, others: Objectives) -> np.ndarray:
    """Return for each candidate True if one of the others dominates it.

    Dominance beyond noise is not transitive, so that every candidate is compared with all others, not with the front alone. The
    others come in blocks, the strongest first, and a candidate leaves the comparison with the first block that dominates it.
    """
    left = np.arange(len(candidates.order))
    strength = sum(np.argsort(np.argsort(column)) for column in (others.latency, others.size, -others.quality))
    ends = FIRST_BLOCK * (2 ** np.arange(1, max(2, len(others.order)).bit_length()) - 1)
    for block in np.split(np.argsort(strength), ends):
        left = left[~dominance(others.take(block), candidates.take(left)).any(axis=0)]
    result = np.ones(len(candidates.order), bool)
    result[left] = False
    return result


def dominates(a: CandidateResult, b: CandidateResult, direction: Direction) -> bool:
    """Return True if `a` dominates `b`, see `dominance`."""
    pair = Objectives.of([a, b], direction)
    return bool(dominance(pair, pair)[0, 1])


def faster(a: CandidateResult, b: CandidateResult) -> bool:
    """Return True if `a` is faster than `b` beyond the uncertainty of the ratio of their times, see `dominance`."""
    ratio = math.log(relative_latency(a) / relative_latency(b))
    return ratio + math.hypot(latency_noise(a)[1], latency_noise(b)[0]) < 0


def comparable(candidates: Sequence[CandidateResult]) -> list[CandidateResult]:
    """Return the complete candidates.

    Raises:
        ValueError: Their objective latencies have different kinds of evidence.
    """
    complete = [c for c in candidates if c.state == "complete" and c.quality and c.artifact and c.latency]
    kinds = {c.latency[0].evidence for c in complete}
    if len(kinds) > 1:
        raise ValueError(f"one front compares values of one kind of evidence, but got {', '.join(sorted(kinds))}")
    return complete


def at_best(candidate: CandidateResult) -> CandidateResult:
    """Return the candidate with its measured latency at the low end of the ratio's interval."""
    first, below = candidate.latency[0], latency_noise(candidate)[0]
    if first.ratio is None or not 0 < below < math.inf:
        return candidate
    factor, ratio = math.exp(-below), first.ratio
    scaled = Difference(value=ratio.value * factor, low=ratio.low * factor, high=ratio.high * factor)
    return replace(candidate, latency=[replace(first, median_ms=first.median_ms * factor, ratio=scaled), *candidate.latency[1:]])
