"""The front and its near misses, measured once more at the end, side by side: what was timed, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.study.candidates.evaluator import gains
from orchestrator.values.files import write_atomic
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult, LatencyResult

MOST_MODELS = 12
"""Candidates that are timed beside one another; the baseline comes on top."""
SECONDS_A_MODEL = 2.5
MOST_SECONDS = 40.0
DURING = "timed during the search, beside the original alone"
ALONE = "timed during the search, alone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Remeasurement:
    """One measurement of the front and its near misses.

    Attributes:
        timed: `{candidate id: digest of its file}`, the baseline not among them.
        figures: The new latencies by id, the baseline's among them; each ratio is to the baseline.
        failed: Why a candidate has none.
        seconds: How long it took.
    """

    timed: dict[str, str]
    figures: dict[str, LatencyResult]
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def applied(self, candidate: CandidateResult, baseline: CandidateResult) -> CandidateResult:
        """The candidate with its new figure first, and the one from the search after it.

        Args:
            baseline: The baseline, with its own new figure.
        """
        if candidate.id not in self.figures or not candidate.latency:
            return candidate
        before, when = candidate.latency[0], ALONE if candidate.id == BASELINE else DURING
        noted = replace(before, note=f"{before.note}; {when}" if before.note else when)
        latency = [self.figures[candidate.id], noted, *candidate.latency[1:]]
        if candidate.id == BASELINE or candidate.artifact is None:
            return replace(candidate, latency=latency)
        return replace(candidate, latency=latency, gains=gains(candidate.artifact.size_bytes, latency, baseline))


AGAIN: TypeAdapter[Any] = TypeAdapter(Remeasurement)


def chosen(front: Sequence[CandidateResult], near: Sequence[CandidateResult], recommended: str | None) -> dict[str, str]:
    """Which candidates are measured again, at most `MOST_MODELS`, with their files' digests.

    The recommended one first, then the front, then its near misses, the nearest first.
    """
    ordered = [*(c for c in front if c.id == recommended), *front, *near]
    able = {c.id: c.artifact.digest for c in ordered if c.id != BASELINE and c.artifact and c.artifact.path}
    return dict(list(able.items())[:MOST_MODELS])


def allowance_s(models: int, timeout_s: float | None) -> float:
    """Seconds that the measurement of so many models may take: no more than a third of the run's whole budget of time."""
    most = MOST_SECONDS if timeout_s is None else min(MOST_SECONDS, timeout_s / 3)
    return min(SECONDS_A_MODEL * (models + 1), most)


def read_again(path: Path, timed: Mapping[str, str]) -> Remeasurement | None:
    """What an earlier process of the run measured of just these candidates, or None."""
    try:
        kept: Remeasurement = AGAIN.validate_json(path.read_bytes())
    except (OSError, ValidationError):  # it was not measured yet, or by another version
        return None
    return kept if kept.timed == dict(timed) else None


def write_again(path: Path, again: Remeasurement) -> None:
    """Keep a measurement, all of it at once.

    Raises:
        OSError: the disk is full, ...
    """
    write_atomic(path, AGAIN.dump_json(again, indent=1))
