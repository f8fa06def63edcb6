"""Constraints: the limits of a search as Optuna's constraint values (zero or less is satisfied)."""

from dataclasses import dataclass

from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult
from orchestrator.values.target import Limits

ROUNDING = 1e-12  # 0.90 - 0.89 is a drop of 0.01, whatever its last bit is


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraints:
    """Limits of a search, relative to its baseline.

    Attributes:
        useful_drop: Largest useful loss of quality, as a share of the baseline's value; None if it is not limited.
    """

    limits: Limits
    direction: Direction
    baseline: CandidateResult
    useful_drop: float | None = None

    def excesses(self, candidate: CandidateResult) -> dict[str, float]:
        """Return the excess over each limit that is set: relative to the limit, for quality in the metric's own unit."""
        limits = self.limits
        result: dict[str, float] = {}
        if candidate.quality is None or candidate.artifact is None or self.baseline.quality is None:
            return result
        if limits.max_latency_ms is not None:
            result["max_latency"] = candidate.latency[0].median_ms / limits.max_latency_ms - 1
        if limits.max_size_bytes is not None:
            result["max_size"] = candidate.artifact.size_bytes / limits.max_size_bytes - 1
        if limits.max_memory_bytes is not None and candidate.peak_memory_bytes is not None:
            result["max_memory"] = candidate.peak_memory_bytes / limits.max_memory_bytes - 1
        return result | self.quality_excesses(candidate)

    def quality_excesses(self, candidate: CandidateResult) -> dict[str, float]:
        """Return the excesses over the limits on quality alone, for a candidate whose costs are unknown."""
        result: dict[str, float] = {}
        if candidate.quality is None or self.baseline.quality is None:
            return result
        if self.limits.max_drop is not None:
            result["max_drop"] = self._drop(candidate) - self.limits.max_drop - ROUNDING
        if self.limits.min_quality is not None:
            result["min_quality"] = self.direction.gain(self.limits.min_quality, candidate.quality.validation.value)
        return result

    def violations(self, candidate: CandidateResult) -> dict[str, float]:
        """Return the excesses that are positive."""
        return {name: value for name, value in self.excesses(candidate).items() if value > 0}

    def satisfied(self, candidate: CandidateResult) -> bool:
        """Return True if a candidate satisfies every limit."""
        return not self.violations(candidate)

    def useful_excess(self, candidate: CandidateResult) -> float:
        """Return the loss of quality beyond `useful_drop`, in the metric's own unit; zero or less if the candidate is useful."""
        if self.useful_drop is None or self.baseline.quality is None:
            return 0.0
        return self._drop(candidate) - self.useful_drop * abs(self.baseline.quality.validation.value)

    def quality_floor(self) -> float | None:
        """Return the worst quality that satisfies every limit on quality and `useful_drop`, or None without such a limit."""
        if self.baseline.quality is None:
            return None
        sign, value = self.direction.sign, self.baseline.quality.validation.value
        floors = []
        if self.limits.max_drop is not None:
            floors.append(sign * value - self.limits.max_drop)
        if self.limits.min_quality is not None:
            floors.append(sign * self.limits.min_quality)
        if self.useful_drop is not None:
            floors.append(sign * value - self.useful_drop * abs(value))
        return sign * max(floors) if floors else None

    def _drop(self, candidate: CandidateResult) -> float:
        if candidate.quality is None or self.baseline.quality is None:
            raise ValueError(f"candidate {candidate.id} has no quality")
        return self.direction.gain(self.baseline.quality.validation.value, candidate.quality.validation.value)
