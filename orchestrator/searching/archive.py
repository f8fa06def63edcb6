"""What a run knows so far: every candidate, kept the moment it is complete."""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.searching.again import MOST_MODELS
from orchestrator.searching.request import SearchRequest
from orchestrator.searching.run_directory import RunDirectory
from orchestrator.searching.standing import Standing
from orchestrator.searching.stopping import Stopping
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult
from orchestrator.values.task import TaskDescription


class Archive:
    """The candidates of a run by id, the baseline among them; read from the run directory and written to it.

    Their latencies are those of the search itself: what the measurement at the end found is kept apart (`again.py`), so that
    a run that goes on compares figures of one kind.
    """

    def __init__(self, run: RunDirectory, request: SearchRequest, task: TaskDescription) -> None:
        self._run, self._request, self._task = run, request, task
        self.known: dict[str, CandidateResult] = run.read_candidates()
        self._ranking = Standing(self.known, request, task).ranking

    @property
    def baseline(self) -> CandidateResult:
        """The original; KeyError before it was measured."""
        return self.known[BASELINE]

    @property
    def candidates(self) -> list[CandidateResult]:
        """All but the baseline, in the order of their trials."""
        return [c for c in self.known.values() if c.id != BASELINE]

    @property
    def standing(self) -> Standing:
        """How they stand to one another now."""
        return Standing(self.known, self._request, self._task, self._ranking)

    @property
    def stopping(self) -> Stopping:
        """Which candidates are worth going on with, by what is known now."""
        return Stopping(self.known, self._request, self._task)

    def standing_of(self, known: Mapping[str, CandidateResult]) -> Standing:
        """How other candidates, or these with other figures, stand to one another under this run's limits."""
        return Standing(known, self._request, self._task)

    def keep(self, candidate: CandidateResult) -> CandidateResult:
        """Write a candidate down, with whether it keeps the limits; from now on it is never lost."""
        baseline = candidate if candidate.id == BASELINE else self.baseline
        candidate = self.standing.judged(candidate, baseline)
        self._run.write_candidate(candidate)
        self.known[candidate.id] = candidate
        self._ranking.add(candidate)
        return candidate

    def forget(self, identifier: str) -> None:
        """Let a candidate be asked for again."""
        self._run.forget_candidate(identifier)
        del self.known[identifier]
        self._ranking.remove(identifier)

    def drop_dominated(self) -> None:
        """Delete the files of candidates that have left the front: `orchestrate build` makes them again from their recipe.

        The nearest of the near misses keep theirs: they are measured once more at the end, and again when the run goes on.
        """
        standing = self.standing
        stay = {c.id for c in (*standing.front(), *standing.near_misses()[:MOST_MODELS])} | {BASELINE}
        for candidate in self.candidates:
            if candidate.id not in stay and candidate.artifact and candidate.artifact.path:
                self.keep(replace(candidate, artifact=replace(candidate.artifact, path=None)))
                self._run.drop(candidate.id)

    def seconds(self) -> dict[str, float]:
        """Where the candidates' time went, by phase."""
        phases = ("building", "scoring", "measuring")
        return {phase: sum(c.seconds.get(phase, 0.0) for c in self.known.values()) for phase in phases}
