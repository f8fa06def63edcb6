"""`orchestrate worker`: take part in a search that another machine leads."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from orchestrator.api.resolve import MEMORY_SHARE, attach, plugin_versions, simulated_device
from orchestrator.building.builder_client import BuilderClient
from orchestrator.building.references import absolute
from orchestrator.building.store import store_bytes, store_folder
from orchestrator.devices import interrupt
from orchestrator.errors import InputError, Interrupted, OrchestratorError, Refused
from orchestrator.plugin.device import Device, SimulatedDevice
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.study.distributed.compatibility import check_files, check_plugins, find_study, read_baseline, read_state
from orchestrator.study.distributed.device_class import TimingLock, device_class
from orchestrator.study.distributed.exchange import Exchange
from orchestrator.study.distributed.manifest import Manifest
from orchestrator.study.distributed.participant import process_token
from orchestrator.study.distributed.scratch import scratch
from orchestrator.study.distributed.worker import StudyWorker
from orchestrator.study.engine import Engine, Observer
from orchestrator.study.run import optuna_storage
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.request import RunState, SearchRequest
from orchestrator.values.device import HOST
from orchestrator.values.task import TaskSpec

REFERENCES = ("model", "data", "metric", "loss", "student")
"""Fields of a task that may have another path on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """The options of `orchestrate worker`; its help describes each.

    Attributes:
        task: Paths of the search's task on this machine; None for the leader's.
        wait_s: Seconds to wait for a search to join, and for a leader that is gone.
    """

    storage: str
    study: str | None = None
    artifacts: str | None = None
    task: TaskSpec = field(default_factory=TaskSpec)
    output: Path | None = None
    device: str | None = None
    wait_s: float = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerResult:
    """The result of a worker.

    Attributes:
        ended: Reason why the worker ended.
        candidates: Number of candidates that it finished, or built for others to time.
    """

    study: str
    ended: str
    candidates: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Role:
    """The role of this machine.

    Attributes:
        builds_only: Reason why it may not time candidates, or None.
    """

    devices: tuple[Device, ...]
    simulated: SimulatedDevice | None
    device_class: str
    builds_only: str | None


def run_worker(options: WorkerOptions, *, observer: Observer = lambda _: None) -> WorkerResult:
    """Build and, if this machine is of the leader's class, time candidates of a shared search until it is over.

    Args:
        options: The options.
        observer: Called with a dict for every event.

    Raises:
        InputError: There is no such search, or this machine has another task, other plugins or versions.
        EnvironmentFailure: The storage or the exchange is lost.
        Interrupted: The user interrupted it; its candidates in progress are released.
    """
    storage = optuna_storage.open_storage(optuna_storage.absolute(options.storage))
    with interrupt.heard(), optuna_storage.guarded(options.storage):
        name, charter = find_study(
            storage,
            options.study,
            where=f"--storage '{optuna_storage.masked(options.storage)}'",
            wait_s=options.wait_s,
            waiting=lambda what: _tell(observer, event="phase", what=f"waiting for {what}"),
        )
        if charter.over is not None:
            return WorkerResult(study=name, ended=charter.over, candidates=0)
        exchange = Exchange(options.artifacts or charter.artifacts, name)
        state = _state(exchange, charter, options)
        with _scratch(options.output) as folder:
            run = RunDirectory.create(folder)
            with run.locked():
                run.clear()  # delete files of another search
                return _serve(name, charter, exchange, state, run, options, observer)


def _state(exchange: Exchange, charter: Manifest, options: WorkerOptions) -> RunState:
    """Return the state of the search as published by the leader, with this machine's own references."""
    state = read_state(exchange, charter)
    request = state.request
    own: dict[str, Any] = {name: absolute(value) for name in REFERENCES if (value := getattr(options.task, name)) is not None}
    options_here = replace(
        request.options,
        task=replace(request.options.task, **own),
        storage=optuna_storage.absolute(options.storage),
        warm_start=(),
    )
    request = replace(
        request,
        options=options_here,
        budget=replace(request.budget, trials=None, timeout_s=None),
        memory_bytes=int(MEMORY_SHARE * psutil.virtual_memory().available),
        folder=str(Path.cwd()),
        store=str(folder) if request.store is not None and (folder := store_folder(None)) else None,  # this machine's
        store_bytes=store_bytes(),
    )
    return replace(state, request=request)


def _serve(
    name: str,
    charter: Manifest,
    exchange: Exchange,
    state: RunState,
    run: RunDirectory,
    options: WorkerOptions,
    observer: Observer,
) -> WorkerResult:
    registry = Registry.discover(without=state.request.options.without_plugins, strict=False)
    check_plugins(state, registry, plugin_versions(registry))
    runtime = registry.runtimes()[state.request.target.runtime]
    check_files(charter, state.request.options.task)
    timer = TimingLock(name)
    role = _role(state.request, charter, registry, runtime, options, timer)
    if role.builds_only is not None:
        _tell(observer, event="notes", notes=[f"this worker only builds: {role.builds_only}"])
        target = replace(state.request.target, device=HOST)
    else:
        target = replace(state.request.target, device=options.device or state.request.target.device)
    state = replace(state, request=replace(state.request, target=target))
    started = time.monotonic()
    engine = Engine(
        run, state.request, registry, runtime, role.devices, simulated=role.simulated, started=started, observer=observer
    )
    workshop = engine.builder(state)
    guest = StudyWorker(
        run,
        exchange,
        charter,
        token=process_token(),
        device_class=role.device_class,
        builds_only=role.builds_only is not None,
        wait_s=options.wait_s,
    )
    try:
        with closing(engine):
            engine.connect()
            engine.prepare(state, workshop, changed=_changed(name, charter))
            _baseline(engine, state, exchange, charter, run, role, workshop)
            ended = engine.search(state, workshop, participant=guest).ended
    except Interrupted:
        if guest.ended is None:
            raise Interrupted("interrupted; what was under way here is free for others") from None
        ended = guest.ended
    finally:
        workshop.close()
        timer.release()
    return WorkerResult(study=name, ended=ended, candidates=guest.completed)


def _changed(name: str, charter: Manifest) -> str:
    return (
        f"the model or its data are not those of the search '{name}': copy them from {charter.host}, "
        f"and say with --model and --data where they are here"
    )


def _role(
    request: SearchRequest, charter: Manifest, registry: Registry, runtime: Runtime, options: WorkerOptions, timer: TimingLock
) -> _Role:
    """Return whether this machine's times are comparable with the leader's.

    Raises:
        InputError: The requested device cannot be used.
        EnvironmentFailure: The device is unreachable.
    """
    target = request.target
    here = attach(HOST, registry)
    try:
        runtime.version()
    except Refused as reason:
        raise InputError(str(reason)) from None
    if options.device is not None:
        devices = attach(options.device, registry)
        if isinstance(devices[0], SimulatedDevice) or devices[0].scheme != target.device.partition(":")[0]:
            raise InputError(f"--device '{options.device}' is no device like '{target.device}', on which the search times")
        for device in devices:
            device.check(runtime)
    elif target.device.partition(":")[0] != HOST:
        why = f"candidates are timed on {target.device}, which {charter.host} has"
        return _Role(devices=here, simulated=None, device_class="", builds_only=why)
    else:
        devices = here
    own = device_class(devices[0], runtime, target.threads)
    simulated, why_not = None, None
    if target.simulator is not None:
        try:
            simulated = simulated_device(target, registry)
            if simulated is not None:
                simulated.check(runtime)
        except OrchestratorError as error:
            simulated, why_not = None, f"{target.simulator} is not set up here ({error})"
    elif target.is_device and own != charter.device_class:
        why_not = f"its times are of another class ({own}) than those of {charter.host} ({charter.device_class})"
    elif target.is_device and not devices[0].remote and not timer.acquire():
        why_not = "another process on this machine takes times for this search"
    return _Role(devices=here if why_not else devices, simulated=simulated, device_class=own, builds_only=why_not)


def _baseline(
    engine: Engine,
    state: RunState,
    exchange: Exchange,
    charter: Manifest,
    run: RunDirectory,
    role: _Role,
    workshop: BuilderClient,
) -> None:
    """Measure the original here if this machine times, else use the leader's record."""
    there = read_baseline(exchange, charter)
    if role.builds_only is not None:
        artifact = None if there.artifact is None else replace(there.artifact, path=None)
        run.write_candidate(replace(there, artifact=artifact))
    here = engine.baseline(state, workshop)
    if here.quality is None or there.quality is None:
        return
    own, theirs = here.quality.validation, there.quality.validation
    if abs(own.value - theirs.value) > max(theirs.high - theirs.value, theirs.value - theirs.low):
        raise InputError(
            f"the original scores {own.value:.4g} here and {theirs.value:.4g} on {charter.host}: "
            f"what this machine finds cannot stand beside the others"
        )


def _tell(observer: Observer, **event: Any) -> None:
    observer({**event, "elapsed_s": 0.0, "timeout_s": None, "trials": None})


@contextmanager
def _scratch(output: Path | None) -> Iterator[Path]:
    """Yield the worker's own run directory, which is kept only if the user named it."""
    if output is not None:
        yield output
        return
    with scratch() as folder:
        yield folder / "run"
