"""The budget of a run: what is spent, what is left, and when the search ends."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from orchestrator.study.candidates.tally import Tally
from orchestrator.study.pareto.front import MOST_REMEASURED
from orchestrator.study.remeasurement import allowance_s
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.evidence import Evidence
from orchestrator.values.search import BudgetSpec

RESERVE_S = 6.0
LEAST_FOR_A_TRIAL_S = 5.0
LEAST_FOR_AN_ANSWER_S = 10.0
MOST_OVERDRAWN_S = 10.0
FRONT_AT_THE_END = 10  # candidates that are scored once more, on the test split
TARGET_KERNELS_S = 40.0  # for the whole front
TARGET_KERNELS_SHARE = 0.1  # of the whole budget of time


class Budget:
    """Trials and time, over all resumptions of a run.

    Args:
        started: `time.monotonic()` at which this process's share began.
        spent_before: Seconds that earlier processes of the run took.
    """

    def __init__(self, spec: BudgetSpec, *, started: float, spent_before: float) -> None:
        self.trials, self.timeout_s = spec.trials, spec.timeout_s
        self._started, self._spent_before = started, spent_before
        self._longest = 0.0

    def elapsed(self) -> float:
        """Return the seconds that the run has taken so far."""
        return self._spent_before + self.elapsed_here()

    def elapsed_here(self) -> float:
        """Return the seconds that this process has taken so far."""
        return time.monotonic() - self._started

    def left_for_trials(self, spent: Tally, pending: int = 0) -> float | None:
        """Return the seconds that are left for trials, without the share of the end; None if time is not limited.

        At the end the front is measured again if it is measured on the target, and scored on the test split.

        Args:
            spent: Totals of all candidates, the baseline among them.
            pending: Candidates that are measured now, each on a device of its own: the search waits for them.
        """
        if self.timeout_s is None:
            return None
        complete = max(1, spent.complete)
        scoring, measuring = spent.scoring / complete, spent.measuring / complete
        at_the_end = min(FRONT_AT_THE_END, spent.complete) * scoring
        if pending:
            at_the_end += measuring + pending * scoring
        if spent.evidence[Evidence.MEASURED_ON_TARGET]:
            at_the_end += allowance_s(min(MOST_REMEASURED, spent.files), self.timeout_s)
        if spent.evidence[Evidence.SIMULATED]:
            at_the_end += self.for_target_kernels()
        return self.timeout_s - self.elapsed() - RESERVE_S - at_the_end

    def for_target_kernels(self) -> float:
        """Return the seconds at the end for the outputs of the front on a simulated CPU."""
        return TARGET_KERNELS_S if self.timeout_s is None else min(TARGET_KERNELS_S, TARGET_KERNELS_SHARE * self.timeout_s)

    def left(self) -> float:
        """Return the seconds that are left of the whole budget; infinite if time is not limited."""
        return math.inf if self.timeout_s is None else self.timeout_s - self.elapsed()

    def for_an_answer(self) -> float:
        """Return the longest time that a model or the builder process may take to answer, so that the run ends in time."""
        return max(LEAST_FOR_AN_ANSWER_S, self.left() + LEAST_FOR_AN_ANSWER_S)

    @property
    def overdrawn(self) -> bool:
        """Return True if so much time is overspent that even the work at the end is aborted."""
        return self.left() < -MOST_OVERDRAWN_S

    def record_trial(self, seconds: float) -> None:
        """Record the duration of a trial: none begins that could not be finished."""
        self._longest = max(self._longest, seconds)

    def ended(self, spent: Tally, pending: int = 0) -> str | None:
        """Return why no further trial begins, or None.

        Args:
            spent: Totals of all candidates, the baseline among them.
            pending: Candidates that are measured now.
        """
        if self.trials is not None and spent.candidates - 1 + pending >= self.trials:
            return f"the budget of {self.trials} trials is used up"
        return None if self.has_time(spent, pending) else self.time_is_up()

    def has_time(self, spent: Tally, pending: int = 0) -> bool:
        """Return True if there is time for one more candidate, whatever their number."""
        left = self.left_for_trials(spent, pending)
        return left is None or left >= max(LEAST_FOR_A_TRIAL_S, 0.5 * self._longest)

    def time_is_up(self) -> str:
        """Return the reason of a search that ends because its time is used up."""
        return f"the budget of {self.timeout_s or 0.0:.0f} s is used up"


@contextmanager
def keeping_elapsed(run: RunDirectory, elapsed: Callable[[], float], *, every_s: float = 10.0) -> Iterator[None]:
    """Write the spent time at intervals: a killed process loses no more of its budget than one interval."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(every_s):
            with suppress(OSError):  # writers of what must not be lost report it
                if run.begun:
                    run.write_elapsed(elapsed())

    thread = threading.Thread(target=keep, name="elapsed", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
