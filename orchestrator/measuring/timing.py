"""The timing protocol: models side by side, in blocks, in random order, in new processes, until the interval is narrow enough.

One protocol for every runtime and device. In each round every model gets a new process on the same cores; each is run until
its times are stationary; then blocks of samples are interleaved in random order, so that drift of the machine affects all
alike. Rounds differ by memory placement, which no number of samples in one process shows.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestrator.devices import interrupt
from orchestrator.devices.session import Session
from orchestrator.errors import InputError
from orchestrator.measuring.disturbance import Conditions, observed
from orchestrator.measuring.statistics import median_interval, outliers, ratio_interval
from orchestrator.values.device import DeviceState
from orchestrator.values.evidence import Measurement
from orchestrator.values.results import Difference

BLOCK_S = 0.03
BLOCKS = 10  # blocks of each model in a round
LEAST_BLOCKS = 3  # for models so slow that ten take too long
SETTLE_S = 0.02  # from this duration on, the first inference after a pause counts: there are few
WARM_BLOCK_S = 0.02
WARM_WINDOW = 4
WARM_SHARE = 0.15  # share of the available time
STATIONARY = 0.02
TIMER_STEPS = 200  # steps of the timer in a sample: one step is then half a per cent
MOST_INNER = 10_000
ALL_RUNS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The length of a measurement.

    Attributes:
        precision_goal: The measurement ends when the half-width of the 95 % interval is below this share of the value ...
        max_seconds: ... or after this time, loading included. If loading takes most of it (a small board), half of it is still
            spent on samples; the first three blocks are measured in any case.
        rounds: Least number of rounds, if time allows.
        blocks: Blocks of each model in a round.
        settled: Returns True if a ratio's interval (low, high) is sufficient; None if only its width counts.
    """

    precision_goal: float = 0.02
    max_seconds: float = 10.0
    rounds: int = 1
    blocks: int = BLOCKS
    settled: Callable[[float, float], bool] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """The times of one model.

    Attributes:
        measurement: Wall time of one inference, ms.
        ratio: Ratio of wall times to the model that was timed beside it; None for that one, or if it was alone.
        cpu_median_ms: CPU time of the calling thread, if that does all the work, else None.
        cpu_ratio: As `ratio`, of that CPU time, which is valid under load.
        energy_mj: Energy of the processor packages during one inference, millijoules; None without a counter.
        peak_memory_bytes: Peak resident memory above that of the process before it loaded the model.
        conditions: The state of the machine during the measurement, and how it ended.
        table: The raw samples: (round, block, wall ms, CPU ms) each, in the order of measurement.
    """

    measurement: Measurement
    peak_memory_bytes: int
    conditions: dict[str, Any]
    ratio: Difference | None = None
    cpu_median_ms: float | None = None
    cpu_ratio: Difference | None = None
    energy_mj: float | None = None
    table: tuple[tuple[int, int, float, float], ...] = ()


@dataclass(slots=True)
class _Series:
    """The samples of one model: per round and block an array (N, 3): wall, thread, process; seconds."""

    rounds: list[list[np.ndarray]] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    peak: int = 0
    inner: int = 1
    stationary: bool = True

    def column(self, k: int) -> list[list[np.ndarray]]:
        return [[block[:, k] for block in blocks] for blocks in self.rounds]


def time_models(
    openers: Sequence[Callable[[], Session]], *, plan: Plan, seed: int, single_thread: bool, device: str
) -> list[Timing]:
    """Time models; ratios are to the last one.

    Args:
        openers: Each starts a new process with its model loaded.
        plan: How long to measure.
        seed: Seed of the order of blocks.
        single_thread: True if the calling thread does all of an inference's work, so that its CPU time measures it too.
        device: Name of the device, for messages.

    Raises:
        JobFailed: A process crashed, hung or exceeded its memory limit.
        DeviceUnavailable: The device is lost.
        Interrupted: The user interrupted it.
        InputError: The device's timer is too coarse for a model.
    """
    begin = time.monotonic()
    deadline = begin + plan.max_seconds
    random = np.random.default_rng(seed)
    series = [_Series() for _ in openers]
    states: list[tuple[DeviceState | None, DeviceState | None]] = []
    cores: tuple[int, ...] = ()
    own = 0.0
    while True:
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            sessions: list[Session | None] = [None] * len(openers)
            for k in random.permutation(len(openers)):
                sessions[k] = stack.enter_context(openers[k]())
            live = [session for session in sessions if session is not None]
            for one, session in zip(series, live, strict=True):
                _warm_up(one, session, plan, device)
                one.rounds.append([])
            cores = live[0].cores()
            prepared = time.monotonic()
            if not states:
                deadline = max(deadline, prepared + plan.max_seconds / 2)
            before = live[0].state()
            own += _blocks(series, live, random, plan, deadline, fresh=time.monotonic() - started)
            states.append((before, live[0].state()))
            for one, session in zip(series, live, strict=True):
                one.peak = max(one.peak, session.peak_memory_bytes())
        if _sure(series, plan) and len(states) >= plan.rounds:
            break
        if time.monotonic() + (prepared - started) + _seconds_of_blocks(series, LEAST_BLOCKS) > deadline:
            break  # another round could not be completed
    conditions = observed(states, own, cores)
    return _timings(series, conditions, plan, single_thread, time.monotonic() - begin)


def _blocks(
    series: Sequence[_Series], sessions: Sequence[Session], random: np.random.Generator, plan: Plan, deadline: float, fresh: float
) -> float:
    """Measure interleaved blocks of all models into the last round of each series; return the process CPU seconds.

    The round is longer than usual if starting other processes would take most of the time left.
    """
    own, taken = 0.0, 0
    metered = (state := sessions[0].state()) is not None and state.energy_j is not None
    while True:
        interrupt.check()  # a block is shorter than the pause after which a request looks for itself
        for k in random.permutation(len(sessions)):
            one, session = series[k], sessions[k]
            single = one.rounds[-1][-1][0, 0] * one.inner if one.rounds[-1] else 0.0
            if single < SETTLE_S:
                settled = session.time(
                    seconds=0, runs=1, inner=one.inner
                )  # the first run after a pause is slow and does not count
                own += sum(process for _, _, process in settled) * one.inner
            joules = _joules(session) if metered else None
            block = np.array(session.time(seconds=BLOCK_S, runs=ALL_RUNS, inner=one.inner))
            if joules is not None and (after := _joules(session)) is not None and after > joules:
                one.joules.append((after - joules) / len(block) / one.inner)
            one.rounds[-1].append(block)
            own += float(block[:, 2].sum()) * one.inner
        taken += 1
        now = time.monotonic()
        if taken >= LEAST_BLOCKS and now >= deadline:
            return own
        if taken % plan.blocks == 0:
            left = deadline - now
            if fresh < left / 2 or _sure(series, plan):
                return own


def _joules(session: Session) -> float | None:
    state = session.state()
    return None if state is None else state.energy_j


def _warm_up(one: _Series, session: Session, plan: Plan, device: str) -> None:
    """Run until the times are stationary: over a window of blocks they change by less than 2 %, or show no trend."""
    (first,) = session.time(seconds=0, runs=1)
    resolution = session.timer_resolution()
    end = time.monotonic() + WARM_SHARE * plan.max_seconds
    medians: list[float] = []
    while True:
        samples = session.time(seconds=WARM_BLOCK_S, runs=ALL_RUNS, inner=one.inner)
        medians.append(float(np.median([wall for wall, _, _ in samples])))
        needed = _inner(medians[-1] if medians[-1] > 0 else first[0], resolution, device)
        if needed > one.inner:
            one.inner, medians = needed, []
            continue
        window = np.array(medians[-WARM_WINDOW:])
        if len(window) == WARM_WINDOW:
            early, late = np.median(window[: WARM_WINDOW // 2]), np.median(window[WARM_WINDOW // 2 :])
            steps = np.diff(window)
            one_way = (steps < 0).all() or (steps > 0).all()
            if abs(early - late) <= STATIONARY * late or not one_way:
                return
        if time.monotonic() > end:
            one.stationary = False
            return


def _inner(seconds: float, resolution: float, device: str) -> int:
    """Return the number of inferences that make one sample, so that the timer's resolution does not matter.

    Raises:
        InputError: It would be too many.
    """
    needed = math.ceil(TIMER_STEPS * resolution / seconds) if seconds > 0 else MOST_INNER + 1
    if needed > MOST_INNER:
        raise InputError(
            f"the timer of {device} goes in steps of {resolution * 1e3:.3g} ms, too coarse for a model that takes "
            f"about {seconds * 1e3:.2g} ms; time it as part of a larger one"
        )
    return max(1, needed)


def _sure(series: Sequence[_Series], plan: Plan) -> bool:
    """Return True if every interval is narrow enough and sufficient for its purpose."""
    for one in series[:-1] if len(series) > 1 else series:
        if len(series) == 1:
            low, high = median_interval(one.column(0))
            middle = float(np.median(np.concatenate([np.concatenate(blocks) for blocks in one.column(0)])))
        else:
            middle, low, high = ratio_interval(one.column(0), series[-1].column(0))
            if plan.settled is not None and not plan.settled(low, high):
                return False
        if (high - low) / 2 > plan.precision_goal * middle:
            return False
    return True


def _seconds_of_blocks(series: Sequence[_Series], count: int) -> float:
    slowest = [max(BLOCK_S, 2 * float(np.median(one.rounds[-1][-1][:, 0])) * one.inner) for one in series]
    return count * sum(slowest)


def _timings(series: Sequence[_Series], conditions: Conditions, plan: Plan, single_thread: bool, seconds: float) -> list[Timing]:
    return [_timing(one, None if one is series[-1] else series[-1], conditions, plan, single_thread, seconds) for one in series]


def _timing(
    one: _Series, other: _Series | None, conditions: Conditions, plan: Plan, single_thread: bool, seconds: float
) -> Timing:
    whole = np.concatenate([np.concatenate(blocks) for blocks in one.rounds])
    walls = whole[:, 0] * 1e3
    waited = max(0.0, 1 - float(whole[:, 1].sum() / whole[:, 0].sum())) if single_thread else None
    median = float(np.median(walls))
    low, high = (end * 1e3 for end in median_interval(one.column(0)))
    ratio = cpu_ratio = None
    if other is not None:
        ratio = _difference(*ratio_interval(one.column(0), other.column(0)))
        if single_thread and min(float(whole[:, 1].min()), *(float(b[:, 1].min()) for r in other.rounds for b in r)) > 0:
            cpu_ratio = _difference(*ratio_interval(one.column(1), other.column(1)))
    width = (high - low) / 2 / median if ratio is None else (ratio.high - ratio.low) / 2 / ratio.value
    measurement = Measurement(
        unit="ms",
        samples=tuple(float(value) for value in walls),
        median=median,
        low=min(low, median),
        high=max(high, median),
        p90=float(np.percentile(walls, 90)),
        p99=float(np.percentile(walls, 99)),
        disturbed=conditions.disturbed(waited),
    )
    found = {
        **conditions.facts,
        **({} if waited is None else {"waited_share": round(waited, 4)}),
        "rounds": len(one.rounds),
        "blocks": sum(len(blocks) for blocks in one.rounds),
        "inferences_a_sample": one.inner,
        "outliers": outliers(walls),
        "stationary": one.stationary,
        "precision": round(float(width), 5),
        "ended_by": "precision-goal" if width <= plan.precision_goal else "max-seconds",
        "seconds": round(seconds, 2),
    }
    table = tuple(
        (r, b, float(wall) * 1e3, float(cpu) * 1e3)
        for r, blocks in enumerate(one.rounds)
        for b, block in enumerate(blocks)
        for wall, cpu in block[:, :2]
    )
    return Timing(
        measurement=measurement,
        peak_memory_bytes=one.peak,
        conditions=found,
        ratio=ratio,
        cpu_median_ms=float(np.median(whole[:, 1]) * 1e3) if single_thread else None,
        cpu_ratio=cpu_ratio,
        energy_mj=float(np.median(one.joules)) * 1e3 if one.joules else None,
        table=table,
    )


def _difference(value: float, low: float, high: float) -> Difference:
    return Difference(value=value, low=low, high=high)
