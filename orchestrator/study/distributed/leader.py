"""The leader of a shared study: the process of `orchestrate search` or `resume`, which keeps all candidates."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from orchestrator.errors import InputError
from orchestrator.study.candidates.archive import ELSEWHERE, PHASES, Archive
from orchestrator.study.candidates.context import RunContext
from orchestrator.study.candidates.device_pool import sleep
from orchestrator.study.candidates.evaluator import DEVICE
from orchestrator.study.distributed.claims import BUILT, KEPT, OWNER, ClaimTable, release
from orchestrator.study.distributed.compatibility import BASELINE, STATE
from orchestrator.study.distributed.device_class import TimingLock, device_class, hostname
from orchestrator.study.distributed.exchange import Exchange, Missing
from orchestrator.study.distributed.manifest import Manifest, code_digests, read_manifest, write_manifest
from orchestrator.study.distributed.participant import Handover, NextStep, Participant, process_token
from orchestrator.study.distributed.records import SharedRecord
from orchestrator.study.run import optuna_study
from orchestrator.study.run.directory import CANDIDATE_RECORD, RunDirectory
from orchestrator.study.run.events import SearchEvents
from orchestrator.study.run.optuna_study import CANDIDATE
from orchestrator.study.run.request import RUN_STATE, RunState
from orchestrator.values.distribution import installed_version
from orchestrator.values.evidence import Evidence
from orchestrator.values.results import CandidateResult

FOLDER = "shared"
"""Exchange in the run directory, if the user names none."""
POLL_S = 0.3
LEAST_LEFT_S = 1.0


class Leader(Participant):
    """The process that began the search, or resumed it.

    Args:
        files: Digests of the user's own functions.
        finished: Called with each candidate that another process has finished.
        lock: Keeps other processes of this machine from measuring.
    """

    leads = True

    def __init__(
        self,
        run: RunDirectory,
        exchange: Exchange,
        state: RunState,
        *,
        token: str,
        device_class: str,
        files: dict[str, str],
        events: SearchEvents,
        finished: Callable[[CandidateResult], None],
        lock: TimingLock,
    ) -> None:
        super().__init__(run, exchange, token=token, device_class=device_class)
        self._finished, self._lock = finished, lock
        self._state, self._files, self._events = state, files, events
        self._alone = lock.acquire()  # the leader measures in any case: workers of this machine do not from now on

    def join(self, study: optuna.Study, archive: Archive) -> None:
        """Publish the search, and settle what an earlier leader has left.

        Raises:
            InputError: An earlier leader was a machine of another class, or the exchange cannot be written.
        """
        before = read_manifest(study.user_attrs, study.study_name)
        measured = archive.front.measured_on_target
        if before is not None and measured and before.device_class != self.device_class:
            raise InputError(
                f"the run was begun on a machine of another class ({before.device_class}), and this one's times "
                f"({self.device_class}) cannot be compared with those: resume it there, or begin a new run"
            )
        self._exchange.check()
        request = self._state.request
        options = replace(request.options, storage=None)  # readers have the storage already, and it may hold a password
        state = replace(self._state, request=replace(request, options=options))
        manifest = Manifest(
            version=installed_version(),
            artifacts=self._exchange.url,
            state=self._exchange.write(STATE, RUN_STATE.dump_json(state)),
            baseline=self._exchange.write(BASELINE, CANDIDATE_RECORD.dump_json(archive.baseline)),
            device_class=self.device_class,
            leader=self.token,
            host=hostname(),
            trials=request.budget.trials,
            grace_s=request.options.worker_timeout_s,
            files=self._files,
        )
        self._join(study, archive, manifest)
        if not self._alone:
            self._events.notes(
                "a worker on this machine measures too, as before the run was resumed: started again, it only builds"
            )
        for identifier in self._records.with_files() & archive.known.keys():
            self._records.delete_files(identifier)  # an earlier leader was killed between keeping it and this
        self._settle(ClaimTable.of(study), before.leader if before else None)
        write_manifest(study, manifest)

    def suggest(self, starters: Mapping[str, Mapping[str, Any]]) -> None:
        """Enqueue the first recipes, at most as many as the budget allows: waiting ones count as candidates."""
        for identifier, parameters in list(starters.items())[: self._manifest.trials]:
            self._study.enqueue_trial(dict(parameters), user_attrs={CANDIDATE: identifier}, skip_if_exists=True)

    def next_step(self, ended: str | None, *, left_s: float | None, late: bool) -> NextStep:
        """Absorb and release what other processes have left, and return the next step."""
        self._alone = self._alone or self._lock.acquire()
        table = self._refresh()
        self._absorb_all(table)
        self._release_dead(table)
        if late:
            if left_s is None or left_s < LEAST_LEFT_S or not self._others_active(table, late=True):
                return NextStep(ended=ended)
        else:
            handover = self._handover(table)
            if handover is not None:
                return NextStep(handover=handover)
            ended = ended or self.exhausted
            if table.startable(self._manifest.trials, waiting_only=ended is not None):
                return NextStep()
            if ended is not None and not self._others_active(table):
                return NextStep(ended=ended)
        sleep(POLL_S)
        self._run.spend("waiting", POLL_S)
        return NextStep(wait=True)

    def keep(self, candidate: CandidateResult, trial: optuna.Trial) -> CandidateResult | None:
        """Keep a candidate that was measured here, and publish its record."""
        candidate = self._archive.keep(self._from_here(candidate))
        self._publish(candidate, trial, with_files=False)
        self._records.delete_files(candidate.id)  # of a worker that built it, or died before it announced it
        return candidate

    def end(self, ended: str) -> None:
        """End the search: workers leave, and `resume` continues what they have not finished."""
        write_manifest(self._study, replace(self._manifest, over=ended))
        table = ClaimTable.of(self._study)
        self._absorb_all(table)
        for trial in [*table.running(), *table.undeclared()]:
            if not {BUILT, KEPT} & trial.user_attrs.keys():  # `resume` measures built candidates and absorbs kept ones
                release(self._study, trial)

    def leave(self) -> None:
        """Leave the study, and let other processes of this machine measure."""
        self._lock.release()
        super().leave()

    def _others_active(self, table: ClaimTable, *, late: bool = False) -> bool:
        """Return True if another process runs a trial, or has finished one that is not absorbed yet.

        Args:
            table: The trials as they are now.
            late: True to ignore candidates that would have to be measured here.
        """
        running = [t for t in (*table.running(), *table.undeclared()) if t.user_attrs.get(OWNER) != self.token]
        if late:
            running = [t for t in running if BUILT not in t.user_attrs]
        return bool(running) or any(t.user_attrs[CANDIDATE] not in self._archive.known for t in table.finished())

    def _settle(self, table: ClaimTable, earlier: str | None) -> None:
        """End the trials of an earlier leader: kept candidates get their result, the others are released."""
        for trial in [*table.running(), *table.undeclared()]:
            kept = self._archive.known.get(trial.user_attrs.get(CANDIDATE, ""))
            if kept is not None and kept.trial == trial.number:
                live = optuna.Trial(self._study, trial._trial_id)
                if KEPT not in trial.user_attrs:
                    live.set_user_attr(KEPT, self._records.write(kept, trial.number, device_class=self.device_class))
                self._tell(live, kept)
            elif earlier is not None and trial.user_attrs.get(OWNER) == earlier and BUILT not in trial.user_attrs:
                release(self._study, trial)

        # Nothing is wrong with candidates whose device was lost. Enqueued before they are forgotten: a kill between loses none.
        for candidate in self._archive.candidates:
            if candidate.failure is not None and candidate.failure.step == DEVICE and candidate.trial in table.by_number:
                release(self._study, table.by_number[candidate.trial], lost=True)
                self._archive.forget(candidate.id)

    def _release_dead(self, table: ClaimTable) -> None:
        """Release the trials of dead processes."""
        for trial in [*table.running(), *table.undeclared()]:
            if trial.user_attrs.get(OWNER) == self.token or not self._dead(trial):
                continue
            identifier = trial.user_attrs.get(CANDIDATE)
            # It may have died between its record and telling the study.
            if identifier is not None and KEPT in trial.user_attrs and self._absorb(trial):
                self._tell(optuna.Trial(self._study, trial._trial_id), self._archive.known[identifier])
            elif release(self._study, trial):
                self._events.notes(f"a worker was lost; {identifier or 'its trial'} is given to another")

    def _absorb(self, trial: FrozenTrial) -> bool:
        if super()._absorb(trial):
            return True
        if self._missing_too_long(trial):
            self._repeat(trial, "its record or its files are not in the exchange")
        return False

    def _repeat(self, trial: FrozenTrial, reason: str) -> None:
        self._events.notes(f"{trial.user_attrs[CANDIDATE]} is built again: {reason}")
        release(self._study, trial, lost=True)

    def _take(self, trial: FrozenTrial) -> None:
        identifier = trial.user_attrs[CANDIDATE]
        record = self._records.read(identifier, trial.number, trial.user_attrs[KEPT])
        candidate = record.candidate
        measured = bool(candidate.latency) and candidate.latency[0].evidence == Evidence.MEASURED_ON_TARGET
        if measured and record.device_class != self.device_class:
            raise Missing(identifier)  # a time of another device class is of no use
        candidate = self._archive.keep(_elsewhere(self._with_files(record)))
        self._records.delete_files(identifier)
        self._finished(candidate)
        archive = self._archive
        self._events.candidate(candidate, tried=len(archive.candidates), baseline=archive.baseline, best=archive.recommended)

    def _with_files(self, record: SharedRecord) -> CandidateResult:
        """Return the candidate with its model in this run directory if it is on the front or near it."""
        candidate = record.candidate
        self._records.fetch_samples(record)
        if candidate.artifact is None or candidate.artifact.path is None:
            return candidate
        if not self._archive.contends(candidate):
            return candidate.without_file()
        self._records.fetch(record)
        path = self._records.path_of(record, candidate.artifact.path)
        return replace(candidate, artifact=replace(candidate.artifact, path=str(path.relative_to(self._run.path))))

    def _handover(self, table: ClaimTable) -> Handover | None:
        """Return the oldest candidate that waits to be measured."""
        for trial in sorted(table.running(), key=table.age):
            if BUILT not in trial.user_attrs or trial.user_attrs.get(OWNER) == self.token:
                continue
            identifier = trial.user_attrs[CANDIDATE]
            try:
                record = self._records.read(identifier, trial.number, trial.user_attrs[BUILT], built=True)
                if record.model is None:
                    raise Missing(identifier)
                self._records.fetch(record)
                path = self._records.path_of(record, record.model.path)
            except Missing:
                if self._missing_too_long(trial):
                    self._repeat(trial, "what a worker built is not in the exchange")
                continue
            live = optuna.Trial(self._study, trial._trial_id)
            live.set_user_attr(OWNER, self.token)
            return Handover(trial=live, record=_elsewhere(record.candidate), model=replace(record.model, path=str(path)))
        return None

    def _tell(self, trial: optuna.Trial, candidate: CandidateResult) -> None:
        with suppress(*optuna_study.ENDED):  # its own process may have reported the result meanwhile
            optuna_study.tell(self._study, trial, candidate, self._archive.stopping)


def leader(context: RunContext, state: RunState) -> Leader:
    """Return the leader of a run with a storage.

    Raises:
        InputError: The exchange cannot be used.
        DeviceUnavailable: No device answers within the wait.
    """
    options, run = state.request.options, context.run
    context.pool.gather()
    device = context.pool.available[0].device
    return Leader(
        run,
        Exchange(options.artifacts or str(run.path / FOLDER), state.study),
        state,
        token=process_token(),
        device_class=device_class(device, context.runtime, state.request.target.threads),
        files=code_digests(options.task),
        events=context.events,
        finished=context.registry.trial_finished,
        lock=TimingLock(state.study),
    )


def _elsewhere(candidate: CandidateResult) -> CandidateResult:
    """Return the candidate with its time so far as spent by another process."""
    spent = {ELSEWHERE + phase: candidate.seconds[phase] for phase in PHASES if phase in candidate.seconds}
    return replace(candidate, seconds={**candidate.seconds, **spent})
