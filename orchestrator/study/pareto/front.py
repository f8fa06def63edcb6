"""The Pareto front of a set of candidates, and its near misses."""

import functools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from orchestrator.study.pareto.constraints import Constraints
from orchestrator.study.pareto.dominance import Objectives, at_best, comparable, dominance, dominated, objectives_row, ranks
from orchestrator.study.pareto.recommendation import Recommendation, recommend
from orchestrator.study.run.request import SearchRequest
from orchestrator.values.evidence import Evidence
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult
from orchestrator.values.task import TaskDescription

MOST_REMEASURED = 12
"""Candidates that are measured side by side at the end of a search; the baseline comes on top."""

Row = tuple[float, ...]
ROW = len(Objectives._fields)


class ParetoFront:
    """The front of a set of candidates under the limits of a request.

    Args:
        known: Candidates by id; the baseline is among them.
        rows: Values of these candidates that an earlier front computed, by id; missing ones are added.
    """

    def __init__(
        self,
        known: Mapping[str, CandidateResult],
        request: SearchRequest,
        task: TaskDescription,
        rows: dict[str, Row] | None = None,
    ) -> None:
        self._known, self._request, self._task = known, request, task
        self._rows = {} if rows is None else rows

    @property
    def baseline(self) -> CandidateResult:
        """Return the original; KeyError if it is missing."""
        return self._known[BASELINE]

    @property
    def measured_on_target(self) -> bool:
        """Return True if the objective latency is measured on the target."""
        return bool(self.baseline.latency) and self.baseline.latency[0].evidence == Evidence.MEASURED_ON_TARGET

    @functools.cached_property
    def constraints(self) -> Constraints:
        """Return the limits, relative to the baseline."""
        return self.constraints_beside(self.baseline)

    def constraints_beside(self, baseline: CandidateResult) -> Constraints:
        """Return the limits, relative to another baseline."""
        request = self._request
        return Constraints(
            limits=request.limits, direction=self._task.direction, baseline=baseline, useful_drop=request.useful_drop
        )

    def judged(self, candidate: CandidateResult, baseline: CandidateResult | None = None) -> CandidateResult:
        """Return the candidate with `feasible` set.

        Args:
            candidate: A candidate.
            baseline: The baseline to compare with; None for the known one.
        """
        if candidate.state != "complete":
            return candidate
        constraints = self.constraints if baseline is None else self.constraints_beside(baseline)
        return replace(candidate, feasible=constraints.satisfied(candidate))

    def front(self) -> list[CandidateResult]:
        """Return the candidates that none dominates, or none that satisfies the limits; the fastest first.

        The latter matter because memory is a limit and not an objective.
        """
        (first, second), values = self._on_front, self._values[0]
        ordered = np.lexsort((~first, values.size, values.latency))
        return [self._known[self._candidates[k].id] for k in ordered if first[k] or second[k]]

    def near_misses(self) -> list[CandidateResult]:
        """Return what would be on the front with its latency at the low end of its interval, the nearest first.

        Empty if the objective latency is not measured on the target.
        """
        if not self.measured_on_target:
            return []
        return [self._known[name] for name in self._near_misses if name != BASELINE]

    def contenders(self) -> list[CandidateResult]:
        """Return the front and its nearest near misses, which are measured once more at the end."""
        return [*self.front(), *self.near_misses()[:MOST_REMEASURED]]

    def recommendation(self) -> Recommendation:
        """Return the recommended candidate with the reason."""
        return recommend(self.front(), self.constraints, requested=self._request.options.limits, metric=self._task.metric)

    @functools.cached_property
    def _candidates(self) -> list[CandidateResult]:
        return comparable(list(self._known.values()))

    @functools.cached_property
    def _values(self) -> tuple[Objectives, Objectives, np.ndarray, np.ndarray]:
        """Return the objectives of the candidates, the same at their best, and for both if they are feasible."""
        for candidate in self._candidates:
            if candidate.id not in self._rows:
                self._rows[candidate.id] = self._row(candidate)
        table = np.array([self._rows[c.id] for c in self._candidates], np.float64).reshape(-1, 2 * ROW).T
        order = ranks(self._candidates)
        own, best = (Objectives._make([*part[:-1], order]) for part in (table[:ROW], table[ROW:]))
        return own, best, table[ROW - 1] > 0, table[-1] > 0

    def _row(self, candidate: CandidateResult) -> Row:
        """Return a candidate's objectives and feasibility, then the same at its best."""
        best, direction = at_best(candidate), self._task.direction
        if BASELINE in self._known:
            best = self.judged(best)
        values = objectives_row(candidate, direction), objectives_row(best, direction)
        return *values[0], bool(candidate.feasible), *values[1], bool(best.feasible)

    @functools.cached_property
    def _on_front(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for each candidate if none dominates it, and if none does that satisfies the limits."""
        values, _, feasible, _ = self._values
        able = np.flatnonzero(feasible)
        first, second = ~dominated(values, values), np.zeros(len(feasible), bool)
        second[able] = ~dominated(values.take(able), values.take(able))
        return first, second

    @functools.cached_property
    def _near_misses(self) -> list[str]:
        """Return the ids of what would be on the front at its best, by the latency relative to the fastest that dominates it."""
        values, best, feasible, feasible_at_best = self._values
        on_front, able = np.logical_or(*self._on_front), np.flatnonzero(feasible)
        behind = np.full(len(feasible), np.nan)
        for others, eligible in ((values, ~on_front), (values.take(able), ~on_front & feasible_at_best)):
            near = np.flatnonzero(eligible & np.isnan(behind))
            near = near[~dominated(best.take(near), others)]
            above = dominance(others, values.take(near))
            fastest = np.where(above, others.latency[:, None], np.inf).min(axis=0, initial=np.inf)
            behind[near] = np.maximum(1.0, values.latency[near] / fastest)
        return [name for _, name in sorted((behind[k], self._candidates[k].id) for k in np.flatnonzero(~np.isnan(behind)))]
