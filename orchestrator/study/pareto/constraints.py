"""Limits: by how much a candidate breaks each, as Optuna's constraints want it (zero or less is kept)."""

from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult
from orchestrator.values.target import Limits

ROUNDING = 1e-12  # 0.90 - 0.89 is a drop of 0.01, whatever the last bit says


def excesses(candidate: CandidateResult, baseline: CandidateResult, limits: Limits, direction: Direction) -> dict[str, float]:
    """For each limit that is set, the excess: relative to the limit, of qualities in the metric's own unit; <= 0 where kept."""
    found: dict[str, float] = {}
    if candidate.quality is None or candidate.artifact is None or baseline.quality is None:
        return found
    if limits.max_latency_ms is not None:
        found["max_latency"] = candidate.latency[0].median_ms / limits.max_latency_ms - 1
    if limits.max_size_bytes is not None:
        found["max_size"] = candidate.artifact.size_bytes / limits.max_size_bytes - 1
    if limits.max_memory_bytes is not None and candidate.peak_memory_bytes is not None:
        found["max_memory"] = candidate.peak_memory_bytes / limits.max_memory_bytes - 1
    return found | quality_excesses(candidate, baseline, limits, direction)


def quality_excesses(
    candidate: CandidateResult, baseline: CandidateResult, limits: Limits, direction: Direction
) -> dict[str, float]:
    """The excesses over the limits on quality alone, of a candidate of which nothing else is known."""
    found: dict[str, float] = {}
    if candidate.quality is None or baseline.quality is None:
        return found
    if limits.max_drop is not None:
        found["max_drop"] = drop(candidate, baseline, direction) - limits.max_drop - ROUNDING
    if limits.min_quality is not None:
        found["min_quality"] = direction.gain(limits.min_quality, candidate.quality.validation.value)
    return found


def drop(candidate: CandidateResult, baseline: CandidateResult, direction: Direction) -> float:
    """By how much the metric is worse than the baseline's on validation, in its own unit; negative where it is better."""
    if candidate.quality is None or baseline.quality is None:
        raise ValueError(f"candidate {candidate.id} has no quality")
    return direction.gain(baseline.quality.validation.value, candidate.quality.validation.value)


def useless(candidate: CandidateResult, baseline: CandidateResult, direction: Direction, useful_drop: float | None) -> float:
    """By how much more a candidate loses than `useful_drop` of the baseline's value; zero or less where it is of use."""
    if useful_drop is None or baseline.quality is None:
        return 0.0
    return drop(candidate, baseline, direction) - useful_drop * abs(baseline.quality.validation.value)


def kept(candidate: CandidateResult, baseline: CandidateResult, limits: Limits, direction: Direction) -> bool:
    """Whether a candidate keeps every limit."""
    return all(value <= 0 for value in excesses(candidate, baseline, limits, direction).values())


def quality_floor(baseline: CandidateResult, limits: Limits, direction: Direction, useful_drop: float | None) -> float | None:
    """The worst quality that keeps every limit on it, and loses no more than `useful_drop`; None where there is none."""
    if baseline.quality is None:
        return None
    sign, value = direction.sign, baseline.quality.validation.value
    floors = []
    if limits.max_drop is not None:
        floors.append(sign * value - limits.max_drop)
    if limits.min_quality is not None:
        floors.append(sign * limits.min_quality)
    if useful_drop is not None:
        floors.append(sign * value - useful_drop * abs(value))
    return sign * max(floors) if floors else None
