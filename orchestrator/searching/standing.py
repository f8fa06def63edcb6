"""How candidates stand to one another: the front, its near misses, and what is best. Nothing here touches the disk."""

import math
from collections.abc import Mapping
from dataclasses import replace

from orchestrator.searching.front import at_best, comparable, dominates, lacking, pareto_front, relative_latency, size_of
from orchestrator.searching.limits import excesses, kept, useless
from orchestrator.searching.recommendation import Recommendation, recommend
from orchestrator.searching.request import SearchRequest
from orchestrator.values.evidence import Evidence
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult, LatencyResult
from orchestrator.values.task import TaskDescription

SIMULATED_BEFORE_STOPPING = 5
"""Candidates that are simulated in any case: from them it is known how far estimates may be trusted in this search."""
LEAST_DOUBT = math.log(1.1)


class Standing:
    """A set of candidates under the limits of a request.

    Args:
        known: By id, the baseline among them.
    """

    def __init__(self, known: Mapping[str, CandidateResult], request: SearchRequest, task: TaskDescription) -> None:
        self._known, self._request, self._task = known, request, task

    @property
    def baseline(self) -> CandidateResult:
        """The original; KeyError where it is not there."""
        return self._known[BASELINE]

    @property
    def measured_on_target(self) -> bool:
        """Whether the objective latency is one that was measured on the target."""
        return bool(self.baseline.latency) and self.baseline.latency[0].evidence == Evidence.MEASURED_ON_TARGET.value

    def judged(self, candidate: CandidateResult, baseline: CandidateResult) -> CandidateResult:
        """The candidate with whether it keeps the limits."""
        if candidate.state != "complete":
            return candidate
        return replace(candidate, feasible=kept(candidate, baseline, self._request.limits, self._task.direction))

    def front(self) -> list[CandidateResult]:
        """What nothing dominates, and what nothing dominates that keeps the limits: memory is a limit and no objective."""
        everything = pareto_front(list(self._known.values()), self._task.direction)
        feasible = pareto_front([c for c in self._known.values() if c.feasible], self._task.direction)
        found = {c.id: c for c in (*everything, *feasible)}
        return sorted(found.values(), key=lambda c: (relative_latency(c), size_of(c)))

    def near_misses(self) -> list[CandidateResult]:
        """What would be on the front if its time were at the low end of its ratio's interval, the nearest first.

        Empty where the objective latency is not measured on the target.
        """
        if not self.measured_on_target:
            return []
        direction = self._task.direction
        front = {c.id for c in self.front()}
        complete = comparable(list(self._known.values()))
        able = [c for c in complete if c.feasible]
        found = []
        for candidate in complete:
            if candidate.id in front or candidate.id == BASELINE:
                continue
            best = self.judged(at_best(candidate), self.baseline)
            for others in (complete, *([able] if best.feasible else [])):
                if not any(dominates(other, best, direction) for other in others if other.id != candidate.id):
                    found.append((lacking(candidate, others, direction), candidate))
                    break
        return [candidate for _, candidate in sorted(found, key=lambda pair: (pair[0], pair[1].id))]

    def recommendation(self) -> Recommendation:
        """Which candidate is recommended, and why."""
        return recommend(
            self.front(),
            self.baseline,
            self._request.limits,
            asked=self._request.asked,
            useful_drop=self._request.useful_drop,
            metric=self._task.metric,
            direction=self._task.direction,
        )

    def hopeless(self, candidate: CandidateResult) -> str | None:
        """Why a candidate whose latency is only estimated need not be simulated; None: it may reach the front.

        How far an estimated ratio to the original may lie from the simulated one is read off the candidates that have both; a
        candidate is given that doubt.
        """
        foreseen = self._foreseen(candidate)
        doubts = [abs(error) for error in map(self._estimate_error, self._known.values()) if error is not None]
        if foreseen is None or len(doubts) < SIMULATED_BEFORE_STOPPING:
            return None
        doubt = math.exp(max(LEAST_DOUBT, *doubts))
        best = self.judged(_at(foreseen, foreseen.latency[0].median_ms / doubt), self.baseline)
        said = f"its estimate of {foreseen.latency[0].median_ms:.3g} ms may be {doubt:.2f} times too long"
        complete = comparable(list(self._known.values()))
        limit = self._request.limits.max_latency_ms
        if limit is not None and best.latency[0].median_ms > limit and any(c.feasible for c in complete):
            return f"{said}, and even then it is beyond the limit of {limit:g} ms"
        able = [c for c in complete if c.feasible]
        for others in (complete, *([able] if best.feasible else [])):
            if not any(dominates(other, best, self._task.direction) for other in others):
                return None
        return f"{said}, and even then others are better"

    def _foreseen(self, candidate: CandidateResult) -> CandidateResult | None:
        """A candidate with an estimate, as if that had been simulated: by its ratio to the original's."""
        own, original = _estimated(candidate), _estimated(self.baseline)
        if own is None or original is None or self.baseline.latency[0].evidence != Evidence.SIMULATED.value:
            return None
        return _at(candidate, self.baseline.latency[0].median_ms * own.median_ms / original.median_ms)

    def _estimate_error(self, candidate: CandidateResult) -> float | None:
        """The logarithm of simulated over foreseen; None where a candidate has not both."""
        if candidate.state != "complete" or candidate.id == BASELINE or candidate.latency[0].evidence != Evidence.SIMULATED.value:
            return None
        foreseen = self._foreseen(candidate)
        return None if foreseen is None else math.log(candidate.latency[0].median_ms / foreseen.latency[0].median_ms)

    def told(self, candidate: CandidateResult) -> CandidateResult | None:
        """What the sampler learns of a candidate: as it is, or, where it was stopped, with the latency that was foreseen.

        None where there are no figures: it failed.
        """
        if candidate.state == "complete":
            return candidate
        if candidate.state != "stopped" or candidate.quality is None:
            return None
        foreseen = self._foreseen(candidate)
        return None if foreseen is None else replace(foreseen, state="complete")

    def constraints(self, candidate: CandidateResult) -> dict[str, float]:
        """By how much a candidate breaks each limit, for the sampler: zero or less where it is kept."""
        learned = self.told(candidate)
        if learned is None:
            return {}
        candidate = learned
        direction, share = self._task.direction, self._request.useful_drop
        found = excesses(candidate, self.baseline, self._request.limits, direction)
        return found if share is None else {**found, "useful_drop": useless(candidate, self.baseline, direction, share)}


def _estimated(candidate: CandidateResult) -> LatencyResult | None:
    return next((latency for latency in candidate.latency if latency.evidence == Evidence.ESTIMATED.value), None)


def _at(candidate: CandidateResult, milliseconds: float) -> CandidateResult:
    """The candidate as if it had been simulated at that latency, for comparisons."""
    first = replace(candidate.latency[0], evidence="simulated", median_ms=milliseconds, ratio=None)
    return replace(candidate, state="complete", latency=[first, *candidate.latency])
