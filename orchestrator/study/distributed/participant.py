"""One process's part in a shared search: what its loop asks before each turn, and what it says after each candidate."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.measuring.model_info import ModelInfo
from orchestrator.study.archive import Archive
from orchestrator.study.distributed.claims import BUILT, CANDIDATE, KEPT, OWNER, Claims, ClaimTable
from orchestrator.study.distributed.device_class import hostname, timed_here
from orchestrator.study.distributed.exchange import Exchange, Missing
from orchestrator.study.distributed.heartbeat import Heartbeat, LivenessMonitor
from orchestrator.study.distributed.manifest import Manifest, read_charter
from orchestrator.study.distributed.records import Records
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.results import CandidateResult

MISSING_S = 90.0
"""How long a record that was announced may be missing before its candidate is made again: some shared folders show it late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Handed:
    """A candidate that another machine has built, to be timed here.

    Attributes:
        model: Its file lies in this process's run directory.
    """

    trial: optuna.Trial
    record: CandidateResult
    model: ModelInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What the loop is to do next: end, take up what was handed over, wait, or else begin a candidate."""

    ended: str | None = None
    handed: Handed | None = None
    wait: bool = False


class Participant(ABC):
    """What leader and guests have in common.

    Args:
        token: Names this process among all.
        device_class: Of what this process times on.

    Attributes:
        builds_only: Whether this process may not time candidates.
        leads: Whether this process keeps what all have found, and goes on with candidates that were stopped too early.
        exhausted: Why nothing new can be asked for, where that is so.
    """

    builds_only = False
    leads = False

    def __init__(self, run: RunDirectory, exchange: Exchange, *, token: str, device_class: str) -> None:
        self._run, self._exchange, self.token, self.device_class = run, exchange, token, device_class
        self._records = Records(exchange, run)
        self._missing: dict[int, float] = {}
        self.exhausted: str | None = None
        self._joined = False

    def _join(self, study: optuna.Study, archive: Archive, charter: Manifest) -> None:
        self._study, self._archive, self._charter = study, archive, charter
        self._watch = LivenessMonitor(charter.grace_s)
        self._heart = Heartbeat(study, self.token, charter.grace_s, self._heard)
        self.claims = Claims(study, self.token, most=lambda: self._charter.trials, dead=self._dead, leads=self.leads)
        self._joined = True
        self._heart.start()

    @property
    def salt(self) -> list[int]:
        """What makes this process's random choices its own; nothing for the leader, whose choices follow the seed alone."""
        return []

    @abstractmethod
    def join(self, study: optuna.Study, archive: Archive) -> None:
        """Take part; the first thing to do."""

    @abstractmethod
    def turn(self, ended: str | None, *, left_s: float | None, late: bool) -> Turn:
        """What to do next.

        Args:
            ended: Why this process would begin no further candidate by itself.
            left_s: Seconds that are left for candidates; None: time is not limited.
            late: Whether that is too little to begin anything.

        Raises:
            Interrupted: the user asked to stop.
            EnvironmentFailure: the exchange is out of reach.
        """

    @abstractmethod
    def keep(self, candidate: CandidateResult, trial: optuna.Trial) -> CandidateResult | None:
        """Keep a candidate that was made here, and leave its record for the others, before the study is told.

        None where another process has done this trial meanwhile: this one was taken for dead.
        """

    def suggest(self, starters: Mapping[str, Mapping[str, Any]]) -> None:  # noqa: B027 guests begin with what the leader says
        """What to begin with: the parameters of recipes by their ids."""

    def over(self, ended: str) -> None:  # noqa: B027 a guest's end is nobody else's
        """This process begins nothing more, for that reason."""

    def leave(self) -> None:
        """Go: what this process has under way is free for others."""
        if self._joined:
            self._heart.close()

    def hand_over(self, record: CandidateResult, model: ModelInfo, trial: optuna.Trial) -> None:
        """Leave a candidate that is built to a process that may time it.

        Raises:
            EnvironmentFailure: the exchange is out of reach.
        """
        record = replace(record, machines={**record.machines, "built": hostname()})
        digest = self._records.write(record, trial.number, model=model, with_files=True)
        self._announce(trial, BUILT, digest)
        self._run.drop(record.id)

    def _publish(self, candidate: CandidateResult, trial: optuna.Trial, *, with_files: bool) -> bool:
        """Write its record and announce it; whether the trial is still this process's."""
        digest = self._records.write(candidate, trial.number, device_class=self.device_class, with_files=with_files)
        return self._announce(trial, KEPT, digest)

    def _announce(self, trial: optuna.Trial, what: str, digest: str) -> bool:
        if not self._mine(trial.number):
            return False
        try:
            trial.set_user_attr(what, digest)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True

    def _mine(self, number: int) -> bool:
        found = [t for t in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if t.number == number]
        return bool(found) and found[0].user_attrs.get(OWNER) == self.token

    def _heard(self, attributes: dict[str, Any]) -> None:  # noqa: B027 a leader is told nothing by others
        """A sign of life was given; called in a thread of its own."""

    def _look(self) -> ClaimTable:
        """All that can be seen in the study now; signs of life are noted."""
        attributes = self._study.user_attrs
        self._watch.look(attributes)
        self._charter = read_charter(attributes, self._study.study_name) or self._charter
        return ClaimTable.of(self._study)

    def _dead(self, trial: FrozenTrial) -> bool:
        """Whether nobody works on a trial any more. One that nobody has signed is watched under its number."""
        owner = trial.user_attrs.get(OWNER)
        if owner == self.token or BUILT in trial.user_attrs:
            return False
        if owner is None:
            owner = f"of trial {trial.number}"
        else:
            self._watch.look(self._study.user_attrs)
        return not self._watch.alive(owner)

    def _absorb(self, trial: FrozenTrial) -> bool:
        """Take over the record of a candidate that another process has finished; False where it is not to be had yet."""
        try:
            self._take(trial)
        except Missing:
            self._missing.setdefault(trial.number, time.monotonic())
            return False
        self._missing.pop(trial.number, None)
        return True

    def _given_up(self, trial: FrozenTrial) -> bool:
        """Whether what a trial has announced has been missing for too long."""
        return time.monotonic() - self._missing.setdefault(trial.number, time.monotonic()) > MISSING_S

    @abstractmethod
    def _take(self, trial: FrozenTrial) -> None:
        """Put another's candidate into the archive.

        Raises:
            Missing: its record or its files are not there, or damaged.
        """

    def _absorb_all(self, board: ClaimTable) -> None:
        for trial in board.done():
            if trial.user_attrs[CANDIDATE] not in self._archive.known:
                self._absorb(trial)

    def _here(self, candidate: CandidateResult) -> CandidateResult:
        """The candidate with the names of the machines that made it."""
        built = candidate.machines.get("built", hostname())
        machines = {"built": built, **({"measured": hostname()} if candidate.latency else {})}
        return timed_here(replace(candidate, machines=machines), self.device_class)
