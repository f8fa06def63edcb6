"""How candidates stand to one another: the front, its near misses, and what is best. Nothing here touches the disk."""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.searching.front import at_best, comparable, dominates, lacking, pareto_front, relative_latency, size_of
from orchestrator.searching.limits import kept
from orchestrator.searching.recommendation import Recommendation, recommend
from orchestrator.searching.request import SearchRequest
from orchestrator.values.evidence import Evidence
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult
from orchestrator.values.task import TaskDescription


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
