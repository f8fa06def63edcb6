"""The front and its near misses kept up as candidates come: the same as `front.py` defines, without comparing all with all again.

Dominance beyond noise is not transitive, so a newcomer is held against every candidate, not the front alone. The three conditions
that need no noise are tested for all at once; whatever passes them is asked of `front.dominates` itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.study.pareto.dominance import (
    at_best,
    dominates,
    is_comparable,
    latency_noise,
    quality_noise,
    quality_of,
    relative_latency,
    size_of,
)
from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult

LEAST_ROWS = 64


class FrontValues:
    """What dominance needs of candidates, as columns: quality, relative latency, size, and whether they keep the limits."""

    def __init__(self, sign: float) -> None:
        self._sign, self._count = sign, 0
        self._columns = np.empty((3, LEAST_ROWS))
        self._able = np.empty(LEAST_ROWS, bool)

    def add(self, candidate: CandidateResult) -> int:
        """A further row; its number."""
        if self._count == len(self._able):
            self._columns = np.concatenate([self._columns, np.empty_like(self._columns)], axis=1)
            self._able = np.concatenate([self._able, np.empty_like(self._able)])
        self._columns[:, self._count] = quality_of(candidate), relative_latency(candidate), size_of(candidate)
        self._able[self._count] = bool(candidate.feasible)
        self._count += 1
        return self._count - 1

    def above(self, candidate: CandidateResult, *, able: bool) -> list[int]:
        """The rows that are nowhere worse than a candidate, the fastest first: only they can dominate it."""
        quality, latency, size = self._columns[:, : self._count]
        worse = (self._sign * (quality - quality_of(candidate)) < 0) | (latency / relative_latency(candidate) > 1)
        found = ~(worse | (size > size_of(candidate)))
        if able:
            found &= self._able[: self._count]
        rows = np.flatnonzero(found)
        return [int(row) for row in rows[np.argsort(latency[rows], kind="stable")]]


@dataclass(kw_only=True, slots=True)
class Place:
    """One candidate's place.

    Attributes:
        best: As it would be with its time at the low end of its interval; judged by the limits.
        leads: Nothing dominates it; and of those that keep the limits nothing does.
        near: The same of `best`.
        lacking: By how much what dominates it is faster, at most (1: not at all); and of those that keep the limits.
    """

    candidate: CandidateResult
    best: CandidateResult
    leads: list[bool]
    near: list[bool]
    lacking: list[float]


class IncrementalFront:
    """Candidates and who of them leads.

    Args:
        judged: The candidate with whether it keeps the limits.
    """

    def __init__(
        self,
        candidates: Iterable[CandidateResult],
        direction: Direction,
        judged: Callable[[CandidateResult], CandidateResult],
    ) -> None:
        self._direction, self._judged = direction, judged
        self._sign = direction.sign
        self._clear(candidates)

    def _clear(self, candidates: Iterable[CandidateResult]) -> None:
        self._figures, self._rows = FrontValues(self._sign), list[CandidateResult]()
        self._keys: dict[str, Any] = {}
        self._places: dict[str, Place] = {}  # of those that lead or are near; nobody else ever comes back
        self._evidence: str | None = None
        for candidate in candidates:
            self.add(candidate)

    def add(self, candidate: CandidateResult) -> None:
        """A candidate that is new, or whose record changed.

        Raises:
            ValueError: its objective latency is of another kind of evidence than the others'.
        """
        if not is_comparable(candidate):
            if candidate.id in self._keys:
                self.remove(candidate.id)
            return
        key = _key(candidate)
        if candidate.id in self._keys:
            if self._keys[candidate.id] != key:
                kept = [candidate if c.id == candidate.id else c for c in self._rows]
                self._clear(kept)
            return
        kind = candidate.latency[0].evidence
        if self._evidence not in (None, kind):
            named = ", ".join(sorted({str(self._evidence), kind}))
            raise ValueError(f"one front compares figures of one kind of evidence, but got {named}")
        self._evidence = kind
        self._keys[candidate.id] = key
        self._outdo(candidate)
        self._place(candidate)
        self._figures.add(candidate)
        self._rows.append(candidate)

    def remove(self, identifier: str) -> None:
        """A candidate that is to be made again."""
        if identifier in self._keys:
            self._clear([c for c in self._rows if c.id != identifier])

    def front(self) -> list[str]:
        """What nothing dominates, and what nothing dominates that keeps the limits; the fastest first."""

        def order(candidates: Iterable[CandidateResult]) -> list[CandidateResult]:
            return sorted(candidates, key=lambda c: (relative_latency(c), size_of(c)))

        everything = order(p.candidate for p in self._places.values() if p.leads[0])
        feasible = order(p.candidate for p in self._places.values() if p.leads[1])
        return [c.id for c in order({c.id: c for c in (*everything, *feasible)}.values())]

    def near_misses(self) -> list[str]:
        """What is not on the front and would be if its time were at the low end of its interval; the nearest first."""
        found = []
        for name, place in self._places.items():
            if not any(place.leads) and any(place.near):
                found.append((place.lacking[0 if place.near[0] else 1], name))
        return [name for _, name in sorted(found)]

    def _outdo(self, newcomer: CandidateResult) -> None:
        """What the newcomer does to those that lead or are near."""
        able = bool(newcomer.feasible)
        for name, place in list(self._places.items()):
            beaten = dominates(newcomer, place.candidate, self._direction)
            by = relative_latency(place.candidate) / relative_latency(newcomer) if beaten else 1.0
            no_best = dominates(newcomer, place.best, self._direction)
            for among in (0, 1) if able else (0,):
                place.leads[among] &= not beaten
                place.near[among] &= not no_best
                place.lacking[among] = max(place.lacking[among], by)
            if not any(place.leads) and not any(place.near):
                del self._places[name]

    def _place(self, newcomer: CandidateResult) -> None:
        best = self._judged(at_best(newcomer))
        able = (True, bool(newcomer.feasible))
        leads, near, lacking = [False, False], [False, False], [1.0, 1.0]
        for among in (0, 1):
            above = self._first_above(newcomer, able=bool(among))
            leads[among] = able[among] and above is None
            lacking[among] = 1.0 if above is None else relative_latency(newcomer) / relative_latency(above)
            near[among] = (not among or bool(best.feasible)) and self._first_above(best, able=bool(among)) is None
        if any(leads) or any(near):
            self._places[newcomer.id] = Place(candidate=newcomer, best=best, leads=leads, near=near, lacking=lacking)

    def _first_above(self, candidate: CandidateResult, *, able: bool) -> CandidateResult | None:
        """The fastest that dominates a candidate."""
        above = (self._rows[row] for row in self._figures.above(candidate, able=able))
        return next((other for other in above if other.id != candidate.id and dominates(other, candidate, self._direction)), None)


def _key(candidate: CandidateResult) -> Any:
    """All that a place depends on: where it stays the same, only the record changed."""
    return (
        quality_of(candidate),
        quality_noise(candidate),
        relative_latency(candidate),
        latency_noise(candidate),
        candidate.latency[0].median_ms,
        candidate.latency[0].evidence,
        size_of(candidate),
        candidate.feasible,
        candidate.trial,
        candidate.peak_memory_bytes,
    )
