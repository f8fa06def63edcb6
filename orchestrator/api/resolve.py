"""Resolve options: names become profiles, runtimes and devices, defaults are filled in."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from orchestrator.building.references import absolute
from orchestrator.building.store import OFF, store_bytes, store_folder
from orchestrator.devices.agent import usable_cores
from orchestrator.errors import InputError, OrchestratorError, PluginError, Refused, unknown
from orchestrator.hardware.probe import described, probe_host
from orchestrator.hardware.profile_file import resolve_profile
from orchestrator.plugin.device import Device, SimulatedDevice
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.plugin.runtime_step import PREFIX
from orchestrator.study.run.presets import load_preset
from orchestrator.study.run.request import SearchRequest
from orchestrator.study.warm_start import read_earlier
from orchestrator.values.device import HOST
from orchestrator.values.profile import HardwareProfile
from orchestrator.values.search import SearchOptions
from orchestrator.values.target import Limits, Target
from orchestrator.values.task import TaskSpec

CANDIDATE_SHARE = 0.25
LEAST_CANDIDATE_S = 30.0
DEFAULT_SEARCH = "quick"
CANDIDATE_S = 3600.0
MEMORY_SHARE = 0.75
LEAST_WORKER_TIMEOUT_S = 2.0


def plan(options: SearchOptions, registry: Registry) -> tuple[SearchRequest, Runtime, tuple[Device, ...]]:
    """Return a complete request, with the runtime and the devices.

    Raises:
        InputError: An unknown name or an impossible combination; nothing has been done yet.
    """
    profile = profile_named(options.target, registry)
    target, runtime, devices = resolve_target(
        profile, registry, runtimes=options.runtimes, device=options.device, threads=options.threads
    )
    if options.search != DEFAULT_SEARCH:  # a plugin that takes the default's name affects only searches that name it
        registry.settle("searches", options.search)
    with _naming_broken(registry):
        preset = load_preset(options.search, registry.search_files())
    if options.budget.trials is not None and options.budget.trials < 1:
        raise InputError(f"--trials must be 1 or more, but got {options.budget.trials}")
    if options.wait_for_device_s < 0:
        raise InputError(f"--wait-for-device must be 0 or more seconds, but got {options.wait_for_device_s:g}")
    target = _with_alternatives(target, options, registry)
    own_quality_limit = options.limits.max_drop is not None or options.limits.min_quality is not None
    own_budget = options.budget.trials is not None or options.budget.timeout_s is not None
    trials = options.budget.trials if own_budget else preset.trials
    timeout_s = options.budget.timeout_s if own_budget else preset.timeout_s
    if trials is None and timeout_s is None:
        raise InputError(f"search '{preset.name}' has no budget: give --trials or --timeout")
    samplers = registry.samplers()
    if preset.sampler not in samplers:
        raise PluginError(f"search '{preset.name}': {unknown('sampler', preset.sampler, samplers)}" + _broken(registry))
    own_search = options.search.endswith(".toml")
    if own_search:  # names in the user's own file count as named by the user
        registry.settle("samplers", preset.sampler)
    methods = registry.methods()
    named = options.methods or (preset.methods if isinstance(preset.methods, tuple) else ())
    for name in (*named, *options.without_methods):
        if name not in methods:
            raise PluginError(unknown("method", name, methods) + _broken(registry))
    registry.settle("methods", *(named if own_search else options.methods))
    for name in options.methods:
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in target.alternatives:
            raise InputError(
                f"--method {name}: {name.removeprefix(PREFIX)} is none of several runtimes that the search tries; name both with "
                f"--runtime {target.runtime} --runtime {name.removeprefix(PREFIX)}"
            )
    if options.task.metric is not None:
        registry.settle("metrics", options.task.metric)
    chosen = named or tuple(name for name, method in methods.items() if method.usual or preset.methods == "all")
    chosen = tuple(dict.fromkeys((*chosen, *(f"{PREFIX}{name}" for name in target.alternatives))))
    chosen = tuple(name for name in chosen if not name.startswith(PREFIX) or name.removeprefix(PREFIX) in target.alternatives)
    if options.task.student is not None and "student" not in set(chosen) - set(options.without_methods):
        raise InputError("--student needs the method 'student', but the search leaves it out; give --method student too")
    task = _task(options.task, registry)
    for path in options.warm_start:
        read_earlier(path)  # fail before anything is loaded
    share = CANDIDATE_S if timeout_s is None else max(LEAST_CANDIDATE_S, CANDIDATE_SHARE * timeout_s)
    resolved = replace(
        options,
        target=_absolute_file(options.target),
        task=task,
        search=_absolute_file(options.search),
        storage=_storage(options),
        artifacts=_artifacts(options),
        store=options.store if options.store in (None, OFF) else str(Path(options.store).resolve()),
        warm_start=tuple(str(Path(path).resolve()) for path in options.warm_start),
    )
    request = SearchRequest(
        options=resolved,
        target=target,
        limits=_with_defaults(options.limits, profile),
        budget=replace(options.budget, trials=trials, timeout_s=timeout_s),
        candidate_timeout_s=preset.candidate_timeout_s or share,
        memory_bytes=preset.memory_bytes or int(MEMORY_SHARE * psutil.virtual_memory().available),
        preset=preset,
        methods=chosen,
        useful_drop=preset.useful_drop_share if not own_quality_limit else None,
        folder=str(Path.cwd()),
        plugins=plugin_versions(registry),
        store=str(store) if (store := store_folder(options.store)) else None,
        store_bytes=store_bytes(),
    )
    return request, runtime, devices


def _absolute_file(name: str) -> str:
    """Return the absolute path of a TOML file; other names are unchanged."""
    return str(Path(name).resolve()) if name.endswith(".toml") else name


def profile_named(reference: str, registry: Registry) -> HardwareProfile:
    """Return the profile of a target's name, alias or file; `host` is probed."""
    registry.settle("hardware_profiles", reference)
    with _naming_broken(registry):
        return resolve_profile(reference, registry.profile_files(), lambda: registry.probe_host() or probe_host())


def resolve_target(
    profile: HardwareProfile,
    registry: Registry,
    *,
    runtimes: Iterable[str] = (),
    device: str | None = None,
    threads: int | None = None,
    searched: bool = True,
) -> tuple[Target, Runtime, tuple[Device, ...]]:
    """Return the profile with a runtime that it lists and that works here, and the devices to time on.

    Args:
        profile: The profile.
        registry: The plugins.
        runtimes: Requested runtimes, the preferred one first; empty for the profile's.
        device: One reference, or several devices of one kind separated by commas; None for the profile's, else this host.
        threads: Threads of one inference, or None for the profile's.
        searched: True if models are searched for the target, which needs more of a profile than timing them.
    """
    runtimes = tuple(runtimes)
    if profile.device == HOST:
        profile = _with_installed(profile, runtimes, registry)
    runtime = _runtime(profile, registry, runtimes)
    reference = device or profile.device or HOST
    devices = attach(reference, registry)
    simulated = devices[0] if isinstance(devices[0], SimulatedDevice) else None
    simulator: str | None
    if simulated is not None:
        profile = _simulated_profile(profile, simulated, runtime.name, registry, searched=searched)
        simulator, reference = reference, HOST  # models run and are scored here, beside the simulated CPU
        devices = attach(reference, registry)
    else:
        simulator = _ready_simulator(profile, runtime, registry) if device is None and searched else None
    scheme = devices[0].scheme
    if devices[0].remote and profile.device == HOST:
        if searched:
            raise InputError(
                f"target '{profile.name}' is this machine, and {reference} another: name its profile with --target "
                f"(orchestrate profiles list)"
            )
        devices[0].check(runtime)
        profile = described(reference, devices[0].environment(), runtime.name)
    support = profile.runtime(runtime.name)
    if threads is not None and threads < 1:
        raise InputError(f"--threads must be 1 or more, but got {threads}")
    if threads is not None and simulator is not None and threads > profile.cores:
        raise InputError(f"--threads {threads}: '{profile.name}' has {profile.cores} cores")
    is_device = scheme != HOST or profile.device == HOST
    if searched and not is_device and simulator is None and not profile.has_latency_model(runtime.name):
        raise InputError(
            f"target '{profile.name}' has no latency model for {runtime.name}, so its latency cannot be estimated here; "
            f"attach the device with --device"
        )
    target = Target(
        profile=profile,
        device=reference,
        is_device=is_device,
        runtime=runtime.name,
        threads=threads or (support.threads if support else len(usable_cores())),
        simulator=simulator,
    )
    return target, runtime, devices


def simulated_device(target: Target, registry: Registry) -> SimulatedDevice | None:
    """Return the simulated CPU that stands in for a target."""
    if target.simulator is None:
        return None
    (device, *_) = attach(target.simulator, registry)
    return device if isinstance(device, SimulatedDevice) else None


def _simulated_profile(
    profile: HardwareProfile, device: SimulatedDevice, runtime: str, registry: Registry, *, searched: bool
) -> HardwareProfile:
    """Return the profile that the simulated CPU represents: the user's target, or the CPU's usual board.

    Raises:
        InputError: there is none, or it says nothing of that CPU.
    """
    if profile.device == HOST:
        if searched:
            raise InputError(
                f"target '{profile.name}' is this machine, and {device.cpu()} another: name a profile, --target {device.board()}"
            )
        profile = profile_named(device.board(), registry)
    if profile.simulation(runtime, device.cpu()) is None:
        known = [f"{s.runtime} on {s.cpu}" for s in profile.simulations]
        raise InputError(
            f"profile '{profile.name}' has no constants for {runtime} on a simulated {device.cpu()}"
            + (f"; it has: {', '.join(known)}" if known else f"; name a board that has, --target {device.board()}")
        )
    return profile


def _ready_simulator(profile: HardwareProfile, runtime: Runtime, registry: Registry) -> str | None:
    """Return the simulated CPU that the profile has constants for, if it is set up on this host."""
    constants = profile.simulation(runtime.name)
    if profile.device is not None or constants is None:
        return None
    for scheme, device in registry.devices().items():
        if not isinstance(device, SimulatedDevice):
            continue
        try:
            reference = f"{scheme}:{constants.cpu}"
            device.attach(reference).check(runtime)
        except OrchestratorError:  # not set up, or for other CPUs: estimates are used
            continue
        return reference
    return None


def attach(reference: str, registry: Registry) -> tuple[Device, ...]:
    """Return the devices that a reference names, without connecting to them.

    Raises:
        InputError: one cannot be read, one stands there twice, or they are not of one kind.
    """
    known = registry.devices()
    names = [name.strip() for name in reference.split(",")]
    schemes = [name.partition(":")[0] for name in names]
    for name, scheme in zip(names, schemes, strict=True):
        if scheme not in known:
            raise InputError(unknown("device", name, known) + _broken(registry))
    registry.settle("devices", *(scheme for scheme in schemes if scheme != HOST))  # no plugin may take this machine away
    if len(set(schemes)) > 1:
        raise InputError(
            f"--device '{reference}' mixes {' and '.join(sorted(set(schemes)))}: several devices must be of one kind"
        )
    if len(set(names)) < len(names):
        raise InputError(f"--device '{reference}' names one device twice")
    return tuple(known[scheme].attach(name) for name, scheme in zip(names, schemes, strict=True))


def plugin_versions(registry: Registry) -> dict[str, str]:
    """Return the usable plugins with their versions."""
    return {p.name: f"{p.package} {p.version}" for p in registry.plugins if not p.error}


def _runtime(profile: HardwareProfile, registry: Registry, requested: tuple[str, ...]) -> Runtime:
    known = registry.runtimes()
    for name in requested:
        if name not in known:
            raise InputError(unknown("runtime", name, known) + _broken(registry))
    registry.settle("runtimes", *requested)
    there = [support.name for support in profile.runtimes]
    listed = [name for name in requested if name in there] or [] if requested else there
    reasons = []
    for name in listed:
        if name not in known:
            reasons.append(f"no plugin brings {name}")
            continue
        try:
            known[name].version()
        except Refused as reason:
            reasons.append(str(reason))
            continue
        return known[name]
    if not listed:
        names = ", ".join(support.name for support in profile.runtimes)
        raise InputError(f"target '{profile.name}' lists the runtimes {names}, but not {', '.join(requested)}")
    raise InputError(f"target '{profile.name}' has no runtime that works here: {'; '.join(reasons)}")


def _with_installed(profile: HardwareProfile, requested: tuple[str, ...], registry: Registry) -> HardwareProfile:
    """Return this machine's profile with the requested runtimes added, because it runs what is installed."""
    listed, known = {support.name for support in profile.runtimes}, registry.runtimes()
    added = [
        replace(profile.runtimes[0], name=name, channel_multiple={}, options={}, source="named")
        for name in requested
        if name in known and name not in listed
    ]
    if not added:
        return profile
    source = "a runtime that the user named; what it runs well is taken to be what the first runtime does"
    return replace(profile, runtimes=(*profile.runtimes, *added), sources={**profile.sources, "named": source})


def _with_alternatives(target: Target, options: SearchOptions, registry: Registry) -> Target:
    """Return the target with the other requested runtimes: all are tried, the first one times the original.

    Raises:
        InputError: One of them cannot be tried beside the first.
    """
    others = tuple(name for name in dict.fromkeys(options.runtimes) if name != target.runtime)
    if not others:
        return target
    if target.device != HOST or not target.is_device or options.storage is not None:
        raise InputError(
            f"several runtimes in one search are timed on this machine alone (--target host, no --storage), and the target is "
            f"'{target.profile.name}'; name one with --runtime"
        )
    for name in (target.runtime, *others):
        runtime = registry.runtimes()[name]
        if target.profile.runtime(name) is None:
            listed = ", ".join(support.name for support in target.profile.runtimes)
            raise InputError(f"target '{target.profile.name}' lists the runtimes {listed}, but not {name}")
        if runtime.suffix != ".onnx" or type(runtime).convert is not Runtime.convert:
            raise InputError(
                f"runtime {name} runs files of its own, not those that the others run, and can only be searched for alone: "
                f"--runtime {name}"
            )
        try:
            runtime.version()
        except Refused as reason:
            raise InputError(str(reason)) from None
    return replace(target, alternatives=others)


def _task(task: TaskSpec, registry: Registry) -> TaskSpec:
    """Return the task with the default filled in and absolute references.

    Raises:
        InputError: A reference is missing or malformed.
    """
    if task.model is None and task.data is None:
        default = next((source for source in registry.tasks().values() if source.default), None)
        if default is None:
            raise InputError("no plugin brings a default task: give --model and --data")
        name, model, data = default.name, default.model, default.data
    else:
        if task.model is None or task.data is None:
            given, missing = ("--model", "--data") if task.data is None else ("--data", "--model")
            raise InputError(f"{given} needs {missing} beside it")
        _check_reference("--model", task.model, elsewhere=registry.loads_models)
        _check_reference("--data", task.data, elsewhere=False)
        name = task.name or (task.model.rpartition(":")[2] if ":" in task.model else Path(task.model).stem)
        model, data = absolute(task.model), absolute(task.data)
    if task.student is not None:
        if task.student.endswith(".onnx"):
            raise InputError(f"--student '{task.student}' must be a factory of a torch network, which can be trained")
        _check_reference("--student", task.student, elsewhere=registry.loads_models)
    return replace(
        task,
        name=name,
        model=model,
        data=data,
        metric=_absolute(task.metric),
        loss=_absolute(task.loss),
        student=_absolute(task.student),
    )


def _check_reference(option: str, reference: str, *, elsewhere: bool) -> None:
    """Check a reference without running anything; a plugin may understand references of another form."""
    file = {"--model": ".onnx", "--data": ".npz"}.get(option)
    path, colon, name = reference.rpartition(":")
    if file is not None and reference.endswith(file):
        path = reference
    elif elsewhere and not path.endswith(".py"):
        return
    elif not colon or not path or not name:
        others = f" or a {file} file" if file else ""
        raise InputError(f"{option} '{reference}' must be file.py:factory, package.module:factory{others}")
    elif not path.endswith(".py"):
        return
    if not Path(path).is_file():
        raise InputError(f"{option}: there is no file '{path}'")


def _storage(options: SearchOptions) -> str | None:
    if options.storage is None:
        return None
    from orchestrator.study.run.optuna_storage import absolute  # loads Optuna

    return absolute(options.storage)


def _artifacts(options: SearchOptions) -> str | None:
    if options.worker_timeout_s < LEAST_WORKER_TIMEOUT_S:
        raise InputError(
            f"--worker-timeout must be {LEAST_WORKER_TIMEOUT_S:.0f} or more seconds, but got {options.worker_timeout_s:g}"
        )
    if options.artifacts is None:
        return None
    if options.storage is None:
        raise InputError("--artifacts needs --storage beside it: they are for a search that several machines share")
    return options.artifacts if "://" in options.artifacts else str(Path(options.artifacts).resolve())


def _absolute(reference: str | None) -> str | None:
    return reference if reference is None or ":" not in reference else absolute(reference)


def _with_defaults(limits: Limits, profile: HardwareProfile) -> Limits:
    if limits.max_memory_bytes is None and profile.limits is not None:
        return replace(limits, max_memory_bytes=profile.limits.memory_bytes)
    return limits


@contextmanager
def _naming_broken(registry: Registry) -> Iterator[None]:
    """Add the unusable plugins to an error about an unknown name, which one of them may provide."""
    try:
        yield
    except InputError as error:
        if not str(error).startswith("unknown ") or not registry.failed:
            raise
        raise type(error)(f"{error}{_broken(registry)}") from None


def _broken(registry: Registry) -> str:
    """Return the unusable plugins for a message."""
    return "".join(f"; plugin '{p.name}' could not be used: {p.error}" for p in registry.failed)
