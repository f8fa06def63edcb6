"""Early stopping for the Pareto front: which candidates are not worth going on with, and what the sampler learns of them.

Optuna's pruners serve one objective (`Trial.should_prune` raises with several), so this is ours. Evidence comes in stages, the
cheapest first: what the untrained network costs (its file's size, its latency), its quality before and during training, the
latency of the trained file. After each stage a candidate goes on unless, with its uncertainty, it can no longer get onto the
front. That uncertainty is read off the candidates of this search that have both the early figure and the final one.
"""

import functools
import math
import statistics
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from orchestrator.study.pareto.constraints import excesses, quality_excesses, quality_floor, useless
from orchestrator.study.pareto.dominance import comparable, dominates, quality_of, relative_latency, size_of
from orchestrator.study.pareto.front import ParetoFront
from orchestrator.study.request import SearchRequest
from orchestrator.values.evidence import MEASURED, Evidence
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult, Difference, Floor, LatencyResult
from orchestrator.values.target import Limits
from orchestrator.values.task import TaskDescription

LEAST_PAIRS = 5
"""Candidates that have an early figure and the final one, before anything is concluded from early ones."""
LEAST_DOUBT = math.log(1.1)
LEAST_SIZE_DOUBT = math.log(1.03)
WORTH = 3.0
LONG_S = 10.0
"""A training of this many seconds is worth a first look, from which it is known what looks cost."""
SKETCH, ESTIMATE = "sketch", "estimate"
"""The steps that a failure names: broke a limit before it was built; not simulated."""


class _Gains(NamedTuple):
    """What trainings gained from a place on, and the lowest quality that one of them had there."""

    most: float
    lowest: float


class EarlyStopping:
    """A set of candidates under the limits of a request.

    Args:
        known: By id, the baseline among them.
    """

    def __init__(self, known: Mapping[str, CandidateResult], request: SearchRequest, task: TaskDescription) -> None:
        self._known, self._request, self._task = known, request, task
        self._sign = task.direction.sign

    @functools.cached_property
    def _complete(self) -> list[CandidateResult]:
        return comparable(list(self._known.values()))

    @functools.cached_property
    def _able(self) -> list[CandidateResult]:
        return [c for c in self._complete if c.feasible]

    @functools.cached_property
    def _figures(self) -> np.ndarray:
        """Of the complete candidates, as rows: relative latency, size, quality turned so that more is better."""
        figures = [(relative_latency(c), size_of(c), self._sign * quality_of(c)) for c in self._complete]
        return np.array(figures, np.float64).reshape(-1, 3).T

    @property
    def _baseline(self) -> CandidateResult:
        return self._known[BASELINE]

    def worth_a_look(self) -> bool:
        """Whether trainings here take so much longer than a look at the untrained network that looking first pays.

        Before anything was trained: where a limit might be broken.
        """
        training = [seconds for c in self._known.values() if (seconds := c.seconds.get("training", 0.0))]
        looking = [c.seconds["sketching"] for c in self._known.values() if "sketching" in c.seconds]
        if not training or not looking:
            limits = self._request.limits
            limited = limits.max_latency_ms is not None or limits.max_size_bytes is not None
            return statistics.mean(training) >= LONG_S if training else limited
        return statistics.mean(training) >= WORTH * statistics.mean(looking)

    # -- before it is built ---------------------------------------------------------------------------------------------

    def rejects(self, candidate: CandidateResult) -> str | None:
        """Why a candidate whose untrained network breaks a limit is not built; None: it is.

        Limits on latency and size, with the doubt of what was foreseen in the candidate's favour. While nothing keeps the limits,
        what may come nearer to them than everything before is built all the same.
        """
        limits = replace(self._request.limits, max_memory_bytes=None, max_drop=None, min_quality=None)
        best = self._at_best(candidate)
        if best is None:
            return None

        def broken(it: CandidateResult) -> dict[str, float]:
            return {name: by for name, by in excesses(it, self._baseline, limits, self._task.direction).items() if by > 0}

        own = broken(best)
        nearest = min((sum(broken(other).values()) for other in self._complete), default=math.inf)
        if not own or (not self._able and sum(own.values()) < nearest):
            return None
        return f"before it is trained it is beyond {' and '.join(self._beyond(name, best) for name in own)}"

    def _beyond(self, name: str, best: CandidateResult) -> str:
        limits, foreseen = self._request.limits, best.foreseen
        if name == "max_size":
            own = 0 if foreseen is None else foreseen.size_bytes
            return f"the limit of {(limits.max_size_bytes or 0) / 1000:.4g} kB ({own / 1000:.4g} kB)"
        own_ms = best.latency[0].median_ms
        return f"the limit of {limits.max_latency_ms:g} ms ({own_ms:.3g} ms at best)"

    # -- while it is trained --------------------------------------------------------------------------------------------

    def floors(self, candidate: CandidateResult) -> dict[str, Floor]:
        """For each place in the trainings the quality below which it is not worth going on, by `Rung.key`.

        Empty where nothing stands in its way yet. What a training still gains from a place on is the most that it gained in
        candidates that went through, and their spread on top. That speaks of qualities as low as theirs: what stands lower goes
        on, and is itself the evidence for those that come later.
        """
        needed = self._needed(candidate)
        if needed is None:
            return {}
        return {
            key: Floor(needed=self._sign * (self._sign * needed - gains.most), lowest=self._sign * gains.lowest)
            for key, gains in self._gains.items()
        }

    def _needed(self, candidate: CandidateResult) -> float | None:
        """The quality that a candidate must surpass: the best one's that costs no more, where that is known; the limits'."""
        best = self._at_best(candidate)
        wanted: list[float] = []
        if best is not None:
            latency, size, quality = self._figures
            wanted += quality[(latency <= relative_latency(best)) & (size <= size_of(best))].tolist()
        if self._quality_floor is not None and self._able:
            wanted.append(self._sign * self._quality_floor)
        return self._sign * max(wanted) if wanted else None

    @functools.cached_property
    def _quality_floor(self) -> float | None:
        return quality_floor(self._baseline, self._request.limits, self._task.direction, self._request.useful_drop)

    @functools.cached_property
    def _gains(self) -> dict[str, _Gains]:
        """By `Rung.key`, by how much the quality may still grow from there to the end, turned so that more is better."""
        found: dict[str, list[tuple[float, float]]] = {}
        for candidate in self._complete:
            for rung in candidate.rungs:
                gain = self._sign * (quality_of(candidate) - rung.quality)
                found.setdefault(rung.key, []).append((gain, self._sign * rung.quality))
        return {
            key: _Gains(
                most=max(gain for gain, _ in pairs) + statistics.stdev(gain for gain, _ in pairs),
                lowest=min(quality for _, quality in pairs),
            )
            for key, pairs in found.items()
            if len(pairs) >= LEAST_PAIRS
        }

    def revived(self, but: Container[str] = ()) -> CandidateResult | None:
        """A candidate that was stopped in its training and would not be by what is known now: it goes on where it stopped.

        Fronts only rise: what changes is how much trainings turn out to gain.

        Args:
            but: Candidates that are under way.
        """
        for candidate in self._known.values():
            if candidate.id not in but and candidate.state == "stopped" and candidate.rungs and candidate.quality is None:
                last = candidate.rungs[-1]
                floor = self.floors(candidate).get(last.key)
                if floor is None or not floor.above(last.quality, self._sign):
                    return candidate
        return None

    # -- before it is simulated -----------------------------------------------------------------------------------------

    def hopeless(self, candidate: CandidateResult) -> str | None:
        """Why a candidate whose latency is only estimated need not be simulated; None: it may reach the front."""
        built = replace(candidate, foreseen=None)  # the file's own estimate, not its sketch's
        ratio, doubt = self._foreseen_ratio(built), self._latency_doubt
        if ratio is None or doubt is None:
            return None
        best = self._judged(self._at(candidate, ratio / doubt))
        foreseen_ms = ratio * self._baseline.latency[0].median_ms
        said = f"its estimate of {foreseen_ms:.3g} ms may be {doubt:.2f} times too long"
        limit = self._request.limits.max_latency_ms
        if limit is not None and best.latency[0].median_ms > limit and self._able:
            return f"{said}, and even then it is beyond the limit of {limit:g} ms"
        for others in (self._complete, *([self._able] if best.feasible else [])):
            if not any(dominates(other, best, self._task.direction) for other in others):
                return None
        return f"{said}, and even then others are better"

    # -- what was foreseen ----------------------------------------------------------------------------------------------

    def _at_best(self, candidate: CandidateResult) -> CandidateResult | None:
        """The candidate at the gentle end of what was foreseen of its costs; None where that is not known well enough."""
        costs, ratio = candidate.foreseen, self._foreseen_ratio(candidate)
        if costs is None or ratio is None:
            return None
        doubt = self._latency_doubt or _own_doubt(costs.latency)
        best, size = self._at(candidate, ratio / doubt), int(costs.size_bytes / self._size_doubt)
        artifact = None if self._baseline.artifact is None else replace(self._baseline.artifact, path=None, size_bytes=size)
        return replace(best, artifact=artifact, foreseen=replace(costs, size_bytes=size), quality=self._baseline.quality)

    def _foreseen(self, candidate: CandidateResult) -> CandidateResult | None:
        """A candidate as if it had the objective latency that its early figure foretells: by its ratio to the original's."""
        ratio = self._foreseen_ratio(candidate)
        return None if ratio is None else self._at(candidate, ratio)

    def _at(self, candidate: CandidateResult, ratio: float) -> CandidateResult:
        """The candidate as if its objective latency were so many times the original's, for comparisons."""
        original = self._baseline.latency[0]
        first = LatencyResult(
            evidence=original.evidence,
            device=original.device,
            runtime=original.runtime,
            threads=original.threads,
            median_ms=original.median_ms * ratio,
            low_ms=original.low_ms * ratio,
            high_ms=original.high_ms * ratio,
            ratio=Difference(value=ratio, low=ratio, high=ratio) if original.evidence in MEASURED else None,
        )
        return replace(candidate, state="complete", latency=[first, *candidate.latency])

    def _foreseen_ratio(self, candidate: CandidateResult) -> float | None:
        """The foreseen latency over the original's; None where there is no early figure of one kind for both."""
        early = candidate.foreseen.latency if candidate.foreseen is not None else None
        if early is not None and early.ratio is not None:
            return early.ratio.value
        own, original = early or _estimated(candidate), _estimated(self._baseline)
        if own is None or original is None or own.evidence != original.evidence:
            return None
        return own.median_ms / original.median_ms

    @functools.cached_property
    def _latency_doubt(self) -> float | None:
        """How many times too long a foreseen latency may be; None before enough candidates have both."""
        errors = [abs(error) for error in map(self._latency_error, self._complete) if error is not None]
        return math.exp(max(LEAST_DOUBT, *errors)) if len(errors) >= LEAST_PAIRS else None

    def _latency_error(self, candidate: CandidateResult) -> float | None:
        ratio = self._foreseen_ratio(candidate)
        if candidate.id == BASELINE or ratio is None:
            return None
        return math.log(relative_latency(candidate) / relative_latency(self._baseline) / ratio)

    @functools.cached_property
    def _size_doubt(self) -> float:
        """How many times too large a foreseen size may be."""
        pairs = [(c.foreseen.size_bytes, size_of(c)) for c in self._complete if c.foreseen is not None]
        return math.exp(max((LEAST_SIZE_DOUBT, *(abs(math.log(own / final)) for own, final in pairs))))

    def _judged(self, candidate: CandidateResult) -> CandidateResult:
        return ParetoFront(self._known, self._request, self._task).judged(candidate, self._baseline)

    # -- what the sampler learns ----------------------------------------------------------------------------------------

    def told(self, candidate: CandidateResult) -> CandidateResult | None:
        """What the sampler learns of a candidate: as it is, or, where it was stopped, with the figures that were foreseen.

        None where there are none: it failed, or broke a limit before it was built.
        """
        if candidate.state == "complete":
            return candidate
        if candidate.state != "stopped":
            return None
        foreseen = self._foreseen(candidate)
        if foreseen is None:
            return None
        if foreseen.quality is None or foreseen.artifact is None:
            foreseen = self._with_quality(foreseen)
        return None if foreseen is None else replace(foreseen, state="complete")

    def _with_quality(self, candidate: CandidateResult) -> CandidateResult | None:
        """With its sketch's size, and the quality that its last rung foretells: the median of what others gained from there."""
        quality, artifact, value = self._baseline.quality, self._baseline.artifact, self._foretold_quality(candidate)
        if value is None or candidate.foreseen is None or quality is None or artifact is None:
            return None
        return replace(
            candidate,
            quality=replace(quality, validation=replace(quality.validation, value=value), test=None),
            artifact=replace(artifact, path=None, size_bytes=candidate.foreseen.size_bytes),
        )

    def _foretold_quality(self, candidate: CandidateResult) -> float | None:
        if not candidate.rungs:
            return None
        last = candidate.rungs[-1]
        gains = [quality_of(c) - rung.quality for c in self._complete for rung in c.rungs if rung.key == last.key]
        return last.quality + (statistics.median(gains) if gains else 0.0)

    def constraints(self, candidate: CandidateResult) -> dict[str, float]:
        """By how much a candidate breaks each limit, for the sampler: zero or less where it is kept.

        Of one that broke a limit before it was built: what is known, which is latency and size.
        """
        limits, direction = self._request.limits, self._task.direction
        if candidate.state == "rejected":
            foreseen = self._at_best(candidate)
            costs = Limits(max_latency_ms=limits.max_latency_ms, max_size_bytes=limits.max_size_bytes)
            return {} if foreseen is None else excesses(foreseen, self._baseline, costs, direction)
        learned = self.told(candidate)
        if learned is None:
            return self._short_of_quality(candidate)
        found, share = excesses(learned, self._baseline, limits, direction), self._request.useful_drop
        return found if share is None else {**found, "useful_drop": useless(learned, self._baseline, direction, share)}

    def _short_of_quality(self, candidate: CandidateResult) -> dict[str, float]:
        """Of one that was stopped in its training, and whose costs nobody knows: how far its quality is from what is kept."""
        value, quality = self._foretold_quality(candidate), self._baseline.quality
        if candidate.state != "stopped" or value is None or quality is None:
            return {}
        foretold = replace(candidate, quality=replace(quality, validation=replace(quality.validation, value=value)))
        limits, share, direction = self._request.limits, self._request.useful_drop, self._task.direction
        found = quality_excesses(foretold, self._baseline, limits, direction)
        return found if share is None else {**found, "useful_drop": useless(foretold, self._baseline, direction, share)}


def _own_doubt(early: LatencyResult | None) -> float:
    """How many times too long an early figure may be by its own account, while too few candidates have it and the final one."""
    if early is None:
        return math.inf
    if early.ratio is not None:
        return max(math.exp(LEAST_DOUBT), early.ratio.value / early.ratio.low if early.ratio.low > 0 else math.inf)
    return max(math.exp(LEAST_DOUBT), early.median_ms / early.low_ms)


def _estimated(candidate: CandidateResult) -> LatencyResult | None:
    return next((latency for latency in candidate.latency if latency.evidence == Evidence.ESTIMATED.value), None)
