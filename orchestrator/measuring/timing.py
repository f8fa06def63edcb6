"""The timing protocol: candidate and baseline side by side, in blocks, in random order."""

import statistics as stdlib_statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from orchestrator.measuring.statistics import block_median_interval, block_ratio_interval
from orchestrator.plugin.device import Session
from orchestrator.values.evidence import Measurement
from orchestrator.values.results import Difference

BLOCKS = 10
LEAST_BLOCKS = 3
BLOCK_S = 0.05
MOST_SECONDS = 6.0  # for models so slow that ten blocks take longer
LEAST_RUNS_A_BLOCK = 3
WARM_UP_ROUNDS = 20
STATIONARY = 0.05
BUSY_SHARE = 0.25
ALL_RUNS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """The times of one model, ms, and their ratio to those of the model that was timed beside it."""

    measurement: Measurement
    ratio: Difference | None = None


def time_alone(session: Session, *, threads: int, seed: int) -> Timing:
    """The times of one model by itself."""
    (blocks,), disturbed = _interleaved([session], threads, seed)
    return Timing(measurement=_measurement(blocks, disturbed))


def time_beside(candidate: Session, baseline: Session, *, threads: int, seed: int) -> Timing:
    """The times of a candidate and their ratio to the baseline's, block by block in random order, so that drift hits both."""
    (above, below), disturbed = _interleaved([candidate, baseline], threads, seed)
    low, high = block_ratio_interval(above, below)
    value = float(np.median(np.concatenate(above)) / np.median(np.concatenate(below)))
    return Timing(
        measurement=_measurement(above, disturbed),
        ratio=Difference(value=value, low=min(low, value), high=max(high, value)),
    )


def _interleaved(sessions: Sequence[Session], threads: int, seed: int) -> tuple[list[list[np.ndarray]], str | None]:
    random = np.random.default_rng(seed)
    for session in sessions:
        _warm_up(session)
    blocks: list[list[np.ndarray]] = [[] for _ in sessions]
    waits: list[float] = []
    begin, busy, own = time.monotonic(), _busy_seconds(), 0.0
    end = time.monotonic() + MOST_SECONDS
    for block in range(BLOCKS):
        if block >= LEAST_BLOCKS and time.monotonic() > end:
            break
        for k in random.permutation(len(sessions)):
            first = sessions[k].time(seconds=0, runs=1)  # after a pause it is slow, and is nobody's figure
            samples = sessions[k].time(seconds=BLOCK_S, runs=ALL_RUNS)
            if len(samples) < LEAST_RUNS_A_BLOCK:
                samples += sessions[k].time(seconds=ALL_RUNS, runs=LEAST_RUNS_A_BLOCK - len(samples))
            blocks[k].append(np.array([wall for wall, _, _ in samples]) * 1e3)
            waits.append(1 - sum(thread for _, thread, _ in samples) / sum(wall for wall, _, _ in samples))
            own += sum(process for _, _, process in (*first, *samples))
    others = (_busy_seconds() - busy - own) / (time.monotonic() - begin)
    return blocks, _disturbance(waits, threads, others)


def _warm_up(session: Session) -> None:
    """Run until a block's median is within 5 % of the one before it."""
    before = None
    for _ in range(WARM_UP_ROUNDS):
        median = stdlib_statistics.median(wall for wall, _, _ in session.time(seconds=BLOCK_S, runs=ALL_RUNS))
        if before is not None and abs(median - before) <= STATIONARY * before:
            return
        before = median


def _disturbance(waits: Sequence[float], threads: int, others: float) -> str | None:
    """Why the times are not to be trusted fully, or None.

    Args:
        waits: For each block the share of time that the calling thread did not run; with one thread its core was taken away.
        others: Cores that other processes kept busy meanwhile, on average.
    """
    waited = float(np.median(waits))
    if threads == 1 and waited > BUSY_SHARE:
        return f"the core was taken away for {waited:.0%} of the time"
    return f"other work kept {others:.1f} cores busy" if others > BUSY_SHARE * (psutil.cpu_count() or 1) else None


def _busy_seconds() -> float:
    """Seconds that all cores together have been busy since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0) + getattr(times, "steal", 0.0))


def _measurement(blocks: Sequence[np.ndarray], disturbed: str | None) -> Measurement:
    samples = np.concatenate(list(blocks))
    low, high = block_median_interval(blocks)
    median = float(np.median(samples))
    return Measurement(
        unit="ms",
        samples=tuple(float(value) for value in samples),
        median=median,
        low=min(low, median),
        high=max(high, median),
        p90=float(np.percentile(samples, 90)),
        p99=float(np.percentile(samples, 99)),
        disturbed=disturbed,
    )
