"""Has a time grown by more than a limit? A test that may look at its data while they come in.

A round is a set of fresh processes, one for each model, whose blocks of samples were taken in turn. What differs from round to
round (where memory came to lie, what the machine did meanwhile) no number of samples in one process shows, so a round is
one observation: the median over its pairs of blocks of the logarithm of the ratio of times (Kalibera and Jones, "Rigorous
benchmarking in reasonable time", ISMM 2013). The interval is Student's over rounds.

Looking several times and stopping at the first clear answer would make errors more likely than each look's own level says.
So the k-th look spends SIGNIFICANCE / (k (k + 1)) of the error for each side, which sums to SIGNIFICANCE over any number of
looks: by Bonferroni's inequality the chance of a false alarm is at most that, even for a candidate that stands exactly at the
limit, and however the looks depend on each other. (Spending an error over looks: Lan and DeMets, "Discrete sequential boundaries
for clinical trials", Biometrika 70(3), 1983.) For copies of one model, far within the limit, it is far smaller still. Looks come
after 4, 6, 9, 14, 21, ... rounds, half as many again each time: so few are needed however long it takes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.measuring.paired_tests import SIGNIFICANCE, PairedDrop
from orchestrator.values.check import Judgement

FIRST_LOOK = 4
GROWTH = 1.5
LEAST_ROUNDS = 2  # below that nothing is known of the spread

Table = Sequence[tuple[int, int, float, float]]
"""Samples of one model: (round, block, wall ms, CPU ms)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RatioInterval:
    """The candidate's value over the baseline's, with its interval and that one's confidence."""

    value: float
    low: float
    high: float
    confidence: float


def judged(low: float, high: float, limit: float) -> Judgement:
    """What the interval of a ratio says of a limit: a regression only where all of it lies beyond 1 + limit."""
    if low > 1 + limit:
        return "regressed"
    return "ok" if high <= 1 + limit else "undecided"


class RatioTest:
    """Decides, while ratios of rounds come in, whether their middle lies beyond 1 + limit.

    Args:
        limit: 0.05: five per cent more are allowed.
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
        """How many ratios there are."""
        return len(self._logs)

    @property
    def decided(self) -> bool:
        """Whether the verdict stands; more rounds do not change it."""
        return self.verdict != "undecided"

    def add(self, ratio: float) -> None:
        """One more round; where a look is due, the test looks.

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
        """No more rounds will come: look once more at those that no look has seen."""
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
    """The ratio of one round: the median over pairs of blocks, taken side by side, of the ratio of their medians.

    Args:
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
    """Whether a loss of quality is a regression: it is there beyond chance, and the whole interval lies beyond the limit.

    What examples cannot show is `ok`, not `undecided`: measuring longer gives no more examples.
    """
    return "regressed" if found.p_value <= SIGNIFICANCE and found.low > limit else "ok"
