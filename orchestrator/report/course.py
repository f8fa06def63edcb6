"""The course of a search: what of the hypervolume was there after each candidate."""

from dataclasses import dataclass

from orchestrator.report.hypervolume import Box, Point, objectives
from orchestrator.values.results import RunResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """The hypervolume after so many candidates, and so many seconds (None: the run does not know)."""

    candidates: int
    seconds: float | None
    volume: float


def course(run: RunResult, box: Box) -> list[Moment]:
    """The original first, then every candidate in the order of its trials; those without figures add nothing."""
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
