"""`orchestrate worker`: take part in a search that another machine leads."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from optuna.storages import BaseStorage
from pydantic import ValidationError

from orchestrator.building.references import absolute
from orchestrator.building.store import store_bytes, store_folder
from orchestrator.building.workshop import Workshop
from orchestrator.devices import interrupt
from orchestrator.devices.host import HostDevice
from orchestrator.errors import InputError, Interrupted, OrchestratorError, PluginError, Refused, SurroundingsError
from orchestrator.planning import MEMORY_SHARE, attach, plugin_versions, simulated_device
from orchestrator.plugin.device import Device, SimulatedDevice
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.searching.engine import Engine, Observer
from orchestrator.searching.fleet import rest
from orchestrator.searching.request import RUN_STATE, RunState, SearchRequest
from orchestrator.searching.run_directory import CANDIDATE, RunDirectory
from orchestrator.searching.sharing.charter import Charter, read_charter
from orchestrator.searching.sharing.exchange import Exchange, Missing
from orchestrator.searching.sharing.guest import Guest
from orchestrator.searching.sharing.machine import OnlyTimer, device_class
from orchestrator.searching.sharing.part import code_digests, token
from orchestrator.searching.storages import absolute as absolute_storage
from orchestrator.searching.storages import masked, open_storage
from orchestrator.values.results import CandidateResult

POLL_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkOptions:
    """`orchestrate worker` as the user said it. See the command's help for each.

    Attributes:
        wait_s: How long to wait for a search to join, and for a leader that is gone.
    """

    storage: str
    study: str | None = None
    artifacts: str | None = None
    model: str | None = None
    data: str | None = None
    metric: str | None = None
    loss: str | None = None
    student: str | None = None
    output: Path | None = None
    device: str | None = None
    wait_s: float = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Worked:
    """What came of it.

    Attributes:
        ended: Why the worker ended.
        candidates: How many it has finished, or built for others to time.
    """

    study: str
    ended: str
    candidates: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Role:
    """What this machine may do.

    Attributes:
        builds_only: Why it may not time candidates; None: it may.
    """

    devices: tuple[Device, ...]
    simulated: SimulatedDevice | None
    device_class: str
    builds_only: str | None


def work(options: WorkOptions, *, observer: Observer = lambda _: None) -> Worked:
    """Build and, where this machine is of the right class, time candidates of a shared search until it is over.

    Raises:
        InputError: there is no such search, or this machine has not the same task, plugins or versions.
        SurroundingsError: the storage or the exchange is lost.
        Interrupted: the user stopped it; what was under way is free for others.
    """
    storage = open_storage(absolute_storage(options.storage))
    with interrupt.heard():
        name, charter = _joinable(storage, options, observer)
        if charter.over is not None:
            return Worked(study=name, ended=charter.over, candidates=0)
        exchange = Exchange(options.artifacts or charter.artifacts, name)
        state = _state(exchange, charter, options)
        with _scratch(options.output) as folder:
            return _serve(name, charter, exchange, state, RunDirectory.create(folder), options, observer)


def _joinable(storage: BaseStorage, options: WorkOptions, observer: Observer) -> tuple[str, Charter]:
    """The search that is meant, as soon as it is there."""
    begin, told = time.monotonic(), False
    while True:
        studies = {study.study_name: study.user_attrs for study in storage.get_all_studies()}
        found = {name: charter for name, attributes in studies.items() if (charter := read_charter(attributes, name))}
        if options.study is not None and options.study in found:
            return options.study, found[options.study]
        running = sorted(name for name, charter in found.items() if charter.over is None)
        where = f"--storage '{masked(options.storage)}'"
        if options.study is None and len(running) == 1:
            return running[0], found[running[0]]
        if options.study is None and running:
            raise InputError(f"{where} holds {len(running)} searches; name one with --study: {', '.join(running)}")
        if time.monotonic() - begin >= options.wait_s:
            wanted = f"no search '{options.study}'" if options.study else "no search that goes on"
            others = f"; it holds {', '.join(running)}" if running else "; begin one with orchestrate search --storage ..."
            raise InputError(f"{where} holds {wanted}{others}")
        if not told:
            _tell(observer, event="phase", what="waiting for a search to begin")
            told = True
        rest(min(POLL_S, options.wait_s))


def _state(exchange: Exchange, charter: Charter, options: WorkOptions) -> RunState:
    """The search as the leader published it, with this machine's own references.

    Raises:
        InputError: the exchange is not the leader's, or another version is installed here.
    """
    if charter.version != version("orchestrator"):
        raise InputError(
            f"the search runs with orchestrate {charter.version}, and here is {version('orchestrator')}: install the same"
        )
    try:
        state: RunState = RUN_STATE.validate_json(exchange.read("state.json", charter.state))
    except Missing:
        raise InputError(
            f"the files of the search are not in '{exchange.url}': it must be a place that all machines see; "
            f"--artifacts says where this machine finds it"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"the search was not begun by this version: {where}: {first['msg']}") from None
    there = state.request
    request = replace(
        there,
        model=_own(options.model) or there.model,
        data=_own(options.data) or there.data,
        metric=_own(options.metric) or there.metric,
        loss=_own(options.loss) or there.loss,
        student=_own(options.student) or there.student,
        folder=str(Path.cwd()),
        storage=absolute_storage(options.storage),
        trials=None,
        timeout_s=None,
        warm_start=(),
        memory_bytes=int(MEMORY_SHARE * psutil.virtual_memory().available),
        store=str(own) if there.store is not None and (own := store_folder(None)) else None,  # this machine's, not the leader's
        store_bytes=store_bytes(),
    )
    return replace(state, request=request)


def _serve(
    name: str,
    charter: Charter,
    exchange: Exchange,
    state: RunState,
    run: RunDirectory,
    options: WorkOptions,
    observer: Observer,
) -> Worked:
    registry = Registry.discover(without=state.request.without_plugins)
    _check_versions(state, registry)
    runtime = registry.runtimes()[state.request.target.runtime]
    _check_files(state.request, charter)
    timer = OnlyTimer(name)
    role = _role(state.request, charter, registry, runtime, options, timer)
    if role.builds_only is not None:
        _tell(observer, event="notes", notes=[f"this worker only builds: {role.builds_only}"])
        target = replace(state.request.target, device=HostDevice.scheme)
    else:
        target = replace(state.request.target, device=options.device or state.request.target.device)
    state = replace(state, request=replace(state.request, target=target))
    started = time.monotonic()
    engine = Engine(
        run, state.request, registry, runtime, role.devices, simulated=role.simulated, started=started, observer=observer
    )
    workshop = engine.workshop(state)
    guest = Guest(
        run,
        exchange,
        charter,
        token=token(),
        device_class=role.device_class,
        builds_only=role.builds_only is not None,
        wait_s=options.wait_s,
    )
    try:
        with closing(engine):
            engine.connect()
            engine.prepare(state, workshop, changed=_changed(name, charter))
            _baseline(engine, state, exchange, charter, run, role, workshop)
            ended = engine.search(state, workshop, sharing=guest).ended
    except Interrupted:
        if guest.ended is None:
            raise Interrupted("interrupted; what was under way here is free for others") from None
        ended = guest.ended
    finally:
        workshop.close()
        timer.release()
    return Worked(study=name, ended=ended, candidates=guest.made)


def _own(reference: str | None) -> str | None:
    return None if reference is None else absolute(reference)


def _changed(name: str, charter: Charter) -> str:
    return (
        f"the model or its data are not those of the search '{name}': copy them from {charter.host}, "
        f"and say with --model and --data where they are here"
    )


def _check_versions(state: RunState, registry: Registry) -> None:
    """Candidates of one search are made by the same code."""
    before, now = state.request.plugins, plugin_versions(registry)
    changed = [f"{name}: {text} there, {now.get(name, 'none')} here" for name, text in before.items() if now.get(name) != text]
    methods = registry.methods()
    for offer in state.offers:
        if offer.refused is None and (offer.method not in methods or methods[offer.method].version != offer.version):
            here = f"version {methods[offer.method].version}" if offer.method in methods else "none"
            changed.append(f"method {offer.method}: version {offer.version} there, {here} here")
    if changed:
        raise PluginError(f"the plugins are not those of the search ({'; '.join(changed)}); install the same")
    name = state.request.target.runtime
    if name not in registry.runtimes():
        raise PluginError(f"the search makes models for {name}, and no plugin brings it here")


def _check_files(request: SearchRequest, charter: Charter) -> None:
    try:
        own = code_digests(request)
    except OSError as error:
        raise InputError(
            f"'{error.filename}' is not here: name this machine's own file with --metric, --loss or --student"
        ) from None
    for name, digest in charter.files.items():
        if own.get(name) != digest:
            raise InputError(f"the file of --{name} is not the one that the search has; copy it from {charter.host}")


def _role(
    request: SearchRequest, charter: Charter, registry: Registry, runtime: Runtime, options: WorkOptions, timer: OnlyTimer
) -> _Role:
    """Whether the times that this machine takes may stand beside the others'.

    Raises:
        InputError: the device that was named cannot be used.
        SurroundingsError: it is out of reach.
    """
    target, host = request.target, HostDevice()
    here: tuple[Device, ...] = (host,)
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
    elif target.device.partition(":")[0] != HostDevice.scheme:
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
    charter: Charter,
    run: RunDirectory,
    role: _Role,
    workshop: Workshop,
) -> None:
    """The original: measured here too, where this machine times; else as the leader found it."""
    try:
        there: CandidateResult = CANDIDATE.validate_json(exchange.read("baseline.json", charter.baseline))
    except (Missing, ValidationError):
        raise SurroundingsError(f"the original's record is not in '{exchange.url}'") from None
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
    """The worker's own run directory: kept where the user names one."""
    if output is not None:
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="orchestrator-worker-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "run"
