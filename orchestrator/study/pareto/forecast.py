"""Forecasts of a candidate's final costs and quality from early values: its untrained network, its estimate, its rungs.

The error of a forecast is taken from the candidates of this search that have both the early value and the final one.
"""

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.study.pareto.dominance import quality_of, relative_latency, size_of
from orchestrator.values.evidence import Evidence
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult, Difference, LatencyResult

LEAST_PAIRS = 5
"""Candidates with both an early value and the final one, before anything is concluded from early values."""
LEAST_LATENCY_ERROR = math.log(1.1)
LEAST_SIZE_ERROR = math.log(1.03)


class Forecast:
    """Forecasts from the complete candidates of a search.

    Args:
        complete: The complete candidates, the baseline among them.
    """

    def __init__(self, complete: Sequence[CandidateResult], baseline: CandidateResult) -> None:
        self._complete, self._baseline = complete, baseline

    def at_best(self, candidate: CandidateResult) -> CandidateResult | None:
        """Return the candidate with its costs at the favourable end of their forecast, or None if that is unknown."""
        costs, ratio = candidate.foreseen, self.latency_ratio(candidate)
        if costs is None or ratio is None:
            return None
        error = self.latency_error or _own_error(costs.latency)
        best, size = self.at_ratio(candidate, ratio / error), int(costs.size_bytes / self._size_error)
        artifact = None if self._baseline.artifact is None else replace(self._baseline.artifact, path=None, size_bytes=size)
        return replace(best, artifact=artifact, foreseen=replace(costs, size_bytes=size), quality=self._baseline.quality)

    def expected(self, candidate: CandidateResult) -> CandidateResult | None:
        """Return the candidate as complete with the expected latency, size and quality, or None if one is unknown."""
        ratio = self.latency_ratio(candidate)
        if ratio is None:
            return None
        expected = self.at_ratio(candidate, ratio)
        if expected.quality is not None and expected.artifact is not None:
            return expected
        with_quality, artifact = self.with_quality(expected), self._baseline.artifact
        if with_quality is None or candidate.foreseen is None or artifact is None:
            return None
        return replace(with_quality, artifact=replace(artifact, path=None, size_bytes=candidate.foreseen.size_bytes))

    def with_quality(self, candidate: CandidateResult) -> CandidateResult | None:
        """Return the candidate with the quality of its last rung plus the median gain of others from there, or None."""
        quality = self._baseline.quality
        if quality is None or not candidate.rungs:
            return None
        last = candidate.rungs[-1]
        gains = [quality_of(c) - rung.quality for c in self._complete for rung in c.rungs if rung.key == last.key]
        value = last.quality + (statistics.median(gains) if gains else 0.0)
        return replace(candidate, quality=replace(quality, validation=replace(quality.validation, value=value), test=None))

    def at_ratio(self, candidate: CandidateResult, ratio: float) -> CandidateResult:
        """Return the candidate as complete, with an objective latency of `ratio` times the baseline's."""
        original = self._baseline.latency[0]
        first = LatencyResult(
            evidence=original.evidence,
            device=original.device,
            runtime=original.runtime,
            threads=original.threads,
            median_ms=original.median_ms * ratio,
            low_ms=original.low_ms * ratio,
            high_ms=original.high_ms * ratio,
            ratio=Difference(value=ratio, low=ratio, high=ratio) if original.evidence.is_measured else None,
        )
        return replace(candidate, state="complete", latency=[first, *candidate.latency])

    def latency_ratio(self, candidate: CandidateResult) -> float | None:
        """Return the forecast latency over the baseline's, or None without early values of one kind for both."""
        early = candidate.foreseen.latency if candidate.foreseen is not None else None
        if early is not None and early.ratio is not None:
            return early.ratio.value
        own, original = early or _estimated(candidate), _estimated(self._baseline)
        if own is None or original is None or own.evidence != original.evidence:
            return None
        return own.median_ms / original.median_ms

    @functools.cached_property
    def latency_error(self) -> float | None:
        """Return the factor by which a forecast latency may be too long, or None while too few candidates have both values."""
        errors = [
            abs(math.log(relative_latency(c) / relative_latency(self._baseline) / ratio))
            for c in self._complete
            if c.id != BASELINE and (ratio := self.latency_ratio(c)) is not None
        ]
        return math.exp(max(LEAST_LATENCY_ERROR, *errors)) if len(errors) >= LEAST_PAIRS else None

    @functools.cached_property
    def _size_error(self) -> float:
        """Return the factor by which a forecast size may be too large."""
        pairs = [(c.foreseen.size_bytes, size_of(c)) for c in self._complete if c.foreseen is not None]
        return math.exp(max((LEAST_SIZE_ERROR, *(abs(math.log(early / final)) for early, final in pairs))))


def _own_error(early: LatencyResult | None) -> float:
    """Return the factor by which an early latency may be too long by its own interval."""
    if early is None:
        return math.inf
    if early.ratio is not None:
        return max(math.exp(LEAST_LATENCY_ERROR), early.ratio.value / early.ratio.low if early.ratio.low > 0 else math.inf)
    return max(math.exp(LEAST_LATENCY_ERROR), early.median_ms / early.low_ms)


def _estimated(candidate: CandidateResult) -> LatencyResult | None:
    return next((latency for latency in candidate.latency if latency.evidence == Evidence.ESTIMATED), None)
