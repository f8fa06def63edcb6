"""What a run knows so far: every candidate, kept the moment it is complete."""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.study.budget import Tally
from orchestrator.study.early_stopping import EarlyStopping
from orchestrator.study.pareto.front import ParetoFront
from orchestrator.study.remeasurement import MOST_MODELS
from orchestrator.study.request import SearchRequest
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult
from orchestrator.values.task import TaskDescription

PHASES = ("building", "scoring", "measuring")
ELSEWHERE = "elsewhere."
"""Begins the keys of a candidate's seconds that other processes of a shared search have spent."""


class Archive:
    """The candidates of a run by id, the baseline among them; read from the run directory and written to it.

    Their latencies are those of the search itself: what the measurement at the end found is kept apart (`again.py`), so that
    a run that goes on compares figures of one kind.

    Attributes:
        known: By id; changed by `keep` and `forget` alone.
        tally: What the budget needs to know of them.
    """

    def __init__(self, run: RunDirectory, request: SearchRequest, task: TaskDescription) -> None:
        self._run, self._request, self._task = run, request, task
        self.known: dict[str, CandidateResult] = run.read_candidates()
        self._ranking = ParetoFront(self.known, request, task).ranking
        self._stopping: EarlyStopping | None = None
        self.tally = Tally(self.known.values())

    @property
    def baseline(self) -> CandidateResult:
        """The original; KeyError before it was measured."""
        return self.known[BASELINE]

    @property
    def candidates(self) -> list[CandidateResult]:
        """All but the baseline, in the order of their trials."""
        return [c for c in self.known.values() if c.id != BASELINE]

    @property
    def standing(self) -> ParetoFront:
        """How they stand to one another now."""
        return ParetoFront(self.known, self._request, self._task, self._ranking)

    @property
    def stopping(self) -> EarlyStopping:
        """Which candidates are worth going on with, by what is known now.

        One and the same until a candidate is kept or forgotten: what it derives from all candidates it derives once.
        """
        if self._stopping is None:
            self._stopping = EarlyStopping(self.known, self._request, self._task)
        return self._stopping

    def standing_of(self, known: Mapping[str, CandidateResult]) -> ParetoFront:
        """How other candidates, or these with other figures, stand to one another under this run's limits."""
        return ParetoFront(known, self._request, self._task)

    def keep(self, candidate: CandidateResult) -> CandidateResult:
        """Write a candidate down, with whether it keeps the limits; from now on it is never lost.

        Files of one that is neither on the front nor near it are deleted: `drop_dominated` would.
        """
        baseline = candidate if candidate.id == BASELINE else self.baseline
        candidate = self.standing.judged(candidate, baseline)
        before = self.known.get(candidate.id)
        self.known[candidate.id] = candidate
        self._stopping = None
        try:
            self._ranking.add(candidate)
            if dropped := candidate.id not in self._stay() and _has_file(candidate):
                candidate = self.known[candidate.id] = _without_file(candidate)
            self._run.write_candidate(candidate)
        except BaseException:  # what is known is what is written down
            if before is None:
                del self.known[candidate.id]
            else:
                self.known[candidate.id] = before
            self._ranking, self._stopping = ParetoFront(self.known, self._request, self._task).ranking, None
            raise
        if before is not None:
            self.tally.add(before, -1)
        self.tally.add(candidate)
        if dropped:
            self._run.drop(candidate.id)
        return candidate

    def _stay(self) -> set[str]:
        """Whose files are kept: of the original, the front and the nearest of its near misses."""
        standing = self.standing
        return {c.id for c in (*standing.front(), *standing.near_misses()[:MOST_MODELS])} | {BASELINE}

    def forget(self, identifier: str) -> None:
        """Let a candidate be asked for again."""
        self._run.forget_candidate(identifier)
        self.tally.add(self.known.pop(identifier), -1)
        self._ranking.remove(identifier)
        self._stopping = None

    def drop_dominated(self) -> None:
        """Delete the files of candidates that have left the front: `orchestrate build` makes them again from their recipe.

        The nearest of the near misses keep theirs: they are measured once more at the end, and again when the run goes on.
        """
        stay = self._stay()
        for candidate in self.candidates:
            if candidate.id not in stay and _has_file(candidate):
                self.keep(candidate)

    def seconds(self) -> dict[str, float]:
        """Where the candidates' time went, by phase."""
        here = [(c.seconds, phase) for c in self.known.values() for phase in PHASES]
        found = dict.fromkeys(PHASES, 0.0)
        for seconds, phase in here:
            found[phase] += seconds.get(phase, 0.0) - seconds.get(ELSEWHERE + phase, 0.0)
        return found

    def seconds_elsewhere(self) -> float:
        """What other machines have spent on candidates, where a search is shared."""
        return sum(c.seconds.get(ELSEWHERE + phase, 0.0) for c in self.known.values() for phase in PHASES)


def _has_file(candidate: CandidateResult) -> bool:
    return candidate.artifact is not None and candidate.artifact.path is not None


def _without_file(candidate: CandidateResult) -> CandidateResult:
    return candidate if candidate.artifact is None else replace(candidate, artifact=replace(candidate.artifact, path=None))
