"""What a run knows so far: every candidate, kept the moment it is complete, the front among them, and what is best."""

from dataclasses import replace

from orchestrator.searching.front import latency_of, pareto_front, size_of
from orchestrator.searching.limits import excesses, kept, useless
from orchestrator.searching.recommendation import Recommendation, recommend
from orchestrator.searching.request import SearchRequest
from orchestrator.searching.run_directory import RunDirectory
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult
from orchestrator.values.task import TaskDescription


class Archive:
    """The candidates of a run by id, the baseline among them; read from the run directory and written to it."""

    def __init__(self, run: RunDirectory, request: SearchRequest, task: TaskDescription) -> None:
        self._run, self._request, self._task = run, request, task
        self.known: dict[str, CandidateResult] = run.read_candidates()

    @property
    def baseline(self) -> CandidateResult:
        """The original; KeyError before it was measured."""
        return self.known[BASELINE]

    @property
    def candidates(self) -> list[CandidateResult]:
        """All but the baseline, in the order of their trials."""
        return [c for c in self.known.values() if c.id != BASELINE]

    def keep(self, candidate: CandidateResult) -> CandidateResult:
        """Write a candidate down, with whether it keeps the limits; from now on it is never lost."""
        if candidate.state == "complete":
            baseline = candidate if candidate.id == BASELINE else self.baseline
            feasible = kept(candidate, baseline, self._request.limits, self._task.direction)
            candidate = replace(candidate, feasible=feasible)
        self._run.write_candidate(candidate)
        self.known[candidate.id] = candidate
        return candidate

    def front(self) -> list[CandidateResult]:
        """What nothing dominates, and what nothing dominates that keeps the limits: memory is a limit and no objective."""
        everything = pareto_front(list(self.known.values()), self._task.direction)
        feasible = pareto_front([c for c in self.known.values() if c.feasible], self._task.direction)
        found = {c.id: c for c in (*everything, *feasible)}
        return sorted(found.values(), key=lambda c: (latency_of(c), size_of(c)))

    def recommendation(self) -> Recommendation:
        """Which candidate is recommended now, and why."""
        return recommend(
            self.front(),
            self.baseline,
            self._request.limits,
            asked=self._request.asked,
            useful_drop=self._request.useful_drop,
            metric=self._task.metric,
            direction=self._task.direction,
        )

    def constraints(self, candidate: CandidateResult) -> dict[str, float]:
        """By how much a candidate breaks each limit, for the sampler: zero or less where it is kept."""
        if candidate.state != "complete":
            return {}
        direction, share = self._task.direction, self._request.useful_drop
        found = excesses(candidate, self.baseline, self._request.limits, direction)
        return found if share is None else {**found, "useful_drop": useless(candidate, self.baseline, direction, share)}

    def drop_dominated(self) -> None:
        """Delete the files of candidates that have left the front: `orchestrate build` makes them again from their recipe."""
        stay = {c.id for c in self.front()} | {BASELINE}
        for candidate in self.candidates:
            if candidate.id not in stay and candidate.artifact and candidate.artifact.path:
                self.keep(replace(candidate, artifact=replace(candidate.artifact, path=None)))
                self._run.drop(candidate.id)

    def seconds(self) -> dict[str, float]:
        """Where the candidates' time went, by phase."""
        phases = ("building", "scoring", "measuring")
        return {phase: sum(c.seconds.get(phase, 0.0) for c in self.known.values()) for phase in phases}
