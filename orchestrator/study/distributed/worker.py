"""A worker of a shared study: it proposes, builds and, on a device of the right class, measures candidates."""

import hashlib
import time
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.devices import interrupt
from orchestrator.errors import EnvironmentFailure
from orchestrator.study.candidates.archive import Archive
from orchestrator.study.candidates.device_pool import sleep
from orchestrator.study.distributed.claims import BUILT, KEPT, OWNER, release
from orchestrator.study.distributed.exchange import Exchange
from orchestrator.study.distributed.manifest import Manifest, read_manifest
from orchestrator.study.distributed.participant import NextStep, Participant
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.optuna_study import CANDIDATE
from orchestrator.values.results import CandidateResult

POLL_S = 0.5


class StudyWorker(Participant):
    """One worker. It keeps no models.

    Args:
        builds_only: True if it hands over what it builds: its times could not be compared with the leader's.
        wait_s: Seconds to wait for a leader that is gone.

    Attributes:
        ended: Why the search has ended, or None.
        completed: Number of candidates that it has finished.
    """

    def __init__(
        self,
        run: RunDirectory,
        exchange: Exchange,
        manifest: Manifest,
        *,
        token: str,
        device_class: str,
        builds_only: bool,
        wait_s: float,
    ) -> None:
        super().__init__(run, exchange, token=token, device_class=device_class)
        self._first, self.builds_only, self._wait_s = manifest, builds_only, wait_s
        self._alone_since: float | None = None
        self.ended: str | None = None
        self.completed = 0

    @property
    def salt(self) -> list[int]:
        """Return a number from the token."""
        return [int.from_bytes(hashlib.sha256(self.token.encode()).digest()[:4], "big")]

    def join(self, study: optuna.Study, archive: Archive) -> None:
        """Join the study with the manifest of its discovery."""
        self._join(study, archive, self._first)

    def next_step(self, ended: str | None, *, left_s: float | None, late: bool) -> NextStep:
        """Absorb what other processes have finished, and return the next step."""
        table = self._refresh()
        if self._manifest.over is not None:
            self.ended = self._manifest.over
            return NextStep(ended=self.ended)
        if not self._monitor.alive(self._manifest.leader):
            self._alone_since = self._alone_since or time.monotonic()
            if time.monotonic() - self._alone_since > self._wait_s:
                raise EnvironmentFailure(
                    f"the search on {self._manifest.host} has given no heartbeat for {self._wait_s:.0f} s; what was built here "
                    f"waits for it: continue there with orchestrate resume RUN"
                )
        else:
            self._alone_since = None
            self._absorb_all(table)
            if table.startable(self._manifest.trials, waiting_only=self.exhausted is not None):
                return NextStep()
        sleep(POLL_S)
        return NextStep(wait=True)

    def keep(self, candidate: CandidateResult, trial: optuna.Trial) -> CandidateResult | None:
        """Publish the record and the files of a candidate that was measured here."""
        candidate = self._from_here(candidate)
        published = self._publish(candidate, trial, with_files=candidate.state == "complete")
        self.completed += published
        kept = self._archive.keep(candidate.without_file()) if published else None
        self._run.drop(candidate.id)
        return kept

    def leave(self) -> None:
        """Release what is not finished."""
        if not self._joined:
            return
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            attributes = trial.user_attrs
            if attributes.get(OWNER) == self.token and not {BUILT, KEPT} & attributes.keys():
                release(self._study, trial)
        super().leave()

    def _take(self, trial: FrozenTrial) -> None:
        record = self._records.read(trial.user_attrs[CANDIDATE], trial.number, trial.user_attrs[KEPT])
        self._archive.keep(record.candidate.without_file())

    def _on_beat(self, attributes: dict[str, Any]) -> None:
        manifest = read_manifest(attributes, "")
        if manifest is not None and manifest.over is not None:
            self.ended = manifest.over
            interrupt.request()  # the candidate that is being built here is not needed
