"""The measurement of the front and its near misses at the end of a search, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.study.pareto.dominance import gains
from orchestrator.study.pareto.front import MOST_REMEASURED
from orchestrator.values.files import write_atomic
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult, LatencyResult

SECONDS_A_MODEL = 2.5
MOST_SECONDS = 40.0
DURING = "timed during the search, beside the original alone"
ALONE = "timed during the search, alone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Remeasurement:
    """New latencies of the front and its near misses.

    Attributes:
        timed: `{candidate id: digest of its file}`, without the baseline.
        latencies: New latencies by id, with the baseline's; each ratio is to the baseline.
        failed: Reasons of the candidates that have none.
        seconds: Duration.
    """

    timed: dict[str, str]
    latencies: dict[str, LatencyResult]
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def applied(self, candidate: CandidateResult, baseline: CandidateResult) -> CandidateResult:
        """Return the candidate with its new latency first and that of the search second.

        Args:
            candidate: A candidate of the search.
            baseline: The baseline with its own new latency.
        """
        if candidate.id not in self.latencies or not candidate.latency:
            return candidate
        before, when = candidate.latency[0], ALONE if candidate.id == BASELINE else DURING
        noted = replace(before, note=f"{before.note}; {when}" if before.note else when)
        latency = [self.latencies[candidate.id], noted, *candidate.latency[1:]]
        if candidate.id == BASELINE or candidate.artifact is None:
            return replace(candidate, latency=latency)
        return replace(candidate, latency=latency, gains=gains(candidate.artifact.size_bytes, latency, baseline))


_ADAPTER: TypeAdapter[Any] = TypeAdapter(Remeasurement)


def select(contenders: Sequence[CandidateResult], recommended: str | None) -> dict[str, str]:
    """Return the candidates that are measured again, at most `MOST_REMEASURED`, with the digests of their files.

    Args:
        contenders: The front, then its near misses, the nearest first.
        recommended: Id of the candidate that comes before all others.
    """
    ordered = sorted(contenders, key=lambda c: c.id != recommended)
    able = {c.id: c.artifact.digest for c in ordered if c.id != BASELINE and c.artifact and c.artifact.path}
    return dict(list(able.items())[:MOST_REMEASURED])


def allowance_s(models: int, timeout_s: float | None) -> float:
    """Return the seconds that the measurement of some models may take: at most a third of the run's budget of time."""
    most = MOST_SECONDS if timeout_s is None else min(MOST_SECONDS, timeout_s / 3)
    return min(SECONDS_A_MODEL * (models + 1), most)


def read_remeasurement(path: Path, timed: Mapping[str, str]) -> Remeasurement | None:
    """Return the measurement of exactly these candidates by an earlier process of the run, or None."""
    try:
        result: Remeasurement = _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError):  # not measured yet, or by another version
        return None
    return result if result.timed == dict(timed) else None


def write_remeasurement(path: Path, remeasurement: Remeasurement) -> None:
    """Write a measurement at once.

    Raises:
        OSError: The disk is full or read-only.
    """
    write_atomic(path, _ADAPTER.dump_json(remeasurement, indent=1))
