"""The result of a search, from which its files are written."""

from dataclasses import dataclass, field
from typing import Any

from orchestrator.study.pareto.recommendation import Recommendation
from orchestrator.study.run.request import RunState
from orchestrator.values.results import CandidateResult


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResult:
    """The candidates of a search, its front and its recommendation.

    Attributes:
        ended: Why the search ended.
        seconds: Duration by phase.
        devices: Environments of the devices, by their references.
    """

    state: RunState
    baseline: CandidateResult
    candidates: list[CandidateResult]
    front: list[CandidateResult]
    recommendation: Recommendation
    ended: str
    seconds: dict[str, float]
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def refusals(state: RunState) -> list[str]:
    """Return the methods that are not offered, each with its reason."""
    return [f"{offer.method} is not offered: {offer.refused}" for offer in state.offers if offer.refused]
