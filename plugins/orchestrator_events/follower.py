"""The interface of followers, and the values of a candidate by name."""

from abc import ABC, abstractmethod

from orchestrator.plugin import CandidateResult, RunResult


class Follower(ABC):
    """A follower of one search."""

    @abstractmethod
    def trial(self, trial: CandidateResult) -> None:
        """Record a candidate that is complete, failed, rejected or stopped."""

    @abstractmethod
    def end(self, result: RunResult) -> None:
        """Record the end of the search, or its interruption."""


def figures(candidate: CandidateResult) -> dict[str, float]:
    """Return all values of a candidate, with units in the names."""
    found: dict[str, float | None] = {
        "peak_memory_bytes": candidate.peak_memory_bytes,
        "macs": candidate.macs,
        "parameters": candidate.parameters,
        "energy_mj": candidate.energy_mj,
        "building_s": candidate.seconds.get("building"),
    }
    if candidate.quality is not None:
        found["quality"] = candidate.quality.validation.value
        if candidate.quality.test is not None:
            found["quality_test"] = candidate.quality.test.value
    if candidate.latency:
        first = candidate.latency[0]
        found["latency_ms"] = first.median_ms
        found["latency_ratio"] = first.ratio.value if first.ratio else None
    if candidate.artifact is not None:
        found["size_bytes"] = candidate.artifact.size_bytes
    return {name: float(value) for name, value in found.items() if value is not None}


def recipe(candidate: CandidateResult) -> str:
    """Return the recipe in one line."""
    return " > ".join(step.method for step in candidate.recipe) or "baseline"
