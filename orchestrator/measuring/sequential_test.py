"""A group-sequential test: has a time grown by more than a limit?

A round is a set of new processes, one for each model, whose blocks of samples are interleaved. The variation between rounds
(memory placement, other load) is not visible in any number of samples of one process, so a round is
one observation: the median over its pairs of blocks of the logarithm of the ratio of times (Kalibera and Jones, "Rigorous
benchmarking in reasonable time", ISMM 2013). The interval is Student's over rounds.

Repeated looks that stop at the first clear result would inflate the error of each look.
So the k-th look spends SIGNIFICANCE / (k (k + 1)) of the error on each side, which sums to SIGNIFICANCE over any number of
looks: by Bonferroni's inequality the probability of a false alarm is at most that, even for a candidate exactly at the
limit, and for any dependence of the looks. (Alpha spending: Lan and DeMets, "Discrete sequential boundaries
for clinical trials", Biometrika 70(3), 1983.) For copies of one model, far within the limit, it is much smaller. Looks are
after 4, 6, 9, 14, 21, ... rounds, half as many again each time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.measuring.paired_tests import SIGNIFICANCE, PairedDrop
from orchestrator.values.check import Judgement

FIRST_LOOK = 4
GROWTH = 1.5
LEAST_ROUNDS = 2  # fewer do not show the spread

Table = Sequence[tuple[int, int, float, float]]
"""Samples of one model: (round, block, wall ms, CPU ms)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RatioInterval:
    """The candidate's value over the baseline's, with its interval and confidence."""

    value: float
    low: float
    high: float
    confidence: float


def judged(low: float, high: float, limit: float) -> Judgement:
    """Return the verdict of a ratio's interval on a limit: a regression only if all of it is beyond 1 + limit."""
    if low > 1 + limit:
        return "regressed"
    return "ok" if high <= 1 + limit else "undecided"


class RatioTest:
    """A sequential test whether the centre of the rounds' ratios is beyond 1 + limit.

    Args:
        limit: Allowed growth; 0.05 means 5 %.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.verdict: Judgement = "undecided"
        self.interval: RatioInterval | None = None
        self.looks = 0
        self._logs: list[float] = []
        self._next = FIRST_LOOK
        self._seen = 0

    @property
    def rounds(self) -> int:
        """Return the number of ratios."""
        return len(self._logs)

    @property
    def decided(self) -> bool:
        """Return True if more rounds cannot change the verdict."""
        return self.verdict != "undecided"

    def add(self, ratio: float) -> None:
        """Add one round, and evaluate the test if a look is due.

        Args:
            ratio: The candidate's value over the baseline's, more than 0.
        """
        if self.decided:
            return
        self._logs.append(math.log(ratio))
        if self.rounds >= self._next:
            self._next = max(self._next + 1, math.ceil(self._next * GROWTH))
            self._look()

    def close(self) -> None:
        """Evaluate the test once more on rounds since the last look; no more rounds follow."""
        if not self.decided and self.rounds >= LEAST_ROUNDS and self.rounds > self._seen:
            self._look()

    def _look(self) -> None:
        from scipy.special import stdtrit

        self.looks += 1
        self._seen = count = self.rounds
        spent = SIGNIFICANCE / (self.looks * (self.looks + 1))
        logs = np.array(self._logs)
        middle = float(logs.mean())
        half = float(-stdtrit(count - 1, spent) * logs.std(ddof=1) / math.sqrt(count))
        self.interval = RatioInterval(
            value=math.exp(middle),
            low=math.exp(max(-700.0, middle - half)),
            high=math.exp(min(700.0, middle + half)),
            confidence=1 - 2 * spent,
        )
        self.verdict = judged(self.interval.low, self.interval.high, self.limit)


def round_ratio(candidate: Table, baseline: Table, column: int) -> float:
    """Return the ratio of one round: the median over neighbouring pairs of blocks of the ratio of their medians.

    Args:
        candidate: Samples of the candidate.
        baseline: Samples of the baseline.
        column: 2 for wall time, 3 for CPU time.
    """
    ours, theirs = (_block_medians(table, column) for table in (candidate, baseline))
    return float(np.exp(np.median([np.log(a / b) for a, b in zip(ours, theirs, strict=True)])))


def _block_medians(table: Table, column: int) -> list[float]:
    blocks: dict[tuple[int, int], list[float]] = {}
    for row in table:
        blocks.setdefault((row[0], row[1]), []).append(row[column])
    return [float(np.median(values)) for values in blocks.values()]


def drop_judged(found: PairedDrop, limit: float) -> Judgement:
    """Return the verdict on a loss of quality: a regression if it is significant and the whole interval is beyond the limit.

    A loss that the examples cannot show is `ok`, not `undecided`: measuring longer gives no more examples.
    """
    return "regressed" if found.p_value <= SIGNIFICANCE and found.low > limit else "ok"
