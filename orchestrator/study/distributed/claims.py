"""Who makes which candidate, when several processes ask one study: nothing twice, and no more than the budget.

Optuna numbers trials without gaps and tells everybody the same order. A process that was given a trial writes down which recipe
it is, waits until everybody with an older trial has done so too, and then looks: of several trials of one recipe the oldest has
it, and a trial with as many older candidates as the budget allows gives way (Lamport's bakery, with the storage as the counter:
"A New Solution of Dijkstra's Concurrent Programming Problem", 1974). All processes come to the same answer without a lock.

A trial whose process died is enqueued again and then failed; what stands in its place has its age (`AGAIN`).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.devices import interrupt

CANDIDATE = "candidate"
"""User attribute of a trial: the id of its recipe."""
SAME_AS = "same_as"
"""User attribute: the id of a candidate that another trial makes; this one is none of its own."""
OWNER = "owner"
"""User attribute: the token of the process that works on it."""
BUILT = "built"
"""User attribute: the digest of its record in the exchange where it is built and waits for a process that may time it."""
KEPT = "kept"
"""User attribute: the digest of its record in the exchange; without one a failed trial was given back and counts for nothing."""
AGAIN = "again"
"""User attribute: the number of the trial that this one stands for."""
LOST = "lost"
"""User attribute of a trial that stands for another: that one's record or device is gone, so that it counts for nothing."""
POLL_S = 0.05

Verdict = Literal["ours", "taken", "beyond"]


class ClaimTable:
    """All trials of a study at one moment, and what they mean."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self.trials = list(trials)
        self._replaced = {t.user_attrs[AGAIN] for t in self.trials if AGAIN in t.user_attrs}
        self._lost = {t.user_attrs[AGAIN] for t in self.trials if LOST in t.user_attrs}
        self._numbers = {t.number: t for t in self.trials}

    @classmethod
    def of(cls, study: optuna.Study) -> "ClaimTable":
        """As it is now."""
        return cls(study.get_trials(deepcopy=False))

    def age(self, trial: FrozenTrial) -> tuple[int, int]:
        """What trials are ordered by, the oldest first."""
        first, seen = trial, {trial.number}
        while (number := first.user_attrs.get(AGAIN)) in self._numbers and number not in seen:
            seen.add(number)
            first = self._numbers[number]
        return first.number, trial.number

    def counts(self, trial: FrozenTrial) -> bool:
        """Whether it is a candidate of its own: one that waits, is under way, or came to an end."""
        attributes = trial.user_attrs
        if CANDIDATE not in attributes or SAME_AS in attributes or trial.number in self._lost:
            return False
        if trial.state in (TrialState.WAITING, TrialState.RUNNING):
            return trial.number not in self._replaced
        return trial.state == TrialState.COMPLETE or KEPT in attributes  # finished after all, just before it was given back

    def candidates(self) -> set[str]:
        """The ids of all candidates: waiting, under way, and done."""
        return {t.user_attrs[CANDIDATE] for t in self.trials if self.counts(t)}

    def startable(self, most: int | None, *, waiting_only: bool = False) -> bool:
        """Whether there is anything to begin: a candidate that waits, or place for another one.

        Args:
            most: Candidates that the budget allows; None: any number.
            waiting_only: Nothing new can be asked for: the space is used up.
        """
        if not waiting_only and (most is None or len(self.candidates()) < most):
            return True
        waiting = [t for t in self.trials if t.state == TrialState.WAITING and self.counts(t)]
        return any(self.verdict(t.number, t.user_attrs[CANDIDATE], most) == "ours" for t in waiting)

    def under_way(self) -> list[FrozenTrial]:
        """Candidates that somebody works on, or that wait to be timed."""
        return [t for t in self.trials if t.state == TrialState.RUNNING and self.counts(t)]

    def done(self) -> list[FrozenTrial]:
        """Candidates that have a record in the exchange and are told."""
        return [t for t in self.trials if t.state.is_finished() and KEPT in t.user_attrs and self.counts(t)]

    def undeclared(self, before: int | None = None) -> list[FrozenTrial]:
        """Trials of which nobody can know yet what they will be."""
        return [
            t
            for t in self.trials
            if t.state == TrialState.RUNNING
            and not {CANDIDATE, SAME_AS} & t.user_attrs.keys()
            and (before is None or t.number < before)
        ]

    def verdict(self, number: int, identifier: str, most: int | None) -> Verdict:
        """What becomes of a trial of that recipe, all older ones being declared.

        Args:
            most: Candidates that the budget allows; None: any number.
        """
        own = self.age(self._numbers[number])
        others = [t for t in self.trials if t.number != number and self.counts(t)]
        for trial in others:
            same = trial.user_attrs[CANDIDATE] == identifier
            if same and (trial.state.is_finished() or self.age(trial) < own):
                return "taken"
        older = {t.user_attrs[CANDIDATE] for t in others if self.age(t) < own} - {identifier}
        return "beyond" if most is not None and len(older) >= most else "ours"


class Claims:
    """Claims candidates for one process.

    Args:
        token: Names the process.
        most: Candidates that the budget allows now; None: any number.
        look: Called before each look at the trials, so that signs of life are noted.
        dead: Whether a trial's process is dead, by its trial.
        leads: Whether what this process knows is what counts.
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

    def own(self, trial: optuna.Trial) -> None:
        """The first thing to do with a trial: say whose it is."""
        trial.set_user_attr(OWNER, self._token)

    def anew(self, trial: optuna.Trial) -> bool:
        """Whether a candidate is to be made although this process knows it: the leader has lost it."""
        return not self._leads and LOST in trial.user_attrs

    def claim(self, trial: optuna.Trial, identifier: str) -> Verdict:
        """Whether this process is to make that candidate; it is then written down as its own.

        Raises:
            Interrupted: the user asked to stop.
        """
        trial.set_user_attr(CANDIDATE, identifier)
        while True:
            board = ClaimTable.of(self._study)
            if all(self._dead(other) for other in board.undeclared(before=trial.number)):
                return board.verdict(trial.number, identifier, self._most())
            interrupt.check()
            time.sleep(POLL_S)


def give_back(study: optuna.Study, trial: FrozenTrial, *, lost: bool = False) -> bool:
    """Let another process do a trial; whether it was still under way.

    Enqueued before it is failed: a process that dies in between loses nothing, for of two trials of one recipe one gives way; so
    it does where the trial has come to its end meanwhile.

    Args:
        lost: It has ended, but what it found is gone: it is made again all the same.
    """
    parameters = asked(trial)
    if CANDIDATE in trial.user_attrs and parameters:
        attributes: dict[str, Any] = {CANDIDATE: trial.user_attrs[CANDIDATE], AGAIN: trial.number}
        if lost:
            attributes[LOST] = True
        if "recipe" in trial.user_attrs:
            attributes["recipe"] = trial.user_attrs["recipe"]
        study.enqueue_trial(parameters, user_attrs=attributes, skip_if_exists=False)
    return fail(study, trial.number)


def fail(study: optuna.Study, number: int) -> bool:
    """Mark a trial as failed; False where it has ended already."""
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):  # another process was faster
        return False
    return True


def asked(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was asked with."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}  # killed before the first suggestion: the former
