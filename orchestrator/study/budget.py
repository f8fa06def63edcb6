"""The budget of a run: how much is spent, how much is left, and when the search ends."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from orchestrator.study.remeasurement import MOST_MODELS, allowance_s
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.evidence import Evidence
from orchestrator.values.results import CandidateResult

RESERVE_S = 6.0
LEAST_FOR_A_TRIAL_S = 5.0
LEAST_FOR_AN_ANSWER_S = 10.0
MOST_OVERDRAWN_S = 10.0
FRONT_AT_THE_END = 10  # candidates that are scored once more, on the test split
TARGET_KERNELS_S = 40.0  # for all of the front
TARGET_KERNELS_SHARE = 0.1  # of the whole budget of time


class Tally:
    """What a budget needs to know of candidates, kept up as they come: it is asked several times a trial.

    Attributes:
        candidates: How many there are, the baseline among them.
        complete: How many of them are complete.
        scoring: Seconds that the complete ones took for it.
        measuring: Likewise.
        evidence: Of how many complete ones the objective latency is of that kind.
        files: How many complete ones have their file still: the front and its near misses.
    """

    def __init__(self, candidates: Iterable[CandidateResult] = ()) -> None:
        self.candidates = self.complete = self.files = 0
        self.scoring = self.measuring = 0.0
        self.evidence: Counter[str] = Counter()
        for candidate in candidates:
            self.add(candidate)

    def add(self, candidate: CandidateResult, times: int = 1) -> None:
        """Count a candidate; with `times=-1` no longer."""
        self.candidates += times
        if candidate.state == "complete":
            self.complete += times
            self.scoring += times * candidate.seconds.get("scoring", 0.0)
            self.measuring += times * candidate.seconds.get("measuring", 0.0)
            self.evidence[candidate.latency[0].evidence] += times
            self.files += times * (candidate.artifact is not None and candidate.artifact.path is not None)


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

    def left(self, spent: "Tally", under_way: int = 0) -> float | None:
        """Seconds that are left for trials, the end's share set aside; None where time is not limited.

        At the end the front is measured again, where it is measured on the target, and scored on the test split.

        Args:
            spent: Of all candidates, the baseline among them.
            under_way: Candidates that are on boards, each on its own: they are waited for.
        """
        if self.timeout_s is None:
            return None
        complete = max(1, spent.complete)
        scoring, measuring = spent.scoring / complete, spent.measuring / complete
        at_the_end = min(FRONT_AT_THE_END, spent.complete) * scoring
        if under_way:
            at_the_end += measuring + under_way * scoring
        if spent.evidence[Evidence.MEASURED_ON_TARGET.value]:
            at_the_end += allowance_s(min(MOST_MODELS, spent.files), self.timeout_s)
        if spent.evidence[Evidence.SIMULATED.value]:
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

    def ended(self, spent: "Tally", under_way: int = 0) -> str | None:
        """Why no further trial is begun, or None.

        Args:
            spent: Of all candidates, the baseline among them.
            under_way: Candidates that are on boards.
        """
        if self.trials is not None and spent.candidates - 1 + under_way >= self.trials:
            return f"the budget of {self.trials} trials is used up"
        left = self.left(spent, under_way)
        return self.used_up() if left is not None and left < max(LEAST_FOR_A_TRIAL_S, 0.5 * self._longest) else None

    def has_time(self, spent: "Tally") -> bool:
        """Whether there is time for one more candidate, whatever their number."""
        left = self.left(spent)
        return left is None or left >= max(LEAST_FOR_A_TRIAL_S, 0.5 * self._longest)

    def used_up(self) -> str:
        """That time is up, in words."""
        return f"the budget of {self.timeout_s or 0.0:.0f} s is used up"


@contextmanager
def keeping_elapsed(run: RunDirectory, elapsed: Callable[[], float], *, every_s: float = 10.0) -> Iterator[None]:
    """Write down now and then how much time is spent: a killed process loses no more of its budget than that."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(every_s):
            with suppress(OSError):  # who writes what must not be lost will say so
                if run.begun:
                    run.write_elapsed(elapsed())

    thread = threading.Thread(target=keep, name="elapsed", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
