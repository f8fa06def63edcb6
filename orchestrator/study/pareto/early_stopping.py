"""Early stopping for the Pareto front: which candidates need no further work, and what the sampler learns of them.

Optuna's pruners serve one objective (`Trial.should_prune` raises with several). Evidence comes in stages, the cheapest first: the
costs of the untrained network (size and latency of its file), its quality before and during training, the latency of the trained
file. After each stage a candidate continues unless it can no longer reach the front, given the error of the forecast.
"""

import functools
import math
import statistics
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from orchestrator.study.pareto.constraints import Constraints
from orchestrator.study.pareto.dominance import Objectives, comparable, dominated, quality_of, relative_latency, size_of
from orchestrator.study.pareto.forecast import LEAST_PAIRS, Forecast
from orchestrator.study.run.request import SearchRequest
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult, Floor
from orchestrator.values.target import Limits
from orchestrator.values.task import TaskDescription

WORTH = 3.0
"""Trainings must take so many times as long as a proxy, before proxies are used."""
LONG_S = 10.0
"""A training of this many seconds is worth a first proxy, which shows how long proxies take."""
SKETCH = "sketch"
"""The step of a failure by a limit that the untrained network violates."""


class _Gains(NamedTuple):
    """Largest gain of trainings from one place on, and the lowest quality that one of them had there."""

    most: float
    lowest: float


class EarlyStopping:
    """Decisions about candidates, given all that are known.

    Args:
        known: Candidates by id; the baseline is among them.
    """

    def __init__(self, known: Mapping[str, CandidateResult], request: SearchRequest, task: TaskDescription) -> None:
        self._known, self._request, self._direction, self._sign = known, request, task.direction, task.direction.sign

    @functools.cached_property
    def _complete(self) -> list[CandidateResult]:
        return comparable(list(self._known.values()))

    @functools.cached_property
    def _able(self) -> list[CandidateResult]:
        return [c for c in self._complete if c.feasible]

    @functools.cached_property
    def _costs(self) -> np.ndarray:
        """Return the relative latency, the size and the signed quality (more is better) of the complete candidates as rows."""
        rows = [(relative_latency(c), size_of(c), self._sign * quality_of(c)) for c in self._complete]
        return np.array(rows, np.float64).reshape(-1, 3).T

    @functools.cached_property
    def _forecast(self) -> Forecast:
        return Forecast(self._complete, self._known[BASELINE])

    @functools.cached_property
    def _constraints(self) -> Constraints:
        request = self._request
        return Constraints(
            limits=request.limits, direction=self._direction, baseline=self._known[BASELINE], useful_drop=request.useful_drop
        )

    # -- before the build -----------------------------------------------------------------------------------------------

    def proxy_pays(self) -> bool:
        """Return True if trainings take so much longer than proxies that building the untrained network first pays.

        Before anything was trained: if there is a limit that the proxy could violate.
        """
        trainings = [seconds for c in self._known.values() if (seconds := c.seconds.get("training", 0.0))]
        proxies = [c.seconds["sketching"] for c in self._known.values() if "sketching" in c.seconds]
        if trainings and proxies:
            return statistics.mean(trainings) >= WORTH * statistics.mean(proxies)
        limits = self._request.limits
        limited = limits.max_latency_ms is not None or limits.max_size_bytes is not None
        return statistics.mean(trainings) >= LONG_S if trainings else limited

    def rejection(self, candidate: CandidateResult) -> str | None:
        """Return the limit on latency or size that a candidate's untrained network violates, or None if it is built.

        The error of the forecast counts in the candidate's favour. While nothing satisfies the limits, a candidate is built that
        may come nearer to them than all before.
        """
        best = self._forecast.at_best(candidate)
        if best is None:
            return None
        constraints = replace(self._constraints, limits=self._cost_limits)
        own = constraints.violations(best)
        nearest = min((sum(constraints.violations(other).values()) for other in self._complete), default=math.inf)
        if not own or (not self._able and sum(own.values()) < nearest):
            return None
        return f"before it is trained it violates {' and '.join(self._violation(name, best) for name in own)}"

    @property
    def _cost_limits(self) -> Limits:
        limits = self._request.limits
        return Limits(max_latency_ms=limits.max_latency_ms, max_size_bytes=limits.max_size_bytes)

    def _violation(self, name: str, best: CandidateResult) -> str:
        limits = self._request.limits
        if name == "max_size":
            size = 0 if best.foreseen is None else best.foreseen.size_bytes
            return f"the limit of {(limits.max_size_bytes or 0) / 1000:.4g} kB ({size / 1000:.4g} kB)"
        return f"the limit of {limits.max_latency_ms:g} ms ({best.latency[0].median_ms:.3g} ms at best)"

    # -- during training ------------------------------------------------------------------------------------------------

    def floors(self, candidate: CandidateResult) -> dict[str, Floor]:
        """Return for each place in the trainings (`Rung.key`) the quality below which the training is stopped.

        The gain that a training can still make from a place is the largest one of completed candidates plus their standard
        deviation. It holds for qualities as high as theirs: a lower one continues, and is evidence for later candidates.
        """
        needed = self._needed(candidate)
        if needed is None:
            return {}
        return {
            key: Floor(needed=self._sign * (needed - gains.most), lowest=self._sign * gains.lowest)
            for key, gains in self._gains.items()
        }

    def _needed(self, candidate: CandidateResult) -> float | None:
        """Return the signed quality that a candidate must exceed: of those that cost no more, and of the limits."""
        best = self._forecast.at_best(candidate)
        bounds: list[float] = []
        if best is not None:
            latency, size, quality = self._costs
            bounds += quality[(latency <= relative_latency(best)) & (size <= size_of(best))].tolist()
        floor = self._constraints.quality_floor()
        if floor is not None and self._able:
            bounds.append(self._sign * floor)
        return max(bounds, default=None)

    @functools.cached_property
    def _gains(self) -> dict[str, _Gains]:
        """Return by `Rung.key` how much the signed quality may still grow from there to the end."""
        pairs_by_key: dict[str, list[tuple[float, float]]] = {}
        for candidate in self._complete:
            for rung in candidate.rungs:
                gain = self._direction.gain(quality_of(candidate), rung.quality)
                pairs_by_key.setdefault(rung.key, []).append((gain, self._sign * rung.quality))
        return {
            key: _Gains(
                most=max(gain for gain, _ in pairs) + statistics.stdev(gain for gain, _ in pairs),
                lowest=min(quality for _, quality in pairs),
            )
            for key, pairs in pairs_by_key.items()
            if len(pairs) >= LEAST_PAIRS
        }

    def resumable(self, exclude: Container[str] = ()) -> CandidateResult | None:
        """Return a candidate that was stopped in its training and would not be stopped now, or None.

        Fronts only rise; what changes is the gain that trainings turn out to make.

        Args:
            exclude: Candidates that are in progress.
        """
        for candidate in self._known.values():
            if candidate.id not in exclude and candidate.state == "stopped" and candidate.rungs and candidate.quality is None:
                last = candidate.rungs[-1]
                floor = self.floors(candidate).get(last.key)
                if floor is None or not floor.above(last.quality, self._sign):
                    return candidate
        return None

    # -- before the simulation ------------------------------------------------------------------------------------------

    def hopeless(self, candidate: CandidateResult) -> str | None:
        """Return why a candidate whose latency is only estimated cannot reach the front, or None if it is simulated."""
        built = replace(candidate, foreseen=None)  # the file's own estimate, not its proxy's
        forecast = self._forecast
        ratio, error = forecast.latency_ratio(built), forecast.latency_error
        if ratio is None or error is None:
            return None
        best = forecast.at_ratio(candidate, ratio / error)
        feasible = self._constraints.satisfied(best)
        expected_ms = ratio * self._known[BASELINE].latency[0].median_ms
        text = f"its estimate of {expected_ms:.3g} ms may be {error:.2f} times too long"
        limit = self._request.limits.max_latency_ms
        if limit is not None and best.latency[0].median_ms > limit and self._able:
            return f"{text}, and even then it violates the limit of {limit:g} ms"
        for others in (self._complete, *([self._able] if feasible else [])):
            values = Objectives.of([best, *others], self._direction)
            if not dominated(values.take(np.array([0])), values.take(np.arange(1, len(others) + 1)))[0]:
                return None
        return f"{text}, and even then others are better"

    # -- what the sampler learns ----------------------------------------------------------------------------------------

    def for_sampler(self, candidate: CandidateResult) -> CandidateResult | None:
        """Return a candidate with the values that the sampler learns: its own, or the forecast ones if it was stopped.

        None if there are none: it failed, or violated a limit before it was built.
        """
        if candidate.state == "complete":
            return candidate
        return self._forecast.expected(candidate) if candidate.state == "stopped" else None

    def constraints(self, candidate: CandidateResult) -> dict[str, float]:
        """Return by how much a candidate violates each limit, for the sampler; zero or less if it is satisfied.

        For one that violated a limit before it was built: latency and size. For one that was stopped in its training and whose
        costs are unknown: quality.
        """
        constraints = self._constraints
        if candidate.state == "rejected":
            best = self._forecast.at_best(candidate)
            return {} if best is None else replace(constraints, limits=self._cost_limits).excesses(best)
        learned = self.for_sampler(candidate)
        if learned is not None:
            excesses = constraints.excesses(learned)
        else:
            learned = self._forecast.with_quality(candidate) if candidate.state == "stopped" else None
            if learned is None:
                return {}
            excesses = constraints.quality_excesses(learned)
        return excesses if constraints.useful_drop is None else {**excesses, "useful_drop": constraints.useful_excess(learned)}
