"""The constants that turn counts into milliseconds, fitted to published times, and how well they hold for what was left out.

Choices that could flatter the figures, and when they were made: the three features (pipeline cycles, first- and second-level
misses) were chosen in a prototype on these same rows, among about 17 sets of features; the pipeline's tables were written
before any comparison. Here nothing was chosen on the figures. Everything that is stated about an error comes from networks
(both number formats of each) that were left out of the fit.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.stats import kendalltau
from scipy.stats import t as student

from orchestrator.values.profile import NumberFormat, SimulationModel
from orchestrator_qemu import cost
from orchestrator_qemu.counts import Counts

FEATURES = ("pipeline", "l1_miss", "l2_miss")
SHARE = 0.9  # of networks that a band is to hold
Cycles = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A published time of one thread with the counts of the same network."""

    network: str
    number_format: NumberFormat
    milliseconds: float
    counts: Counts


@dataclass(frozen=True, kw_only=True)
class Left:
    """A row that was left out, and what the others say of it."""

    row: Row
    milliseconds: float

    @property
    def logarithm(self) -> float:
        """Of predicted over published."""
        return math.log(self.milliseconds / self.row.milliseconds)


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well rows that were left out are predicted; errors in per cent."""

    rows: int
    mean_error: float
    within_10: float
    within_20: float
    tau: float
    covered: float
    half_width: float


def features(counts: Counts) -> tuple[int, int, int]:
    """What the constants multiply."""
    return counts.pipeline_cycles, counts.l1_misses, counts.l2_misses


def fit(rows: Sequence[Row], clock_hz: float) -> Cycles:
    """Non-negative least squares on the relative error, floating point and int8 together."""
    scaled = [np.array(features(r.counts)) / clock_hz * 1e3 / r.milliseconds for r in rows]
    found, _ = nnls(np.array(scaled), np.ones(len(rows)))
    return dict(zip(FEATURES, map(float, found), strict=True))


def milliseconds(counts: Counts, cycles: Cycles, clock_hz: float) -> float:
    """Of one inference on one thread."""
    return sum(cycles[name] * x for name, x in zip(FEATURES, features(counts), strict=True)) / clock_hz * 1e3


def left_out(rows: Sequence[Row], clock_hz: float) -> list[Left]:
    """Each network predicted by the others."""
    found = []
    for network in dict.fromkeys(r.network for r in rows):
        cycles = fit([r for r in rows if r.network != network], clock_hz)
        found += [Left(row=r, milliseconds=milliseconds(r.counts, cycles, clock_hz)) for r in rows if r.network == network]
    return found


def half_width(logarithms: Sequence[float]) -> float:
    """The factor that holds SHARE of errors like these: the wider of two answers, for few rows say little of the tails.

    Errors of that spread about 0 (Student's t), and the order statistic that a further error exceeds with probability
    1 - SHARE, whatever their distribution (split conformal prediction; the largest where there are too few).
    """
    count = len(logarithms)
    spread = math.sqrt(sum(x * x for x in logarithms) / count)
    rank = min(count, math.ceil((count + 1) * SHARE))
    return math.exp(max(spread * float(student.ppf((1 + SHARE) / 2, count)), sorted(map(abs, logarithms))[rank - 1]))


def of_format(rows: Sequence[Left], *, int8: bool) -> list[Left]:
    """Rows of int8, or of floating point."""
    return [r for r in rows if (r.row.number_format == "int8") is int8]


def bands(rows: Sequence[Row], clock_hz: float) -> dict[NumberFormat, float]:
    """The half-width for each number format that has rows."""
    found = left_out(rows, clock_hz)
    formats = dict.fromkeys(r.number_format for r in rows)
    return {f: half_width([x.logarithm for x in found if x.row.number_format == f]) for f in formats}


def score(rows: Sequence[Row], clock_hz: float, *, int8: bool) -> Score:
    """Leave-one-network-out figures; the bands come from the others alone, which leave one another out in their turn."""
    left = of_format(left_out(rows, clock_hz), int8=int8)
    errors = np.array([abs(x.milliseconds / x.row.milliseconds - 1) for x in left]) * 100
    widths, covered = [], []
    for x in left:
        width = bands([r for r in rows if r.network != x.row.network], clock_hz)[x.row.number_format]
        widths.append(width)
        covered.append(abs(x.logarithm) <= math.log(width))
    return Score(
        rows=len(left),
        mean_error=float(errors.mean()),
        within_10=float((errors <= 10).mean() * 100),
        within_20=float((errors <= 20).mean() * 100),
        tau=float(kendalltau([x.milliseconds for x in left], [x.row.milliseconds for x in left]).statistic),
        covered=float(np.mean(covered) * 100),
        half_width=float(np.median(widths)),
    )


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two rows, both left out: the share of their work that they do not have in common, and the error of their ratio."""

    unlike: float
    logarithm: float


def pairs(rows: Sequence[Row], clock_hz: float, describe: Callable[[Cycles], SimulationModel]) -> list[Pair]:
    """All pairs of rows; the networks of both are left out of the fit."""
    fits: dict[frozenset[str], Cycles] = {}
    found = []
    for a, b in itertools.combinations(rows, 2):
        out = frozenset((a.network, b.network))
        if out not in fits:
            fits[out] = fit([r for r in rows if r.network not in out], clock_hz)
        cycles = fits[out]
        predicted = milliseconds(a.counts, cycles, clock_hz) / milliseconds(b.counts, cycles, clock_hz)
        unlike = cost.unlike(a.counts, b.counts, describe(cycles))
        found.append(Pair(unlike=unlike, logarithm=math.log(predicted / (a.milliseconds / b.milliseconds))))
    return found


def ratio_error(found: Sequence[Pair]) -> float:
    """The factor that, to the power of a pair's unlikeness, holds SHARE of the pairs, and of the more alike half of them.

    What is compared are mostly candidates that are much alike; unlike networks must not make their intervals too narrow.
    """
    ordered = sorted(found, key=lambda p: p.unlike)
    halves = (ordered, ordered[: len(ordered) // 2])
    return math.exp(max(float(np.quantile([abs(p.logarithm) / p.unlike for p in half], SHARE)) for half in halves))


def thread_speedup(times: Sequence[dict[int, float]]) -> tuple[tuple[float, ...], float]:
    """Speed-ups of 2, 3, ... threads over one, and the factor that holds SHARE of networks left out.

    Args:
        times: For each network and format, milliseconds by number of threads, one thread among them.

    Between numbers of threads that are published: Amdahl's law, the time is linear in one over the threads.
    """
    counts = sorted({n for t in times for n in t})
    medians = {n: float(np.median([t[1] / t[n] for t in times if n in t])) for n in counts}
    inverse = [1 / medians[n] for n in counts]
    wanted = range(2, counts[-1] + 1)
    speedups = tuple(1 / float(np.interp(-1 / n, [-1 / c for c in counts], inverse)) for n in wanted)
    logarithms = []
    for n in counts[1:]:
        gains = [t[1] / t[n] for t in times if n in t]
        for k, gain in enumerate(gains):
            others = gains[:k] + gains[k + 1 :]
            logarithms.append(math.log(gain / float(np.median(others))))
    return speedups, half_width(logarithms)
