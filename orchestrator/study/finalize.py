"""The end of a search: the front and its near misses are measured again, side by side, then scored on the test split, once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.devices import interrupt
from orchestrator.errors import InputError, JobFailed
from orchestrator.measuring.scoring import Evaluator, Together
from orchestrator.study.archive import Archive
from orchestrator.study.candidates.device_pool import DevicePool
from orchestrator.study.candidates.evaluator import CandidateEvaluator, kind_of
from orchestrator.study.pareto.recommendation import Recommendation
from orchestrator.study.remeasurement import Remeasurement, allowance_s, chosen, read_again, write_again
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The candidates with the figures that count, and what follows from them.

    Attributes:
        seconds: What was done here took, by phase.
    """

    known: dict[str, CandidateResult]
    front: list[CandidateResult]
    recommendation: Recommendation
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def as_searched(archive: Archive) -> Outcome:
    """By the figures of the search alone."""
    standing = archive.standing
    return Outcome(known=dict(archive.known), front=standing.front(), recommendation=standing.recommendation())


def measured_again(
    archive: Archive, run: RunDirectory, fleet: DevicePool, *, timeout_s: float | None, tell: Callable[[str], None]
) -> Outcome:
    """By figures that were taken side by side, where the objective latency is measured on the target.

    The final front compares those that have a new figure. Of a front too long for one measurement the rest keeps its place unless
    one of those dominates it. What fails here leaves the front, with a note.

    Raises:
        Interrupted: the user asked to stop.
        DeviceUnavailable: no device is there, after waiting.
        EnvironmentFailure: this machine failed: its disk is full, ...
    """
    before = as_searched(archive)
    standing = archive.standing
    timed = chosen(before.front, standing.near_misses(), before.recommendation.id) if standing.measured_on_target else {}
    baseline = archive.baseline.artifact
    if not timed or baseline is None or baseline.path is None:
        return before
    again = read_again(run.again, timed)
    if again is None:
        tell(f"measuring the front again, side by side ({len(timed)} models)")
        try:
            again = _measure(timed, archive, run, fleet, timeout_s)
        except (JobFailed, InputError) as error:
            if isinstance(error, JobFailed):
                kind_of(error)  # the machine's own failure goes on from here
            return replace(before, notes=[f"the front could not be measured again: {error}"])
        write_again(run.again, again)
    return _judged(before, again, archive)


def _measure(
    timed: dict[str, str], archive: Archive, run: RunDirectory, fleet: DevicePool, timeout_s: float | None
) -> Remeasurement:
    paths = {}
    for name in (*timed, BASELINE):
        artifact = archive.known[name].artifact
        if artifact is None or artifact.path is None:
            raise ValueError(f"candidate {name} has no file")
        paths[name] = run.path / artifact.path
    original = paths.pop(BASELINE)
    runtimes = {name: archive.known[name].latency[0].runtime for name in paths}
    allowed = None if timeout_s is None else allowance_s(len(timed), timeout_s)
    begin = 0.0

    def together(evaluator: Evaluator) -> Together:
        nonlocal begin
        begin = time.monotonic()  # what was broken off, and waiting for the device, is no measuring time
        return evaluator.together(paths, original, seconds=allowed, runtimes=runtimes)

    done = fleet.somewhere(together)
    for name, samples in done.samples.items():
        run.write_samples(name, again_ms=samples)
    found = done.figures
    for figure in found.values():
        if isinstance(figure, JobFailed):
            kind_of(figure)  # where it was not the model that failed, nothing is written down
    if isinstance(failure := found.get(BASELINE, JobFailed("error", "the original was not timed")), JobFailed):
        raise failure
    return Remeasurement(
        timed=timed,
        figures={name: figure for name, figure in found.items() if not isinstance(figure, JobFailed)},
        failed={name: str(figure) for name, figure in found.items() if isinstance(figure, JobFailed)},
        seconds=round(time.monotonic() - begin, 3),
    )


def _judged(before: Outcome, again: Remeasurement, archive: Archive) -> Outcome:
    """The front and the recommendation anew."""
    baseline = again.applied(archive.baseline, archive.baseline)
    known = {BASELINE: baseline}
    for candidate in archive.candidates:
        known[candidate.id] = archive.standing.judged(again.applied(candidate, baseline), baseline)
    rest = [c.id for c in before.front if c.id not in again.timed and c.id != BASELINE]
    standing = archive.standing_of({name: known[name] for name in known if name in again.figures or name in rest})
    front = standing.front()
    notes = [f"{name} could not be measured again, and is not on the front: {reason}" for name, reason in again.failed.items()]
    notes += _changes(before.front, front, known, again.failed)
    if rest:
        notes.append(f"{', '.join(rest)} of the front were not measured again: it is too long for one measurement")
    return Outcome(
        known=known,
        front=front,
        recommendation=standing.recommendation(),
        seconds={"measuring": again.seconds},
        notes=notes,
    )


def _changes(
    before: Sequence[CandidateResult],
    after: Sequence[CandidateResult],
    known: Mapping[str, CandidateResult],
    failed: Mapping[str, str],
) -> list[str]:
    old, new = {c.id for c in before}, {c.id for c in after}
    left = [c.id for c in before if c.id not in new and c.id not in failed]
    came = [c.id for c in after if c.id not in old]
    notes = [f"{name} left the front when measured again: {_times(known[name])}" for name in left]
    return notes + [f"{name} came onto the front when measured again: {_times(known[name])}" for name in came]


def _times(candidate: CandidateResult) -> str:
    now, *_, then = candidate.latency[:2]
    if now.ratio is None or then.ratio is None:
        return f"{now.median_ms:.3g} ms, and {then.median_ms:.3g} ms during the search"
    return f"{now.ratio.value:.3f} of the original's time, and {then.ratio.value:.3f} during the search"


def scored_on_simulated(
    outcome: Outcome,
    archive: Archive,
    laboratory: CandidateEvaluator,
    *,
    seconds: float,
    timeout_s: float,
    tell: Callable[[str], None],
) -> Outcome:
    """The outputs of the baseline and the front by the target's own kernels, where a simulated CPU stands in for it.

    Args:
        seconds: For all of them; each runs as many examples as its share allows.

    Raises:
        Interrupted: the user asked to stop.
        DeviceUnavailable: no device is there, after waiting.
        EnvironmentFailure: this machine failed: its disk is full, ...
    """
    if not laboratory.simulates:
        return outcome
    known, notes, begin = dict(outcome.known), list(outcome.notes), time.monotonic()
    best = outcome.recommendation.id
    names = list(dict.fromkeys([BASELINE, *([best] if best else []), *(c.id for c in outcome.front)]))
    for k, name in enumerate(names):
        interrupt.check()
        left = seconds - (time.monotonic() - begin)
        if left <= 0:
            notes.append(f"the time for scoring by the target's own kernels was up after {k} of {len(names)} models")
            break
        tell(f"scoring the front by the target's own kernels ({k + 1} of {len(names)})")
        try:
            kept = laboratory.score_simulated(archive.known[name], seconds=left / (len(names) - k), timeout_s=timeout_s)
            kept = archive.keep(kept)
            known[name] = replace(known[name], simulated_outputs=kept.simulated_outputs)
        except (JobFailed, InputError) as error:
            if isinstance(error, JobFailed):
                kind_of(error)  # the machine's own failure goes on from here
            notes.append(f"{name} could not be scored by the target's own kernels: {error}")
            continue
        there = kept.simulated_outputs
        if there is not None and not there.equal:
            notes.append(
                f"{name} gives other outputs by the target's own kernels: they differ by up to {there.largest_difference:.2g} of "
                f"the output's range, and {there.tolerance:g} was expected"
            )
    took = {**outcome.seconds, "scoring": outcome.seconds.get("scoring", 0.0) + time.monotonic() - begin}
    return replace(outcome, known=known, front=[known[c.id] for c in outcome.front], seconds=took, notes=notes)


def scored_on_test(
    outcome: Outcome,
    archive: Archive,
    laboratory: CandidateEvaluator,
    *,
    timeout_s: float,
    tell: Callable[[str], None],
    over: Callable[[], bool] = lambda: False,
) -> Outcome:
    """The test split, once, for the baseline and the front.

    Args:
        over: Whether the run's time is up for good.

    Raises:
        Interrupted: the user asked to stop.
        DeviceUnavailable: no device is there, after waiting.
        EnvironmentFailure: this machine failed: its disk is full, ...
    """
    known, notes = dict(outcome.known), list(outcome.notes)
    names = [BASELINE, *(c.id for c in outcome.front if c.id != BASELINE)]
    begin = time.monotonic()
    for k, name in enumerate(names):
        interrupt.check()
        if over():
            notes.append(f"the time for scoring on the test split was up after {k} of {len(names)} models")
            break
        tell(f"scoring the front on the test split ({k + 1} of {len(names)})")
        try:
            # The record keeps the search's own latency: only the quality goes over to what is published.
            kept = archive.keep(laboratory.score_test(archive.known[name], timeout_s=timeout_s))
            known[name] = replace(known[name], quality=kept.quality)
        except (JobFailed, InputError) as error:  # what was found is not thrown away for that
            if isinstance(error, JobFailed):
                kind_of(error)  # the machine's own failure goes on from here
            notes.append(f"{name} could not be scored on the test split: {error}")
            if name == BASELINE:
                break  # the others are compared with it
    seconds = {**outcome.seconds, "scoring": outcome.seconds.get("scoring", 0.0) + time.monotonic() - begin}
    return replace(outcome, known=known, front=[known[c.id] for c in outcome.front], seconds=seconds, notes=notes)
