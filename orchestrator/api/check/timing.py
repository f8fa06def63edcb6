"""The criteria that need repeated runs of the models: latency and peak memory."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from orchestrator.api.check.settings import CheckOptions
from orchestrator.api.measure import Bench
from orchestrator.measuring.disturbance import WAITED_SHARE
from orchestrator.measuring.sequential_test import RatioTest, round_ratio
from orchestrator.measuring.timing import Plan, Timing
from orchestrator.report import formatting
from orchestrator.values.check import Criterion, Judgement, Name

WALL, CPU = 2, 3
LEAST_ROUND_S = 2.0
ROUNDS_IN_A_BUDGET = 16  # at least: the first interim analysis needs four rounds
BLOCKS = 6  # few blocks a round: the variation between rounds is the limiting one


@dataclass(slots=True)
class _Rounds:
    """The rounds of timing; each is a pair of candidate and baseline."""

    milliseconds: list[tuple[float, float]] = field(default_factory=list)
    bytes_: list[tuple[int, int]] = field(default_factory=list)
    by_cpu: int = 0
    waited: float = 0.0
    disturbed: str | None = None
    seconds: float = 0.0


def judge_time_and_memory(bench: Bench, options: CheckOptions) -> list[Criterion]:
    """Time both models side by side, round after round, until each criterion is decided or the budget is spent.

    Raises:
        InputError: A model cannot be loaded or run.
        EnvironmentFailure: The device is unreachable.
    """
    if bench.simulation is not None:
        return _simulated(bench, options)
    latency = None if options.max_slowdown is None else RatioTest(options.max_slowdown)
    memory = None if options.max_memory_growth is None else RatioTest(options.max_memory_growth)
    taken = _rounds(bench, options, latency, memory)
    found = []
    if latency is not None:
        found.append(_latency(bench, options, latency, taken))
    if memory is not None:
        ours, theirs = (float(np.median([pair[k] for pair in taken.bytes_])) for k in (0, 1))
        found.append(_ratio_criterion("peak-memory", "bytes", memory, ours, theirs, options, "memory", "", {}))
    return found


def _rounds(bench: Bench, options: CheckOptions, latency: RatioTest | None, memory: RatioTest | None) -> _Rounds:
    taken = _Rounds()
    begin, longest, k = time.monotonic(), 0.0, 0
    tests = [test for test in (latency, memory) if test is not None]
    while not all(test.decided for test in tests):
        started = time.monotonic()
        left = options.budget_s - (started - begin)
        if k and left < longest:
            break
        seconds = max(LEAST_ROUND_S, min(left, options.budget_s / ROUNDS_IN_A_BUDGET))
        plan = Plan(rounds=1, blocks=BLOCKS, precision_goal=math.inf, max_seconds=seconds)
        candidate, baseline = bench.time(plan, seed=options.seed + k)
        _note(taken, candidate, baseline, latency, memory)
        longest, k = max(longest, time.monotonic() - started), k + 1
    for test in tests:
        test.close()
    taken.seconds = time.monotonic() - begin
    return taken


def _note(taken: _Rounds, candidate: Timing, baseline: Timing, latency: RatioTest | None, memory: RatioTest | None) -> None:
    waited = max(t.conditions.get("waited_share", 0.0) for t in (candidate, baseline))
    # If other processes used the core, the CPU time of the one thread still measures the model.
    by_cpu = waited > WAITED_SHARE and candidate.cpu_ratio is not None
    column = CPU if by_cpu else WALL
    taken.by_cpu += by_cpu
    taken.waited = max(taken.waited, waited)
    taken.disturbed = taken.disturbed or candidate.measurement.disturbed
    ours, theirs = (float(np.median([row[column] for row in t.table])) for t in (candidate, baseline))
    taken.milliseconds.append((ours, theirs))
    taken.bytes_.append((candidate.peak_memory_bytes, baseline.peak_memory_bytes))
    if latency is not None:
        latency.add(round_ratio(candidate.table, baseline.table, column))
    if memory is not None:
        memory.add(max(1, candidate.peak_memory_bytes) / max(1, baseline.peak_memory_bytes))


def _latency(bench: Bench, options: CheckOptions, test: RatioTest, taken: _Rounds) -> Criterion:
    rounds = len(taken.milliseconds)
    ours, theirs = (float(np.median([pair[k] for pair in taken.milliseconds])) for k in (0, 1))
    basis = "wall" if not taken.by_cpu else "cpu" if taken.by_cpu == rounds else "wall and cpu"
    notes = []
    if taken.by_cpu:
        counted = "CPU time" if taken.by_cpu == rounds else f"CPU time in {taken.by_cpu} of {rounds} rounds"
        notes.append(f"; by {counted}, for other work took the core away for up to {taken.waited:.0%} of the wall time")
    if bench.host_note:
        notes.append(f"; {bench.host_note}")
    steadier = "--threads 1, which is steadier, " if bench.evaluator.threads > 1 else ""
    details = {
        "evidence": "measured-on-target" if bench.evaluator.target.is_device else "measured-on-host",
        "basis": basis,
        "rounds": rounds,
        "looks": test.looks,
        "waited_share": round(taken.waited, 4),
        "disturbed": taken.disturbed,
        "seconds": round(taken.seconds, 2),
    }
    return _ratio_criterion("latency", "ms", test, ours, theirs, options, "time", "".join(notes), details, steadier)


def _ratio_criterion(
    name: Name,
    unit: str,
    test: RatioTest,
    ours: float,
    theirs: float,
    options: CheckOptions,
    what: str,
    notes: str,
    details: Mapping[str, object],
    steadier: str = "",
) -> Criterion:
    interval, limit = test.interval, test.limit
    budget = formatting.seconds(options.budget_s)
    if interval is None:
        rounds = "1 round" if test.rounds == 1 else f"{test.rounds} rounds"
        reason = f"the budget of {budget} was spent after {rounds}, too few for an interval: give a larger --budget"
        return Criterion(
            name=name,
            verdict="undecided",
            reason=reason + notes,
            unit=unit,
            limit=limit,
            baseline=theirs,
            candidate=ours,
            change=ours / theirs - 1 if theirs else None,
            details=details,
        )
    ends = f"{interval.low:.4g} to {interval.high:.4g} of the baseline's {what} ({100 * interval.confidence:.4g} % interval)"
    allowed = f"{1 + limit:.4g}"
    reason = {
        "ok": f"{ends}: within {allowed}",
        "regressed": f"{ends}: all of it beyond {allowed}",
        "undecided": f"{ends}, which still reaches across {allowed} after {budget}: give more time with --budget, "
        f"{steadier}a wider limit or a quieter machine",
    }[test.verdict]
    return Criterion(
        name=name,
        verdict=test.verdict,
        reason=reason + notes,
        unit=unit,
        limit=limit,
        baseline=theirs,
        candidate=ours,
        change=interval.value - 1,
        low=interval.low - 1,
        high=interval.high - 1,
        confidence=interval.confidence,
        details=details,
    )


def _simulated(bench: Bench, options: CheckOptions) -> list[Criterion]:
    """Judge by instruction counts times the board's constants, which have no noise and are the same on any machine."""
    found = []
    if (limit := options.max_slowdown) is not None:
        candidate, baseline = bench.simulated()
        if bench.simulation is None:
            raise RuntimeError("nothing is simulated here")
        ratio = bench.simulation.ratio(candidate, baseline)
        verdict: Judgement = "regressed" if ratio.value > 1 + limit else "ok"
        simulator = bench.simulation.target.simulator
        allowed = f"{'beyond' if verdict == 'regressed' else 'within'} {1 + limit:.4g}"
        reason = (
            f"{ratio.value:.4f} of the baseline's time on a simulated {simulator}, the same on every machine "
            f"(on boards {ratio.low:.3f} to {ratio.high:.3f}, 90 % band): {allowed}"
        )
        details = {
            "evidence": "simulated",
            "basis": "simulated",
            "device": simulator,
            "band_low": ratio.low - 1,
            "band_high": ratio.high - 1,
            "instructions": {"baseline": _instructions(baseline), "candidate": _instructions(candidate)},
        }
        found.append(
            Criterion(
                name="latency",
                verdict=verdict,
                reason=reason,
                unit="ms",
                limit=limit,
                baseline=baseline.estimate.value,
                candidate=candidate.estimate.value,
                change=ratio.value - 1,
                low=ratio.value - 1,
                high=ratio.value - 1,
                details=details,
            )
        )
    if options.max_memory_growth is not None:
        reason = "a simulated CPU tells nothing of memory"
        found.append(
            Criterion(name="peak-memory", verdict="not judged", reason=reason, unit="bytes", limit=options.max_memory_growth)
        )
    return found


def _instructions(run: object) -> int | None:
    counts = getattr(getattr(run, "found", None), "counts", {})
    value = counts.get("instructions")
    return None if value is None else int(value)
