"""How a process comes to its part in a shared search, and how it leaves."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from orchestrator.errors import OrchestratorError
from orchestrator.plugin.runtime import Runtime
from orchestrator.study.candidates.device_pool import DevicePool
from orchestrator.study.distributed.compatibility import code_digests
from orchestrator.study.distributed.device_class import OnlyTimer, device_class, hostname
from orchestrator.study.distributed.exchange import Exchange
from orchestrator.study.distributed.leader import Leader
from orchestrator.study.distributed.participant import Participant
from orchestrator.study.request import RunState
from orchestrator.study.run import optuna_storage
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.results import CandidateResult

FOLDER = "shared"
"""In the run directory: the exchange of a search whose user names none."""


def token() -> str:
    """A name for this process that no other one has, on any machine."""
    return f"{hostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def leader(
    run: RunDirectory,
    state: RunState,
    fleet: DevicePool,
    runtime: Runtime,
    *,
    tell: Callable[..., None],
    finished: Callable[[CandidateResult], None],
) -> Leader:
    """The part of the process that `orchestrate search` or `resume` started.

    Raises:
        InputError: the exchange cannot be used.
        DeviceUnavailable: no device is there.
    """
    request = state.request
    fleet.gather()
    return Leader(
        run,
        Exchange(request.options.artifacts or str(run.path / FOLDER), state.study),
        state,
        token=token(),
        device_class=device_class(fleet.present[0].device, runtime, request.target.threads),
        files=code_digests(request),
        grace_s=request.options.worker_timeout_s,
        tell=tell,
        finished=finished,
        timer=OnlyTimer(state.study),
    )


@contextmanager
def taking_part(sharing: Participant | None, storage: str | None) -> Iterator[None]:
    """Leave the search when the body ends, however it does; a storage that is lost becomes one line.

    Raises:
        EnvironmentFailure: the storage failed.
    """
    if sharing is None or storage is None:
        yield
        return
    try:
        with optuna_storage.guarded(storage):
            yield
    finally:
        with suppress(OrchestratorError, *optuna_storage.failures()):
            sharing.leave()
