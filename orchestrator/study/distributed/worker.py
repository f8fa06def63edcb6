"""A worker's part in a shared search: it asks, builds and, on a machine of the right class, times; nothing of it has to stay."""

import hashlib
import time
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.devices import interrupt
from orchestrator.errors import EnvironmentFailure
from orchestrator.study.archive import Archive
from orchestrator.study.candidates.device_pool import rest
from orchestrator.study.distributed.claims import BUILT, CANDIDATE, KEPT, OWNER, give_back
from orchestrator.study.distributed.exchange import Exchange
from orchestrator.study.distributed.manifest import Manifest, read_charter
from orchestrator.study.distributed.participant import Participant, Turn
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.results import CandidateResult

POLL_S = 0.5


class StudyWorker(Participant):
    """One worker.

    Args:
        builds_only: Whether it hands over what it has built: its times could not be compared with the leader's.
        wait_s: How long to wait for a leader that is gone.

    Attributes:
        ended: Why the search has ended, where it has.
        made: How many candidates it has finished or handed over.
    """

    def __init__(
        self,
        run: RunDirectory,
        exchange: Exchange,
        charter: Manifest,
        *,
        token: str,
        device_class: str,
        builds_only: bool,
        wait_s: float,
    ) -> None:
        super().__init__(run, exchange, token=token, device_class=device_class)
        self._first, self.builds_only, self._wait_s = charter, builds_only, wait_s
        self._alone_since: float | None = None
        self.ended: str | None = None
        self.made = 0

    @property
    def salt(self) -> list[int]:
        return [int.from_bytes(hashlib.sha256(self.token.encode()).digest()[:4], "big")]

    def join(self, study: optuna.Study, archive: Archive) -> None:
        self._join(study, archive, self._first)

    def turn(self, ended: str | None, *, left_s: float | None, late: bool) -> Turn:
        board = self._look()
        if self._charter.over is not None:
            self.ended = self._charter.over
            return Turn(ended=self.ended)
        if not self._watch.alive(self._charter.leader):
            self._alone_since = self._alone_since or time.monotonic()
            if time.monotonic() - self._alone_since > self._wait_s:
                raise EnvironmentFailure(
                    f"the search on {self._charter.host} has given no sign of life for {self._wait_s:.0f} s; what was made here "
                    f"waits for it: go on there with orchestrate resume RUN"
                )
        else:
            self._alone_since = None
            self._absorb_all(board)
            if board.startable(self._charter.trials, waiting_only=self.exhausted is not None):
                return Turn()
        rest(POLL_S)
        return Turn(wait=True)

    def keep(self, candidate: CandidateResult, trial: optuna.Trial) -> CandidateResult | None:
        candidate = self._here(candidate)
        ours = self._publish(candidate, trial, with_files=candidate.state == "complete")
        self.made += ours
        kept = self._archive.keep(_without_file(candidate)) if ours else None
        self._run.drop(candidate.id)
        return kept

    def leave(self) -> None:
        """Give back what is not finished."""
        if not self._joined:
            return
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            attributes = trial.user_attrs
            if attributes.get(OWNER) == self.token and not {BUILT, KEPT} & attributes.keys():
                give_back(self._study, trial)
        super().leave()

    def _take(self, trial: FrozenTrial) -> None:
        identifier = trial.user_attrs[CANDIDATE]
        record = self._records.read(identifier, trial.number, trial.user_attrs[KEPT])
        self._archive.keep(_without_file(record.candidate))

    def _heard(self, attributes: dict[str, Any]) -> None:
        charter = read_charter(attributes, "")
        if charter is not None and charter.over is not None:
            self.ended = charter.over
            interrupt.request()  # what is being built here is wanted no more


def _without_file(candidate: CandidateResult) -> CandidateResult:
    """A worker keeps no models."""
    artifact = candidate.artifact
    return candidate if artifact is None else replace(candidate, artifact=replace(artifact, path=None))
