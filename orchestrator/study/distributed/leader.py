"""The leader's part in a shared search: the process that `orchestrate search` started. It keeps what all have found."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from orchestrator.errors import InputError
from orchestrator.study.archive import ELSEWHERE, PHASES, Archive
from orchestrator.study.candidates.device_pool import rest
from orchestrator.study.candidates.evaluator import DEVICE
from orchestrator.study.distributed.claims import BUILT, CANDIDATE, KEPT, OWNER, ClaimTable, give_back
from orchestrator.study.distributed.compatibility import BASELINE, STATE
from orchestrator.study.distributed.device_class import OnlyTimer, hostname
from orchestrator.study.distributed.exchange import Exchange, Missing
from orchestrator.study.distributed.manifest import Manifest, read_charter, write_charter
from orchestrator.study.distributed.participant import Handed, Participant, Turn
from orchestrator.study.distributed.records import SharedRecord
from orchestrator.study.remeasurement import MOST_MODELS
from orchestrator.study.request import RUN_STATE, RunState
from orchestrator.study.run import optuna_study as studies
from orchestrator.study.run.directory import CANDIDATE as RECORD
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.distribution import installed_version
from orchestrator.values.evidence import Evidence
from orchestrator.values.results import CandidateResult

POLL_S = 0.3
LEAST_LEFT_S = 1.0


class Leader(Participant):
    """The process that began the search, or goes on with it.

    Args:
        files: Digests of the user's own functions.
        grace_s: After so many seconds without a sign of life a worker is taken for dead.
        tell: Called with the fields of an event.
        finished: Called with each candidate that another process has finished.
        timer: Keeps other processes on this machine from taking times.
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
        grace_s: float,
        tell: Callable[..., None],
        finished: Callable[[CandidateResult], None],
        timer: OnlyTimer,
    ) -> None:
        super().__init__(run, exchange, token=token, device_class=device_class)
        self._finished, self._timer = finished, timer
        self._state, self._files, self._grace_s, self._tell = state, files, grace_s, tell
        self._alone = timer.acquire()  # it takes times in any case: from here on workers on this machine do not

    def join(self, study: optuna.Study, archive: Archive) -> None:
        """Publish the search, and settle what an earlier leader has left.

        Raises:
            InputError: an earlier leader was a machine of another class, or the exchange cannot be written.
        """
        before = read_charter(study.user_attrs, study.study_name)
        measured = archive.standing.measured_on_target
        if before is not None and measured and before.device_class != self.device_class:
            raise InputError(
                f"the run was begun on a machine of another class ({before.device_class}), and this one's times "
                f"({self.device_class}) cannot be compared with those: resume it there, or begin a new run"
            )
        self._exchange.check()
        request = self._state.request  # published without the storage's URL: it may hold a password
        state = replace(self._state, request=replace(request, options=replace(request.options, storage=None)))
        charter = Manifest(
            version=installed_version(),
            artifacts=self._exchange.url,
            state=self._exchange.write(STATE, RUN_STATE.dump_json(state)),
            baseline=self._exchange.write(BASELINE, RECORD.dump_json(archive.baseline)),
            device_class=self.device_class,
            leader=self.token,
            host=hostname(),
            trials=request.budget.trials,
            grace_s=self._grace_s,
            files=self._files,
        )
        self._join(study, archive, charter)
        if not self._alone:
            note = "a worker on this machine takes times too, as before the run went on: started again, it only builds"
            self._tell(event="notes", notes=[note])
        for identifier in self._records.with_files() & archive.known.keys():
            self._records.forget_files(identifier)  # the leader before was killed between keeping it and this
        self._settle(ClaimTable.of(study), before.leader if before else None)
        write_charter(study, charter)

    def suggest(self, starters: Mapping[str, Mapping[str, Any]]) -> None:
        # No more than the budget allows: what waits counts as a candidate.
        for identifier, parameters in list(starters.items())[: self._charter.trials]:
            self._study.enqueue_trial(dict(parameters), user_attrs={CANDIDATE: identifier}, skip_if_exists=True)

    def turn(self, ended: str | None, *, left_s: float | None, late: bool) -> Turn:
        self._alone = self._alone or self._timer.acquire()
        board = self._look()
        self._absorb_all(board)
        self._reap(board)
        if late:
            if left_s is None or left_s < LEAST_LEFT_S or not self._others(board, late=True):
                return Turn(ended=ended)
        else:
            handed = self._handed(board)
            if handed is not None:
                return Turn(handed=handed)
            ended = ended or self.exhausted
            if board.startable(self._charter.trials, waiting_only=ended is not None):
                return Turn()
            if ended is not None and not self._others(board):
                return Turn(ended=ended)
        rest(POLL_S)
        self._run.spend("waiting", POLL_S)
        return Turn(wait=True)

    def keep(self, candidate: CandidateResult, trial: optuna.Trial) -> CandidateResult | None:
        candidate = self._archive.keep(self._here(candidate))
        self._publish(candidate, trial, with_files=False)
        self._records.forget_files(candidate.id)  # a worker may have left some, even one that died before it said so
        return candidate

    def over(self, ended: str) -> None:
        """The search has ended: workers go, and what they have not finished waits for `resume`."""
        write_charter(self._study, replace(self._charter, over=ended))
        board = ClaimTable.of(self._study)
        self._absorb_all(board)
        for trial in [*board.under_way(), *board.undeclared()]:
            if not {BUILT, KEPT} & trial.user_attrs.keys():  # what was built is timed, and what was kept is absorbed, then
                give_back(self._study, trial)

    def leave(self) -> None:
        self._timer.release()
        super().leave()

    def _others(self, board: ClaimTable, *, late: bool = False) -> bool:
        """Whether anybody else has something under way, or has finished what is not absorbed yet.

        Args:
            late: What would have to be timed here is not waited for.
        """
        running = [t for t in (*board.under_way(), *board.undeclared()) if t.user_attrs.get(OWNER) != self.token]
        if late:
            running = [t for t in running if BUILT not in t.user_attrs]
        return bool(running) or any(t.user_attrs[CANDIDATE] not in self._archive.known for t in board.done())

    def _settle(self, board: ClaimTable, earlier: str | None) -> None:
        """What the leader before had under way: told where it was kept, else free for all."""
        for trial in [*board.under_way(), *board.undeclared()]:
            identifier = trial.user_attrs.get(CANDIDATE)
            kept = self._archive.known.get(identifier) if identifier else None
            if kept is not None and kept.trial == trial.number:
                live = optuna.Trial(self._study, trial._trial_id)
                if KEPT not in trial.user_attrs:
                    live.set_user_attr(KEPT, self._records.write(kept, trial.number, device_class=self.device_class))
                self._tell_study(live, kept)
            elif earlier is not None and trial.user_attrs.get(OWNER) == earlier and BUILT not in trial.user_attrs:
                give_back(self._study, trial)

        # Nothing is wrong with candidates whose device was lost. Asked for before they are forgotten: a kill between loses none.
        numbers = {t.number: t for t in board.trials}
        for candidate in self._archive.candidates:
            if candidate.failure is not None and candidate.failure.step == DEVICE and candidate.trial in numbers:
                give_back(self._study, numbers[candidate.trial], lost=True)
                self._archive.forget(candidate.id)

    def _reap(self, board: ClaimTable) -> None:
        """Let others do what a dead process had under way."""
        for trial in [*board.under_way(), *board.undeclared()]:
            if trial.user_attrs.get(OWNER) == self.token or not self._dead(trial):
                continue
            identifier = trial.user_attrs.get(CANDIDATE)
            # It may have died between its record and telling the study.
            if identifier is not None and KEPT in trial.user_attrs and self._absorb(trial):
                self._tell_study(optuna.Trial(self._study, trial._trial_id), self._archive.known[identifier])
            elif give_back(self._study, trial):
                self._tell(event="notes", notes=[f"a worker was lost; {identifier or 'its trial'} is given to another"])

    def _absorb(self, trial: FrozenTrial) -> bool:
        if super()._absorb(trial):
            return True
        if self._given_up(trial):
            self._again(trial, "its record or its files are not in the exchange")
        return False

    def _again(self, trial: FrozenTrial, reason: str) -> None:
        identifier = trial.user_attrs[CANDIDATE]
        self._tell(event="notes", notes=[f"{identifier} is made again: {reason}"])
        give_back(self._study, trial, lost=True)

    def _take(self, trial: FrozenTrial) -> None:
        identifier = trial.user_attrs[CANDIDATE]
        record = self._records.read(identifier, trial.number, trial.user_attrs[KEPT])
        candidate = record.candidate
        measured = bool(candidate.latency) and candidate.latency[0].evidence == Evidence.MEASURED_ON_TARGET.value
        if measured and record.device_class != self.device_class:
            raise Missing(identifier)  # a time of another class is none
        self._archive.keep(_elsewhere(self._with_files(record)))
        self._records.forget_files(identifier)
        self._told_of(identifier)

    def _with_files(self, record: SharedRecord) -> CandidateResult:
        """The candidate with its model in this run directory, where it will be wanted."""
        candidate = record.candidate
        self._records.fetch_samples(record)
        artifact = candidate.artifact
        if artifact is None or artifact.path is None:
            return candidate
        standing = self._archive.standing
        judged = standing.judged(candidate, self._archive.baseline)
        beside = self._archive.standing_of({**self._archive.known, candidate.id: judged})
        wanted = (*beside.front(), *beside.near_misses()[:MOST_MODELS])
        if all(other.id != candidate.id for other in wanted):
            return replace(candidate, artifact=replace(artifact, path=None))
        self._records.fetch(record)
        path = self._records.path_of(record, artifact.path)
        return replace(candidate, artifact=replace(artifact, path=str(path.relative_to(self._run.path))))

    def _handed(self, board: ClaimTable) -> Handed | None:
        """The oldest candidate that waits to be timed."""
        for trial in sorted(board.under_way(), key=board.age):
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
                if self._given_up(trial):
                    self._again(trial, "what a worker built is not in the exchange")
                continue
            live = optuna.Trial(self._study, trial._trial_id)
            live.set_user_attr(OWNER, self.token)
            return Handed(trial=live, record=_elsewhere(record.candidate), model=replace(record.model, path=str(path)))
        return None

    def _tell_study(self, trial: optuna.Trial, candidate: CandidateResult) -> None:
        stopping = self._archive.stopping
        with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):  # it was told by its own process meanwhile
            studies.tell(self._study, trial, stopping.told(candidate), stopping.constraints(candidate))

    def _told_of(self, identifier: str) -> None:
        archive = self._archive
        archive.drop_dominated()
        candidate = archive.known[identifier]
        self._finished(candidate)
        best = archive.known.get(archive.standing.recommendation().id or "")
        tried = len(archive.known) - 1
        self._tell(event="candidate", candidate=candidate, tried=tried, baseline=archive.baseline, best=best)


def _elsewhere(candidate: CandidateResult) -> CandidateResult:
    """The candidate with its time so far as spent by another process."""
    spent = {ELSEWHERE + phase: candidate.seconds[phase] for phase in PHASES if phase in candidate.seconds}
    return replace(candidate, seconds={**candidate.seconds, **spent})
