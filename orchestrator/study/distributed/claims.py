"""Claims on candidates by the processes of one study: no candidate is built twice, and no more than the budget allows.

Optuna numbers trials without gaps and in the same order for every process. A process that gets a trial writes down its recipe,
waits until every process with an older trial has done so, and then decides: the oldest of several trials of one recipe is
granted, and a trial with as many older candidates as the budget allows is over budget (Lamport's bakery, with the storage as the
counter: "A New Solution of Dijkstra's Concurrent Programming Problem", 1974). All processes decide alike without a lock.

A trial whose process died is enqueued again and then failed; its replacement has its age (`REPLACES`).
"""

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.devices import interrupt
from orchestrator.study.run.optuna_study import CANDIDATE, fail, proposed_parameters

SAME_AS = "same_as"
"""User attribute: the id of a candidate that another trial builds; this trial is no candidate of its own."""
OWNER = "owner"
"""User attribute: the token of the process that works on the trial."""
BUILT = "built"
"""User attribute: the digest of the record of a candidate that is built and waits for a process that may measure it."""
KEPT = "kept"
"""User attribute: the digest of the final record; without it a failed trial was released and does not count."""
REPLACES = "again"
"""User attribute: the number of the trial that this one replaces."""
LOST = "lost"
"""User attribute of a replacement: the record or the device of the replaced trial is lost, so that it does not count."""
POLL_S = 0.05


class Verdict(StrEnum):
    """Decision on a claim."""

    GRANTED = "granted"
    DUPLICATE = "duplicate"
    OVER_BUDGET = "over budget"


class ClaimTable:
    """All trials of a study at one moment."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._trials = list(trials)
        self._replaced = {t.user_attrs[REPLACES] for t in trials if REPLACES in t.user_attrs}
        self._lost = {t.user_attrs[REPLACES] for t in trials if LOST in t.user_attrs}
        self.by_number = {t.number: t for t in trials}

    @classmethod
    def of(cls, study: optuna.Study) -> "ClaimTable":
        """Return the table of a study as it is now."""
        return cls(study.get_trials(deepcopy=False))

    def age(self, trial: FrozenTrial) -> tuple[int, int]:
        """Return the key that orders trials, the oldest first."""
        first, seen = trial, {trial.number}
        while (number := first.user_attrs.get(REPLACES)) in self.by_number and number not in seen:
            seen.add(number)
            first = self.by_number[number]
        return first.number, trial.number

    def counts(self, trial: FrozenTrial) -> bool:
        """Return True if a trial is a candidate of its own: waiting, running or finished."""
        attributes = trial.user_attrs
        if CANDIDATE not in attributes or SAME_AS in attributes or trial.number in self._lost:
            return False
        if trial.state in (TrialState.WAITING, TrialState.RUNNING):
            return trial.number not in self._replaced
        return trial.state == TrialState.COMPLETE or KEPT in attributes  # finished just before it was released

    def candidates(self) -> set[str]:
        """Return the ids of all candidates: waiting, running and finished."""
        return {t.user_attrs[CANDIDATE] for t in self._trials if self.counts(t)}

    def startable(self, most: int | None, *, waiting_only: bool = False) -> bool:
        """Return True if a candidate can begin: one that waits, or a new one within the budget.

        Args:
            most: Number of candidates that the budget allows; None for any number.
            waiting_only: True if no new candidate can be proposed: the space is used up.
        """
        if not waiting_only and (most is None or len(self.candidates()) < most):
            return True
        waiting = [t for t in self._trials if t.state == TrialState.WAITING and self.counts(t)]
        return any(self.verdict(t.number, t.user_attrs[CANDIDATE], most) is Verdict.GRANTED for t in waiting)

    def running(self) -> list[FrozenTrial]:
        """Return the candidates that a process works on, or that wait to be measured."""
        return [t for t in self._trials if t.state == TrialState.RUNNING and self.counts(t)]

    def finished(self) -> list[FrozenTrial]:
        """Return the candidates that have a final record in the exchange and a result in the study."""
        return [t for t in self._trials if t.state.is_finished() and KEPT in t.user_attrs and self.counts(t)]

    def undeclared(self, before: int | None = None) -> list[FrozenTrial]:
        """Return the running trials whose recipe is not written down yet, with a number below `before`."""
        return [
            t
            for t in self._trials
            if t.state == TrialState.RUNNING
            and not {CANDIDATE, SAME_AS} & t.user_attrs.keys()
            and (before is None or t.number < before)
        ]

    def verdict(self, number: int, identifier: str, most: int | None) -> Verdict:
        """Return the decision on a trial of a recipe, once all older trials are declared.

        Args:
            number: Number of the trial.
            identifier: Id of its recipe.
            most: Number of candidates that the budget allows; None for any number.
        """
        age = self.age(self.by_number[number])
        others = [t for t in self._trials if t.number != number and self.counts(t)]
        for trial in others:
            same = trial.user_attrs[CANDIDATE] == identifier
            if same and (trial.state.is_finished() or self.age(trial) < age):
                return Verdict.DUPLICATE
        older = {t.user_attrs[CANDIDATE] for t in others if self.age(t) < age} - {identifier}
        return Verdict.OVER_BUDGET if most is not None and len(older) >= most else Verdict.GRANTED


class Claims:
    """Claims of one process.

    Args:
        token: Identifies the process.
        most: Returns the number of candidates that the budget allows now; None for any number.
        dead: Returns True if a trial's process is dead.
        leads: True if this process's archive is the reference.
    """

    def __init__(
        self,
        study: optuna.Study,
        token: str,
        *,
        most: Callable[[], int | None],
        dead: Callable[[FrozenTrial], bool],
        leads: bool = True,
    ) -> None:
        self._study, self._token, self._most, self._dead, self._leads = study, token, most, dead, leads

    def sign(self, trial: optuna.Trial) -> None:
        """Write down that this process owns a trial; the first step after ask."""
        trial.set_user_attr(OWNER, self._token)

    def lost_by_leader(self, trial: optuna.Trial) -> bool:
        """Return True if a candidate is built again although this process knows it: the leader has lost it."""
        return not self._leads and LOST in trial.user_attrs

    def claim(self, trial: optuna.Trial, identifier: str) -> Verdict:
        """Write down a trial's candidate, and return if this process builds it.

        Raises:
            Interrupted: The user requested a stop.
        """
        trial.set_user_attr(CANDIDATE, identifier)
        while True:
            table = ClaimTable.of(self._study)
            if all(self._dead(other) for other in table.undeclared(before=trial.number)):
                return table.verdict(trial.number, identifier, self._most())
            interrupt.check()
            time.sleep(POLL_S)


def release(study: optuna.Study, trial: FrozenTrial, *, lost: bool = False) -> bool:
    """Let another process run a trial; return True if it was still running.

    The replacement is enqueued before the trial is failed, so that a process that dies in between loses nothing: of two trials of
    one recipe one is a duplicate. The same holds if the trial has ended meanwhile.

    Args:
        study: The shared study.
        trial: The trial.
        lost: True if the trial has ended but its results are gone: it is repeated all the same.
    """
    parameters = proposed_parameters(trial)
    if CANDIDATE in trial.user_attrs and parameters:
        attributes: dict[str, Any] = {CANDIDATE: trial.user_attrs[CANDIDATE], REPLACES: trial.number}
        if lost:
            attributes[LOST] = True
        if "recipe" in trial.user_attrs:
            attributes["recipe"] = trial.user_attrs["recipe"]
        study.enqueue_trial(parameters, user_attrs=attributes, skip_if_exists=False)
    return fail(study, trial.number)
