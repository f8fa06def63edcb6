"""The end of a search: the contenders are measured again side by side, and the front is scored on the test split once."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from orchestrator.devices import interrupt
from orchestrator.errors import InputError, JobFailed
from orchestrator.measuring.scoring import Evaluator, Together
from orchestrator.study.candidates.archive import Archive
from orchestrator.study.candidates.device_pool import DevicePool
from orchestrator.study.candidates.evaluator import CandidateEvaluator, failure_kind
from orchestrator.study.pareto.recommendation import Recommendation
from orchestrator.study.remeasurement import Remeasurement, allowance_s, read_remeasurement, select, write_remeasurement
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult

ReportPhase = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The candidates with their final values, and the front and recommendation that follow.

    Attributes:
        seconds: Duration of the final work by phase.
    """

    known: dict[str, CandidateResult]
    front: list[CandidateResult]
    recommendation: Recommendation
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def scored(self, known: dict[str, CandidateResult], notes: list[str], began: float) -> "Outcome":
        """Return the outcome with candidates that were scored since `began` (`time.monotonic()`)."""
        scoring = self.seconds.get("scoring", 0.0) + time.monotonic() - began
        front = [known[c.id] for c in self.front]
        return replace(self, known=known, front=front, seconds={**self.seconds, "scoring": scoring}, notes=notes)


def as_searched(archive: Archive) -> Outcome:
    """Return the outcome by the values of the search alone."""
    front = archive.front
    return Outcome(known=dict(archive.known), front=front.front(), recommendation=front.recommendation())


def remeasure(archive: Archive, run: RunDirectory, pool: DevicePool, *, timeout_s: float | None, report: ReportPhase) -> Outcome:
    """Return the outcome by latencies that are measured side by side, if the objective latency is measured on the target.

    The final front compares those with a new latency. The rest of a front that is too long for one measurement remains unless one
    of those dominates it. A candidate that fails here leaves the front, with a note.

    Raises:
        Interrupted: The user requested a stop.
        DeviceUnavailable: No device answers within the wait.
        EnvironmentFailure: This machine failed, for example its disk is full.
    """
    before, baseline = as_searched(archive), archive.baseline
    timed = select(archive.front.contenders(), before.recommendation.id) if archive.front.measured_on_target else {}
    if not timed or not baseline.has_file:
        return before
    remeasurement = read_remeasurement(run.remeasurement, timed)
    if remeasurement is None:
        report(f"measuring the front again, side by side ({len(timed)} models)")
        try:
            remeasurement = _measure(timed, archive, run, pool, timeout_s)
        except (JobFailed, InputError) as error:
            _raise_environment_failure(error)
            return replace(before, notes=[f"the front could not be measured again: {error}"])
        write_remeasurement(run.remeasurement, remeasurement)
    return _judged(before, remeasurement, archive)


def _measure(
    timed: dict[str, str], archive: Archive, run: RunDirectory, pool: DevicePool, timeout_s: float | None
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
    began = 0.0

    def together(evaluator: Evaluator) -> Together:
        nonlocal began
        began = time.monotonic()  # without aborted attempts and waiting for the device
        return evaluator.together(paths, original, seconds=allowed, runtimes=runtimes)

    measured = pool.run_anywhere(together)
    for name, samples in measured.samples.items():
        run.write_samples(name, again_ms=samples)
    failed = {name: value for name, value in measured.figures.items() if isinstance(value, JobFailed)}
    for error in failed.values():
        _raise_environment_failure(error)
    if BASELINE not in measured.figures or BASELINE in failed:
        raise failed.get(BASELINE, JobFailed("error", "the original was not timed"))
    return Remeasurement(
        timed=timed,
        latencies={name: value for name, value in measured.figures.items() if not isinstance(value, JobFailed)},
        failed={name: str(error) for name, error in failed.items()},
        seconds=round(time.monotonic() - began, 3),
    )


def _judged(before: Outcome, remeasurement: Remeasurement, archive: Archive) -> Outcome:
    baseline = remeasurement.applied(archive.baseline, archive.baseline)
    known = {BASELINE: baseline}
    for candidate in archive.candidates:
        known[candidate.id] = archive.front.judged(remeasurement.applied(candidate, baseline), baseline)
    rest = [c.id for c in before.front if c.id not in remeasurement.timed and c.id != BASELINE]
    pareto = archive.front_of({name: known[name] for name in known if name in remeasurement.latencies or name in rest})
    front = pareto.front()
    notes = [
        f"{name} could not be measured again, and is not on the front: {reason}" for name, reason in remeasurement.failed.items()
    ]
    notes += _changes(before.front, front, known, remeasurement.failed)
    if rest:
        notes.append(f"{', '.join(rest)} of the front were not measured again: it is too long for one measurement")
    return Outcome(
        known=known,
        front=front,
        recommendation=pareto.recommendation(),
        seconds={"measuring": remeasurement.seconds},
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
    joined = [c.id for c in after if c.id not in old]
    notes = [f"{name} left the front when measured again: {_times(known[name])}" for name in left]
    return notes + [f"{name} came onto the front when measured again: {_times(known[name])}" for name in joined]


def _times(candidate: CandidateResult) -> str:
    now, *_, then = candidate.latency[:2]
    if now.ratio is None or then.ratio is None:
        return f"{now.median_ms:.3g} ms, and {then.median_ms:.3g} ms during the search"
    return f"{now.ratio.value:.3f} of the original's time, and {then.ratio.value:.3f} during the search"


def score_on_simulated_cpu(
    outcome: Outcome,
    archive: Archive,
    evaluator: CandidateEvaluator,
    *,
    seconds: float,
    timeout_s: float,
    report: ReportPhase,
) -> Outcome:
    """Score the baseline and the front by the target's own kernels, if a simulated CPU replaces the target.

    Args:
        outcome: The outcome so far.
        archive: The candidates of the run.
        evaluator: Evaluator of candidates.
        seconds: For all of them; each runs as many examples as its share allows.
        timeout_s: Seconds that this may take.
        report: Called with each phase.

    Raises:
        Interrupted: The user requested a stop.
        DeviceUnavailable: No device answers within the wait.
        EnvironmentFailure: This machine failed, for example its disk is full.
    """
    if not evaluator.simulates:
        return outcome
    known, notes, began = dict(outcome.known), list(outcome.notes), time.monotonic()
    recommended = outcome.recommendation.id
    names = list(dict.fromkeys([BASELINE, *([recommended] if recommended else []), *(c.id for c in outcome.front)]))
    for k, name in enumerate(names):
        interrupt.check()
        left = seconds - (time.monotonic() - began)
        if left <= 0:
            notes.append(f"the time for scoring by the target's own kernels was up after {k} of {len(names)} models")
            break
        report(f"scoring the front by the target's own kernels ({k + 1} of {len(names)})")
        with _noting_failures(notes, f"{name} could not be scored by the target's own kernels"):
            scored = evaluator.score_simulated(archive.known[name], seconds=left / (len(names) - k), timeout_s=timeout_s)
            outputs = archive.keep(scored).simulated_outputs
            known[name] = replace(known[name], simulated_outputs=outputs)
            if outputs is not None and not outputs.equal:
                notes.append(
                    f"{name} gives other outputs by the target's own kernels: they differ by up to "
                    f"{outputs.largest_difference:.2g} of the output's range, and {outputs.tolerance:g} was expected"
                )
    return outcome.scored(known, notes, began)


def score_on_test(
    outcome: Outcome,
    archive: Archive,
    evaluator: CandidateEvaluator,
    *,
    timeout_s: float,
    report: ReportPhase,
    over: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Score the baseline and the front on the test split, once.

    Args:
        outcome: The outcome so far.
        archive: The candidates of the run.
        evaluator: Evaluator of candidates.
        timeout_s: Seconds that this may take.
        report: Called with each phase.
        over: Returns True if the run's time is up for good.

    Raises:
        Interrupted: The user requested a stop.
        DeviceUnavailable: No device answers within the wait.
        EnvironmentFailure: This machine failed, for example its disk is full.
    """
    known, notes, began = dict(outcome.known), list(outcome.notes), time.monotonic()
    names = [BASELINE, *(c.id for c in outcome.front if c.id != BASELINE)]
    for k, name in enumerate(names):
        interrupt.check()
        if over():
            notes.append(f"the time for scoring on the test split was up after {k} of {len(names)} models")
            break
        report(f"scoring the front on the test split ({k + 1} of {len(names)})")
        with _noting_failures(notes, f"{name} could not be scored on the test split") as failed:
            # The record keeps the latency of the search: only the quality is published.
            scored = archive.keep(evaluator.score_test(archive.known[name], timeout_s=timeout_s))
            known[name] = replace(known[name], quality=scored.quality)
        if failed and name == BASELINE:
            break  # the others are compared with it
    return outcome.scored(known, notes, began)


@contextmanager
def _noting_failures(notes: list[str], text: str) -> Iterator[list[Exception]]:
    """Turn a failure of the model into a note, and yield the list that then holds it: results are not discarded for it."""
    failed: list[Exception] = []
    try:
        yield failed
    except (JobFailed, InputError) as error:
        _raise_environment_failure(error)
        notes.append(f"{text}: {error}")
        failed.append(error)


def _raise_environment_failure(error: Exception) -> None:
    """Raise EnvironmentFailure if the machine failed and not the model."""
    if isinstance(error, JobFailed):
        failure_kind(error)
