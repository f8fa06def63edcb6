"""The Pareto front over quality, latency and size, with their uncertainty."""

import math
from collections.abc import Sequence

from orchestrator.values.evidence import MEASURED
from orchestrator.values.results import CandidateResult


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


def latency_noise(candidate: CandidateResult) -> float:
    """Relative half-width of the objective latency's uncertainty *as a ratio*.

    Measured: of the ratio to the baseline, timed side by side. Computed figures share their error of scale: none is left.
    """
    latency = candidate.latency[0]
    if latency.evidence not in MEASURED:
        return 0.0
    if latency.ratio is not None:
        return (latency.ratio.high - latency.ratio.low) / 2 / latency.ratio.value
    return (latency.high_ms - latency.low_ms) / 2 / latency.median_ms


def relative_latency(candidate: CandidateResult) -> float:
    """What latencies are compared by: measured ones by their ratio to the baseline, which drift does not touch."""
    latency = candidate.latency[0]
    if latency.evidence not in MEASURED:
        return latency.median_ms
    return latency.ratio.value if latency.ratio is not None else 1.0


def dominates(a: CandidateResult, b: CandidateResult, direction: str) -> bool:
    """Whether `a` is nowhere worse than `b`, and beyond the uncertainty of the comparison better somewhere.

    Of two that cost the same and cannot be told apart, one stays: the better by value, or the one that came first.
    """
    sign = 1.0 if direction == "maximize" else -1.0
    gain = sign * (quality_of(a) - quality_of(b))
    ratio = relative_latency(a) / relative_latency(b)
    if gain < 0 or ratio > 1 or size_of(a) > size_of(b):
        return False
    faster = ratio < 1 - math.hypot(latency_noise(a), latency_noise(b))
    better = gain > math.hypot(quality_noise(a), quality_noise(b))
    if faster or better or size_of(a) < size_of(b):
        return True
    return gain > 0 or (ratio == 1 and (_trial(a), a.id) < (_trial(b), b.id))


def pareto_front(candidates: Sequence[CandidateResult], direction: str) -> list[CandidateResult]:
    """The complete candidates that no other one dominates, the fastest first.

    Raises:
        ValueError: their objective latencies are of different kinds of evidence.
    """
    complete = [c for c in candidates if c.state == "complete" and c.quality and c.artifact and c.latency]
    kinds = {c.latency[0].evidence for c in complete}
    if len(kinds) > 1:
        raise ValueError(f"one front compares figures of one kind of evidence, but got {', '.join(sorted(kinds))}")
    front = [c for c in complete if not any(dominates(other, c, direction) for other in complete if other is not c)]
    return sorted(front, key=lambda c: (latency_of(c), size_of(c)))


def _trial(candidate: CandidateResult) -> int:
    return -1 if candidate.trial is None else candidate.trial
