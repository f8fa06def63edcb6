"""The candidates of a run, written to the run directory as soon as they are complete."""

from collections.abc import Mapping

from orchestrator.study.candidates.tally import Tally
from orchestrator.study.pareto.early_stopping import EarlyStopping
from orchestrator.study.pareto.front import ParetoFront
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.request import SearchRequest
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult
from orchestrator.values.task import TaskDescription

PHASES = ("building", "scoring", "measuring")
ELSEWHERE = "elsewhere."
"""Prefix of the keys of a candidate's seconds that other processes of a shared study have spent."""


class Archive:
    """The candidates of a run by id, the baseline among them.

    Their latencies are those of the search itself: the measurement at the end is stored apart (`remeasurement.py`), so that a
    resumed run compares values of one kind.

    Attributes:
        known: By id; only `keep` and `forget` change it.
        tally: Totals that the budget needs.
    """

    def __init__(self, run: RunDirectory, request: SearchRequest, task: TaskDescription) -> None:
        self._run, self._request, self._task = run, request, task
        self.known: dict[str, CandidateResult] = run.read_candidates()
        self.tally = Tally(self.known.values())
        self._rows: dict[str, tuple[float, ...]] = {}
        self._front: ParetoFront | None = None
        self._stopping: EarlyStopping | None = None

    @property
    def baseline(self) -> CandidateResult:
        """Return the original; KeyError before it is measured."""
        return self.known[BASELINE]

    @property
    def candidates(self) -> list[CandidateResult]:
        """Return all but the baseline, in the order of their trials."""
        return [c for c in self.known.values() if c.id != BASELINE]

    @property
    def front(self) -> ParetoFront:
        """Return the front of all candidates; the same object until one is kept or forgotten."""
        if self._front is None:
            self._front = ParetoFront(self.known, self._request, self._task, self._rows)
        return self._front

    @property
    def stopping(self) -> EarlyStopping:
        """Return the decisions about candidates; the same object until one is kept or forgotten."""
        if self._stopping is None:
            self._stopping = EarlyStopping(self.known, self._request, self._task)
        return self._stopping

    @property
    def recommended(self) -> CandidateResult | None:
        """Return the candidate that is recommended now, or None."""
        return self.known.get(self.front.recommendation().id or "")

    def front_of(self, known: Mapping[str, CandidateResult]) -> ParetoFront:
        """Return the front of other candidates, or of these with other values, under this run's limits."""
        return ParetoFront(known, self._request, self._task)

    def contends(self, candidate: CandidateResult) -> bool:
        """Return True if a new candidate would be on the front or one of its near misses."""
        known = {**self.known, candidate.id: self.front.judged(candidate)}
        rows = {name: row for name, row in self._rows.items() if name != candidate.id}
        front = ParetoFront(known, self._request, self._task, rows)
        return any(other.id == candidate.id for other in front.contenders())

    def keep(self, candidate: CandidateResult) -> CandidateResult:
        """Write a candidate with its feasibility to the disk, and delete the files of all that are not contenders.

        `orchestrate build` rebuilds a deleted file from its recipe. Contenders are measured once more at the end, and again when
        the run is resumed.
        """
        baseline = candidate if candidate.id == BASELINE else self.baseline
        before = self.known.get(candidate.id)
        self.known[candidate.id] = self.front.judged(candidate, baseline)
        self._changed(candidate.id)
        try:
            contenders = {BASELINE, *(c.id for c in self.front.contenders())}
            self._write(candidate.id, contenders)
        except BaseException:  # the archive equals what is on the disk
            if before is None:
                del self.known[candidate.id]
            else:
                self.known[candidate.id] = before
            self._changed(candidate.id)
            raise
        if before is not None:
            self.tally.add(before, -1)
        self.tally.add(self.known[candidate.id])
        for other in self.candidates:
            if other.has_file and other.id not in contenders:
                self._write(other.id, contenders)
                self.tally.add(other, -1)
                self.tally.add(self.known[other.id])
        return self.known[candidate.id]

    def _write(self, identifier: str, contenders: set[str]) -> None:
        """Write a candidate's record, then delete its files if it is not a contender."""
        candidate = self.known[identifier]
        dropped = candidate.has_file and identifier not in contenders
        if dropped:
            candidate = candidate.without_file()
        self._run.write_candidate(candidate)
        self.known[identifier] = candidate
        if dropped:
            self._run.drop(identifier)

    def _changed(self, identifier: str) -> None:
        self._rows.pop(identifier, None)
        self._front = self._stopping = None

    def forget(self, identifier: str) -> None:
        """Remove a candidate, so that it can be proposed again."""
        self._run.forget_candidate(identifier)
        self.tally.add(self.known.pop(identifier), -1)
        self._changed(identifier)

    def seconds(self) -> dict[str, float]:
        """Return the seconds that this machine has spent on candidates, by phase."""
        totals = dict.fromkeys(PHASES, 0.0)
        for candidate in self.known.values():
            for phase in PHASES:
                totals[phase] += candidate.seconds.get(phase, 0.0) - candidate.seconds.get(ELSEWHERE + phase, 0.0)
        return totals

    def seconds_elsewhere(self) -> float:
        """Return the seconds that other machines have spent on candidates of a shared study."""
        return sum(c.seconds.get(ELSEWHERE + phase, 0.0) for c in self.known.values() for phase in PHASES)
