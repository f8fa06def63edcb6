"""The Pareto front over quality, latency and size, with their uncertainty. Memory is a limit, and no objective."""

import math
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.values.direction import Direction
from orchestrator.values.evidence import MEASURED
from orchestrator.values.results import CandidateResult, Difference, LatencyResult

DISTURBED = 2.0
"""A disturbed figure's interval counts as so many times as wide (in logarithms): it speaks of the samples' own scatter, and a
disturbance that comes and goes within seconds shifts all of them."""


def quality_of(candidate: CandidateResult) -> float:
    """The metric on the validation split, which chooses."""
    if candidate.quality is None:
        raise ValueError(f"candidate {candidate.id} has no quality")
    return candidate.quality.validation.value


def latency_of(candidate: CandidateResult) -> float:
    """The objective latency, ms: the first that is listed."""
    return candidate.latency[0].median_ms


def size_of(candidate: CandidateResult) -> int:
    """The file's size, bytes."""
    if candidate.artifact is None:
        raise ValueError(f"candidate {candidate.id} has no artifact")
    return candidate.artifact.size_bytes


def quality_noise(candidate: CandidateResult) -> float:
    """Half-width of the interval of the paired difference to the baseline: what sampling of examples alone can do."""
    if candidate.quality is None or candidate.quality.validation.difference is None:
        return 0.0
    difference = candidate.quality.validation.difference
    return (difference.high - difference.low) / 2


def latency_noise(candidate: CandidateResult) -> tuple[float, float]:
    """How far the objective latency's ratio to the baseline may lie below and above its value, in natural logarithms.

    Computed figures share their error of scale: none is left. The baseline is the unit of measured ones, and has none itself.
    """
    latency = candidate.latency[0]
    if latency.evidence not in MEASURED or latency.ratio is None:
        return 0.0, 0.0
    value, width = latency.ratio.value, DISTURBED if latency.disturbed else 1.0
    if latency.ratio.low <= 0:
        return math.inf, width * math.log(latency.ratio.high / value)
    return width * math.log(value / latency.ratio.low), width * math.log(latency.ratio.high / value)


def relative_latency(candidate: CandidateResult) -> float:
    """What latencies are compared by: measured ones by their ratio to the baseline, whatever the board and the hour."""
    latency = candidate.latency[0]
    if latency.evidence not in MEASURED:
        return latency.median_ms
    return latency.ratio.value if latency.ratio is not None else 1.0


def faster(a: CandidateResult, b: CandidateResult) -> bool:
    """Whether `a` is faster than `b` beyond the uncertainty of the ratio of their times.

    Each was timed beside the baseline, at a time of its own: the far ends of the two intervals that matter add as independent
    errors of the logarithm do (Zou and Donner 2008, "Construction of confidence limits about effect measures").
    """
    ratio = math.log(relative_latency(a) / relative_latency(b))
    return ratio + math.hypot(latency_noise(a)[1], latency_noise(b)[0]) < 0


def dominates(a: CandidateResult, b: CandidateResult, direction: Direction) -> bool:
    """Whether `a` is nowhere worse than `b`, and beyond the uncertainty of the comparison better somewhere.

    Of two that cost just the same and cannot be told apart, one stays: the better by value, or the one that came first.
    """
    gain = direction.gain(quality_of(a), quality_of(b))
    ratio = relative_latency(a) / relative_latency(b)
    if gain < 0 or ratio > 1 or size_of(a) > size_of(b):
        return False
    better = gain > math.hypot(quality_noise(a), quality_noise(b))
    if faster(a, b) or better or size_of(a) < size_of(b):
        return True
    return ratio == 1 and (gain > 0 or (_trial(a), a.id) < (_trial(b), b.id))


def is_comparable(candidate: CandidateResult) -> bool:
    """Whether it is complete, with every figure that dominance needs."""
    return bool(candidate.state == "complete" and candidate.quality and candidate.artifact and candidate.latency)


def comparable(candidates: Sequence[CandidateResult]) -> list[CandidateResult]:
    """The complete ones.

    Raises:
        ValueError: their objective latencies are of different kinds of evidence.
    """
    complete = [c for c in candidates if is_comparable(c)]
    kinds = {c.latency[0].evidence for c in complete}
    if len(kinds) > 1:
        raise ValueError(f"one front compares figures of one kind of evidence, but got {', '.join(sorted(kinds))}")
    return complete


def pareto_front(candidates: Sequence[CandidateResult], direction: Direction) -> list[CandidateResult]:
    """The complete candidates that no other one dominates, the fastest first.

    Raises:
        ValueError: their objective latencies are of different kinds of evidence.
    """
    complete = comparable(candidates)
    front = [c for c in complete if not any(dominates(other, c, direction) for other in complete if other is not c)]
    return sorted(front, key=lambda c: (relative_latency(c), size_of(c)))


def at_best(candidate: CandidateResult) -> CandidateResult:
    """The candidate with its measured latency at the low end of its ratio's interval."""
    first = candidate.latency[0]
    below = latency_noise(candidate)[0]
    if first.ratio is None or not 0 < below < math.inf:
        return candidate
    return replace(candidate, latency=[_scaled(first, first.ratio, math.exp(-below)), *candidate.latency[1:]])


def _scaled(latency: LatencyResult, ratio: Difference, factor: float) -> LatencyResult:
    return replace(
        latency,
        median_ms=latency.median_ms * factor,
        ratio=Difference(value=ratio.value * factor, low=ratio.low * factor, high=ratio.high * factor),
    )


def _trial(candidate: CandidateResult) -> int:
    return -1 if candidate.trial is None else candidate.trial
