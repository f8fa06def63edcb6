"""How candidates stand to one another: the front, its near misses, and what is best. Nothing here touches the disk."""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.study.pareto.constraints import kept
from orchestrator.study.pareto.incremental_front import IncrementalFront
from orchestrator.study.pareto.recommendation import Recommendation, recommend
from orchestrator.study.request import SearchRequest
from orchestrator.values.evidence import Evidence
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult
from orchestrator.values.task import TaskDescription


class ParetoFront:
    """A set of candidates under the limits of a request.

    Args:
        known: By id, the baseline among them.
        ranking: Of just these candidates, where somebody keeps one; None: it is made when it is needed.
    """

    def __init__(
        self,
        known: Mapping[str, CandidateResult],
        request: SearchRequest,
        task: TaskDescription,
        ranking: IncrementalFront | None = None,
    ) -> None:
        self._known, self._request, self._task, self._ranking = known, request, task, ranking

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
        return [self._known[name] for name in self.ranking.front()]

    def near_misses(self) -> list[CandidateResult]:
        """What would be on the front if its time were at the low end of its ratio's interval, the nearest first.

        Empty where the objective latency is not measured on the target.
        """
        if not self.measured_on_target:
            return []
        return [self._known[name] for name in self.ranking.near_misses() if name != BASELINE]

    @property
    def ranking(self) -> IncrementalFront:
        """Who dominates whom; made when it is first needed."""
        if self._ranking is None:
            self._ranking = IncrementalFront(self._known.values(), self._task.direction, self._judged_here)
        return self._ranking

    def _judged_here(self, candidate: CandidateResult) -> CandidateResult:
        baseline = self._known.get(BASELINE)
        return candidate if baseline is None else self.judged(candidate, baseline)

    def recommendation(self) -> Recommendation:
        """Which candidate is recommended, and why."""
        return recommend(
            self.front(),
            self.baseline,
            self._request.limits,
            asked=self._request.options.limits,
            useful_drop=self._request.useful_drop,
            metric=self._task.metric,
            direction=self._task.direction,
        )
