"""The part of one process in a shared study: what its loop does next, and what it leaves for the others."""

import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.errors import OrchestratorError
from orchestrator.measuring.model_info import ModelInfo
from orchestrator.study.candidates.archive import Archive
from orchestrator.study.distributed.claims import BUILT, KEPT, OWNER, Claims, ClaimTable
from orchestrator.study.distributed.device_class import hostname, timed_here
from orchestrator.study.distributed.exchange import Exchange, Missing
from orchestrator.study.distributed.heartbeat import Heartbeat, LivenessMonitor
from orchestrator.study.distributed.manifest import Manifest, read_manifest
from orchestrator.study.distributed.records import Records
from orchestrator.study.run import optuna_storage
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.optuna_study import CANDIDATE
from orchestrator.values.results import CandidateResult

MISSING_S = 90.0
"""Seconds that an announced record may be missing before its candidate is built again: some shared folders show files late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """A candidate that another machine has built, to be measured here.

    Attributes:
        model: Its file is in this process's run directory.
    """

    trial: optuna.Trial
    record: CandidateResult
    model: ModelInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class NextStep:
    """The next step of a loop: end, measure a handover, wait, or (with neither) begin a candidate."""

    ended: str | None = None
    handover: Handover | None = None
    wait: bool = False


class Participant(ABC):
    """A process of a shared study.

    Args:
        token: Identifies this process among all.
        device_class: Class of this process's device.

    Attributes:
        builds_only: True if this process may not measure candidates.
        leads: True if this process keeps all candidates, and continues those that were stopped too early.
        exhausted: Why no new candidate can be proposed, or None.
    """

    builds_only = False
    leads = False

    def __init__(self, run: RunDirectory, exchange: Exchange, *, token: str, device_class: str) -> None:
        self._run, self._exchange, self.token, self.device_class = run, exchange, token, device_class
        self._records = Records(exchange, run)
        self._missing_since: dict[int, float] = {}
        self.exhausted: str | None = None
        self._joined = False

    def _join(self, study: optuna.Study, archive: Archive, manifest: Manifest) -> None:
        self._study, self._archive, self._manifest = study, archive, manifest
        self._monitor = LivenessMonitor(manifest.grace_s)
        self._heartbeat = Heartbeat(study, self.token, manifest.grace_s, self._on_beat)
        self.claims = Claims(study, self.token, most=lambda: self._manifest.trials, dead=self._dead, leads=self.leads)
        self._joined = True
        self._heartbeat.start()

    @property
    def salt(self) -> list[int]:
        """Return numbers that distinguish this process's random choices; none for the leader, which follows the seed alone."""
        return []

    @abstractmethod
    def join(self, study: optuna.Study, archive: Archive) -> None:
        """Join the study; the first call."""

    @abstractmethod
    def next_step(self, ended: str | None, *, left_s: float | None, late: bool) -> NextStep:
        """Return the next step of this process's loop.

        Args:
            ended: Why this process would begin no further candidate on its own, or None.
            left_s: Seconds that are left for candidates; None if time is not limited.
            late: True if that is too little to begin anything.

        Raises:
            Interrupted: The user requested a stop.
            EnvironmentFailure: The exchange is out of reach.
        """

    @abstractmethod
    def keep(self, candidate: CandidateResult, trial: optuna.Trial) -> CandidateResult | None:
        """Keep a candidate that was measured here and publish its record, before the study receives its result.

        Returns:
            None if another process has run this trial meanwhile, because it considered this process dead.
        """

    def suggest(self, starters: Mapping[str, Mapping[str, Any]]) -> None:  # noqa: B027 only the leader enqueues them
        """Enqueue the parameters of the first recipes, given by their ids."""

    def end(self, ended: str) -> None:  # noqa: B027 the end of a worker concerns no other process
        """End the search for a reason: this process begins nothing more."""

    def leave(self) -> None:
        """Leave the study: other processes may run what is not finished here."""
        if self._joined:
            self._heartbeat.close()

    def hand_over(self, record: CandidateResult, model: ModelInfo, trial: optuna.Trial) -> None:
        """Leave a candidate that is built to a process that may measure it.

        Raises:
            EnvironmentFailure: The exchange is out of reach.
        """
        record = replace(record, machines={**record.machines, "built": hostname()})
        digest = self._records.write(record, trial.number, model=model, with_files=True)
        self._announce(trial, BUILT, digest)
        self._run.drop(record.id)

    def _publish(self, candidate: CandidateResult, trial: optuna.Trial, *, with_files: bool) -> bool:
        """Write and announce a final record; return True if the trial is still this process's."""
        digest = self._records.write(candidate, trial.number, device_class=self.device_class, with_files=with_files)
        return self._announce(trial, KEPT, digest)

    def _announce(self, trial: optuna.Trial, attribute: str, digest: str) -> bool:
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if all(t.number != trial.number or t.user_attrs.get(OWNER) != self.token for t in running):
            return False
        try:
            trial.set_user_attr(attribute, digest)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True

    def _on_beat(self, attributes: dict[str, Any]) -> None:  # noqa: B027 only workers react to the leader
        """React to the study's attributes after a heartbeat, in a thread of its own."""

    def _refresh(self) -> ClaimTable:
        """Return the trials of the study as they are now, and record heartbeats and the manifest."""
        attributes = self._study.user_attrs
        self._monitor.record(attributes)
        self._manifest = read_manifest(attributes, self._study.study_name) or self._manifest
        return ClaimTable.of(self._study)

    def _dead(self, trial: FrozenTrial) -> bool:
        """Return True if no process works on a trial any more. One without an owner is watched under its number."""
        owner = trial.user_attrs.get(OWNER)
        if owner == self.token or BUILT in trial.user_attrs:
            return False
        if owner is None:
            owner = f"of trial {trial.number}"
        else:
            self._monitor.record(self._study.user_attrs)
        return not self._monitor.alive(owner)

    def _absorb(self, trial: FrozenTrial) -> bool:
        """Take over the record of a candidate of another process; return False if it is not available yet."""
        try:
            self._take(trial)
        except Missing:
            self._missing_since.setdefault(trial.number, time.monotonic())
            return False
        self._missing_since.pop(trial.number, None)
        return True

    def _missing_too_long(self, trial: FrozenTrial) -> bool:
        return time.monotonic() - self._missing_since.setdefault(trial.number, time.monotonic()) > MISSING_S

    @abstractmethod
    def _take(self, trial: FrozenTrial) -> None:
        """Put a candidate of another process into the archive.

        Raises:
            Missing: Its record or its files are missing or damaged.
        """

    def _absorb_all(self, table: ClaimTable) -> None:
        for trial in table.finished():
            if trial.user_attrs[CANDIDATE] not in self._archive.known:
                self._absorb(trial)

    def _from_here(self, candidate: CandidateResult) -> CandidateResult:
        """Return the candidate with the names of the machines that built and measured it."""
        machines = {"built": candidate.machines.get("built", hostname())}
        if candidate.latency:
            machines["measured"] = hostname()
        return timed_here(replace(candidate, machines=machines), self.device_class)


def process_token() -> str:
    """Return a name for this process that no other one has, on any machine."""
    return f"{hostname()}-{os.getpid()}-{secrets.token_hex(4)}"


@contextmanager
def participation(participant: Participant | None, storage: str | None) -> Iterator[None]:
    """Leave the study when the body ends, in whatever way.

    Raises:
        EnvironmentFailure: The storage failed.
    """
    if participant is None or storage is None:
        yield
        return
    try:
        with optuna_storage.guarded(storage):
            yield
    finally:
        with suppress(OrchestratorError, *optuna_storage.failures()):
            participant.leave()
