"""The budget of a run: how much is spent, how much is left, and when the search ends."""

import math
import time
from collections.abc import Iterable, Mapping

from orchestrator.searching.again import MOST_MODELS, allowance_s
from orchestrator.values.evidence import Evidence
from orchestrator.values.results import CandidateResult

RESERVE_S = 6.0
LEAST_FOR_A_TRIAL_S = 5.0
LEAST_FOR_AN_ANSWER_S = 10.0
MOST_OVERDRAWN_S = 10.0
FRONT_AT_THE_END = 10  # candidates that are scored once more, on the test split
TARGET_KERNELS_S = 40.0  # for all of the front
TARGET_KERNELS_SHARE = 0.1  # of the whole budget of time


class Budget:
    """Trials and time, over all resumptions of a run.

    Args:
        started: `time.monotonic()` at which this process's share began.
        spent_before: Seconds that earlier processes of the run took.
    """

    def __init__(self, *, trials: int | None, timeout_s: float | None, started: float, spent_before: float) -> None:
        self.trials, self.timeout_s = trials, timeout_s
        self._started, self._spent_before = started, spent_before
        self._longest = 0.0

    def elapsed(self) -> float:
        """Seconds that the run has taken so far."""
        return self._spent_before + self.here()

    def here(self) -> float:
        """Seconds that this process has taken so far."""
        return time.monotonic() - self._started

    def left(self, known: Iterable[CandidateResult], under_way: int = 0) -> float | None:
        """Seconds that are left for trials, the end's share set aside; None where time is not limited.

        At the end the front is measured again, where it is measured on the target, and scored on the test split.

        Args:
            under_way: Candidates that are on boards, each on its own: they are waited for.
        """
        if self.timeout_s is None:
            return None
        complete = kept = 0
        scoring = measuring = 0.0
        kinds: set[str] = set()
        for c in known:  # once over all of them: it is asked several times a trial
            if c.state == "complete":
                complete += 1
                scoring += c.seconds.get("scoring", 0.0)
                measuring += c.seconds.get("measuring", 0.0)
                kinds.add(c.latency[0].evidence)
                kept += c.artifact is not None and c.artifact.path is not None  # the front and its near misses
        scoring, measuring = scoring / max(1, complete), measuring / max(1, complete)
        at_the_end = min(FRONT_AT_THE_END, complete) * scoring
        if under_way:
            at_the_end += measuring + under_way * scoring
        if Evidence.MEASURED_ON_TARGET.value in kinds:
            at_the_end += allowance_s(min(MOST_MODELS, kept), self.timeout_s)
        if Evidence.SIMULATED.value in kinds:
            at_the_end += self.for_target_kernels()
        return self.timeout_s - self.elapsed() - RESERVE_S - at_the_end

    def for_target_kernels(self) -> float:
        """Seconds at the end for the front's outputs on a simulated CPU."""
        return TARGET_KERNELS_S if self.timeout_s is None else min(TARGET_KERNELS_S, TARGET_KERNELS_SHARE * self.timeout_s)

    def whole_left(self) -> float:
        """Seconds that are left of the whole budget; infinite where time is not limited."""
        return math.inf if self.timeout_s is None else self.timeout_s - self.elapsed()

    def for_an_answer(self) -> float:
        """Seconds that a model or the build worker may take to answer at most, so that the run ends soon after its time."""
        return max(LEAST_FOR_AN_ANSWER_S, self.whole_left() + LEAST_FOR_AN_ANSWER_S)

    @property
    def overdrawn(self) -> bool:
        """Whether the time is so far over that even the end's own work is broken off."""
        return self.whole_left() < -MOST_OVERDRAWN_S

    def took(self, seconds: float) -> None:
        """A trial took so long; one that cannot be finished is better not begun."""
        self._longest = max(self._longest, seconds)

    def ended(self, known: Mapping[str, CandidateResult], under_way: int = 0) -> str | None:
        """Why no further trial is begun, or None.

        Args:
            known: By id, the baseline among them.
            under_way: Candidates that are on boards.
        """
        if self.trials is not None and len(known) - 1 + under_way >= self.trials:
            return f"the budget of {self.trials} trials is used up"
        left = self.left(known.values(), under_way)
        return self.used_up() if left is not None and left < max(LEAST_FOR_A_TRIAL_S, 0.5 * self._longest) else None

    def has_time(self, known: Iterable[CandidateResult]) -> bool:
        """Whether there is time for one more candidate, whatever their number."""
        left = self.left(known)
        return left is None or left >= max(LEAST_FOR_A_TRIAL_S, 0.5 * self._longest)

    def used_up(self) -> str:
        """That time is up, in words."""
        return f"the budget of {self.timeout_s or 0.0:.0f} s is used up"
