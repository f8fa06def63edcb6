"""The hypervolume of a run's candidates: the share of the space of quality, latency and size that they dominate."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.report import formatting
from orchestrator.report.selection import objective
from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult, RunResult

MARGIN = 0.1
"""Distance of the reference point beyond the worst values of the fronts, as a share of their range.

Ishibuchi et al. 2018, "How to specify a reference point in hypervolume calculation for fair performance comparison".
"""

Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """The box of quality, latency in ms and size in bytes in which the hypervolume is computed.

    The hypervolume is the share of the box that a set of candidates dominates. Latency and size count by their logarithms,
    because halving the time is the same gain at 1 ms as at 100 ms.

    Attributes:
        unit_ms: Factor of ratios of measured times, or None if times were computed.
    """

    reference: Point
    ideal: Point
    direction: Direction
    unit_ms: float | None = None

    def place(self, point: Point) -> Point:
        """Return a point as coordinates to be minimised: 0 is the best, 1 the reference; values beyond it are clipped."""
        sides = []
        for k, (value, best, worst) in enumerate(zip(point, self.ideal, self.reference, strict=True)):
            low, high, at = (best, worst, value) if k == 0 else (math.log(best), math.log(worst), math.log(value))
            worse = self.direction.better(low, at) if k == 0 else at > low
            share = (at - low) / (high - low) if high != low else float(worse)
            sides.append(min(1.0, max(0.0, share)))
        return sides[0], sides[1], sides[2]

    def volume(self, points: Iterable[Point]) -> float:
        """Return the share of the box that the points dominate, 0 to 1."""
        return hypervolume([self.place(point) for point in points])


def unit_of(run: RunResult) -> float | None:
    """Return the original's time in ms if times were measured, or None."""
    latency = objective(run, run.baseline)
    return latency.median_ms if latency is not None and latency.evidence.is_measured else None


def objectives(run: RunResult, candidate: CandidateResult, unit_ms: float | None) -> Point | None:
    """Return quality on validation, latency in ms and size in bytes, or None if one of them is missing.

    Args:
        run: The run.
        candidate: One of its candidates.
        unit_ms: See `unit_of`. A measured latency counts as its ratio to the original, which was timed beside it, times this
            value, so that drift of the machine is not counted as a gain.
    """
    latency = objective(run, candidate)
    if candidate.state != "complete" or candidate.quality is None or candidate.artifact is None or latency is None:
        return None
    ms = latency.median_ms
    if unit_ms is not None and candidate.id == run.baseline.id:
        ms = unit_ms
    elif unit_ms is not None and latency.ratio is not None:
        ms = unit_ms * latency.ratio.value
    point = candidate.quality.validation.value, ms, float(candidate.artifact.size_bytes)
    return point if point[1] > 0 and point[2] > 0 else None


def box_of(runs: Sequence[RunResult]) -> Box | None:
    """Return one box for these runs, from their fronts and originals, or None; see `why_no_box`."""
    unit_ms = unit_of(runs[0])
    points = _points(runs, unit_ms)
    if len(set(points)) < 2:
        return None
    direction = runs[0].task.direction
    quality = sorted((p[0] for p in points), key=lambda value: -direction.sign * value)
    ideal, worst = [quality[0]], [quality[-1] + MARGIN * (quality[-1] - quality[0])]
    for k in (1, 2):
        low, high = min(p[k] for p in points), max(p[k] for p in points)
        ideal.append(low)
        worst.append(high * (high / low) ** MARGIN)
    return Box(
        reference=(worst[0], worst[1], worst[2]), ideal=(ideal[0], ideal[1], ideal[2]), direction=direction, unit_ms=unit_ms
    )


def why_no_box(runs: Sequence[RunResult]) -> str:
    """Return the reason why `box_of` these runs is None: identical points span no box."""
    if not _points(runs, unit_of(runs[0])):
        return "nothing has all three of quality, latency and size"
    return "the front holds no candidate whose values differ from the original's"


def _points(runs: Sequence[RunResult], unit_ms: float | None) -> list[Point]:
    listed = [(run, candidate) for run in runs for candidate in (run.baseline, *(run.candidate(name) for name in run.front))]
    return [point for run, candidate in listed if (point := objectives(run, candidate, unit_ms)) is not None]


def reference_words(box: Box, metric: str) -> str:
    """Format the reference point: 'accuracy 93.1 %, 3.4 ms, 1.9 MB'."""
    quality, latency, size = box.reference
    cost = f"{formatting.milliseconds(latency)}, {formatting.size(round(size))}"
    return f"{formatting.line(metric)} {formatting.quality(metric, quality)}, {cost}"


def hypervolume(points: Sequence[Point]) -> float:
    """Return the volume of the unit cube that points dominate, all three coordinates to be minimised.

    Computed by slices along the third coordinate, each an area under stairs: n log n a slice.
    """
    front = [p for p in points if max(p) < 1]
    levels = sorted({p[2] for p in front})
    volume = 0.0
    for level, above in pairwise([*levels, 1.0]):
        volume += (above - level) * _area(sorted((p[0], p[1]) for p in front if p[2] <= level))
    return volume


def _area(points: Sequence[tuple[float, float]]) -> float:
    """Return the area of the unit square that sorted points dominate."""
    area, lowest = 0.0, 1.0
    for x, y in points:
        if y < lowest:
            area += (1 - x) * (lowest - y)
            lowest = y
    return area


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """The hypervolume after a number of candidates, and of seconds (None if unknown)."""

    candidates: int
    seconds: float | None
    volume: float


def course(run: RunResult, box: Box) -> list[Moment]:
    """Return the hypervolume after the original and after each candidate, in the order of trials."""
    found: list[Point] = []
    moments: list[Moment] = []
    volume = 0.0
    for number, candidate in enumerate((run.baseline, *run.candidates)):
        point = objectives(run, candidate, box.unit_ms)
        if point is not None and candidate.feasible is not False:
            place = box.place(point)
            if not any(all(a <= b for a, b in zip(box.place(other), place, strict=True)) for other in found):
                found.append(point)
                volume = box.volume(found)
        moments.append(Moment(candidates=number, seconds=candidate.finished_s, volume=volume))
    return moments
