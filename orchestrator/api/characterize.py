"""Characterization: measure a machine and write its hardware profile."""

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from orchestrator.api.resolve import attach, profile_named
from orchestrator.devices import interrupt
from orchestrator.errors import EnvironmentFailure, InputError, Refused, unknown
from orchestrator.hardware.probe import describe
from orchestrator.hardware.profile_rules import broken_laws, unused_sources
from orchestrator.hardware.profile_tables import as_tables, as_text
from orchestrator.measuring.characterization.machine import machine_files, memory_bandwidth
from orchestrator.measuring.characterization.machine_values import runtime_support, slug
from orchestrator.measuring.characterization.measure import MachineMeasurement
from orchestrator.measuring.characterization.profile import CharacterizationData, measured_profile
from orchestrator.plugin.device import Device, SimulatedDevice
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.characterization import CharacterizedMachine
from orchestrator.values.files import write_atomic
from orchestrator.values.profile import HardwareProfile
from orchestrator.values.search import with_values

COMMAND = "orchestrate profiles characterize"
MEMORY_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class CharacterizeOptions:
    """The options of `orchestrate profiles characterize`.

    Attributes:
        device: Reference of the machine to measure; "host" for this one.
        threads: Numbers of threads to measure; empty for one, and one a fast core.
        seconds: Budget for measuring. A model is fitted to at least a dozen networks, however short it is.
        name: Name of the profile, or None to derive it from the machine's.
    """

    device: str = "host"
    runtime: str = "onnxruntime"
    threads: tuple[int, ...] = ()
    name: str | None = None
    seconds: float = 200.0
    seed: int = 0
    without_plugins: tuple[str, ...] = ()


def characterize(
    options: CharacterizeOptions | None = None,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
    **values: Any,
) -> CharacterizedMachine:
    """Measure a machine by micro-benchmarks, and fit its latency models to them.

    Args:
        options: The options; or give fields by name: `characterize(device="ssh://pi@board", seconds=120)`.
        output: The .toml file to write, or a folder, in which it gets the profile's name; None writes nothing.
        overwrite: True to replace an existing file.
        progress: Called with a description of each next step.
        **values: Fields of the options.

    Returns:
        The profile, its validation and notes.

    Raises:
        InputError: An option cannot be used, or the runtime cannot run the simplest network on the machine.
        EnvironmentFailure: The device is unreachable or in use, or the file cannot be written.
        Interrupted: The user interrupted it; nothing was written.
    """
    options = with_values(options or CharacterizeOptions(), values)
    begin = time.monotonic()
    if output is not None and not Path(output).is_dir():
        _target(Path(output), "", overwrite=overwrite)
    with _machine(options, progress or _silent) as machine:
        path = None if output is None else _target(Path(output), machine.profile.name, overwrite=overwrite)
        machine.measurement.run()
        profile, checks, notes = measured_profile(machine)
    problems = [message for _, message in (*broken_laws(as_tables(profile)), *unused_sources(as_tables(profile)))]
    if problems:
        raise RuntimeError(f"the measured profile is not valid: {'; '.join(problems)}")
    if left_out := machine.measurement.left_out:
        notes = (*notes, f"{left_out} networks were left out: the budget of {options.seconds:g} s did not reach for them")
    if path is not None:
        _write(path, as_text(profile))
    took = round(time.monotonic() - begin, 1)
    return CharacterizedMachine(profile=profile, checks=checks, notes=notes, seconds=took, path=path)


@contextmanager
def _machine(options: CharacterizeOptions, progress: Callable[[str], None]) -> Iterator[CharacterizationData]:
    """Check the options and yield the described machine; release the device at the end."""
    _check(options)
    registry = Registry.discover(without=options.without_plugins)
    runtime = _runtime(options.runtime, registry)
    device, *more = attach(options.device, registry)
    try:
        if more:
            raise InputError(f"--device '{options.device}' names {len(more) + 1} devices; one is measured")
        if isinstance(device, SimulatedDevice):
            raise InputError(f"--device '{options.device}' is simulated and has no times to measure; name the machine itself")
        with tempfile.TemporaryDirectory() as scratch, interrupt.heard():
            folder = Path(scratch)
            device.check(runtime)
            progress("the machine")
            profile = _described(options, device, runtime, registry, folder / "facts")
            cores = device.cores()
            for threads in options.threads:
                if threads > cores:
                    raise InputError(f"--threads {threads}: the device has {cores} cores")
            memory = profile.memory.size_bytes
            last = max((c for cluster in profile.clusters for c in (cluster.l3_bytes, cluster.l2_bytes) if c), default=None)
            progress("memory bandwidth")
            copied = [
                memory_bandwidth(device, folder / "copy", threads=threads, last_cache_bytes=last, memory_bytes=memory)
                for threads in dict.fromkeys((1, profile.runtimes[0].threads))
            ]
            measurement = MachineMeasurement(
                device,
                runtime,
                threads=options.threads or tuple(dict.fromkeys((1, min(cores, profile.runtimes[0].threads)))),
                options=profile.runtimes[0].options,
                memory_bytes=int(MEMORY_SHARE * (memory if device.remote else psutil.virtual_memory().available)),
                seconds=options.seconds,
                seed=options.seed,
                folder=folder / "networks",
                progress=progress,
            )
            yield CharacterizationData(
                profile=profile,
                measurement=measurement,
                how=_how(options, device, runtime, profile),
                when=datetime.now(UTC).date(),
                bandwidth=max((rate for rate in copied if rate is not None), default=None),
            )
    finally:
        for each in (device, *more):
            each.release()


def _described(
    options: CharacterizeOptions, device: Device, runtime: Runtime, registry: Registry, folder: Path
) -> HardwareProfile:
    """Return the profile that the machine reports, with the runtime to be measured."""
    if device.remote:
        files = machine_files(device, folder)
        facts = device.environment()
        if files is None:
            raise InputError(f"{options.device} does not tell what it is (no /proc and /sys there); write its profile by hand")
        title = str(facts.get("cpu") or options.device)
        profile = describe(files, name="device", fallback_title=title, cores=device.cores())
        if profile.memory.size_bytes <= 1 and facts.get("memory_bytes"):
            profile = replace(profile, memory=replace(profile.memory, size_bytes=int(facts["memory_bytes"])))
    else:
        profile = profile_named("host", registry)
        title = re.sub(r"^this machine \((.*)\)$", r"\1", profile.title)
        profile = replace(profile, title=title)
    known = profile.runtime(runtime.name)
    support = known or runtime_support(
        None, name=runtime.name, threads=profile.runtimes[0].threads, formats=None, multiples={}, source="mlas"
    )
    return replace(
        profile,
        name=options.name or slug(profile.title),
        aliases=(),
        device=options.device,
        runtimes=(support,),
        latency_models=(),
        simulations=(),
    )


def _how(options: CharacterizeOptions, device: Device, runtime: Runtime, profile: HardwareProfile) -> str:
    versions = device.environment().get("versions", {})
    version = next((versions[module] for module in runtime.imports if module in versions), None) or runtime.version()
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    return f"measured by {COMMAND} on {day}, {runtime.name} {version}, on {options.device} ({profile.title})"


def _runtime(name: str, registry: Registry) -> Runtime:
    known = registry.runtimes()
    if name not in known:
        raise InputError(unknown("runtime", name, known))
    try:
        known[name].version()
    except Refused as reason:
        raise InputError(str(reason)) from None
    return known[name]


def _check(options: CharacterizeOptions) -> None:
    if not options.seconds > 0:
        raise InputError(f"--seconds must be more than 0, but got {options.seconds:g}")
    if any(threads < 1 for threads in options.threads):
        raise InputError(f"--threads must be 1 or more, but got {min(options.threads)}")
    if options.name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", options.name):
        raise InputError(f"--name '{options.name}' must be letters, digits, dots and dashes only")
    if options.name is not None and (options.name == "host" or options.name.endswith(".toml")):
        raise InputError(f"--name '{options.name}' cannot name a profile: 'host' is the machine itself, '.toml' marks a path")


def _target(output: Path, name: str, *, overwrite: bool) -> Path:
    """Return the file to write, and fail before the measurement if it cannot be written."""
    path = output / f"{name}.toml" if output.is_dir() else output
    if path.suffix != ".toml":
        raise InputError(f"--output '{output}' must be a .toml file or a folder that is there")
    if not path.parent.is_dir():
        raise InputError(f"--output '{path}': there is no folder '{path.parent}'")
    if path.is_dir() or (path.exists() and not overwrite):
        raise InputError(f"'{path}' is there already; give --force to replace it, or another --output")
    return path


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text)
    except OSError as error:
        raise EnvironmentFailure(f"'{path}' cannot be written: {error.strerror}") from None


def _silent(_: str) -> None:
    """Ignore progress."""
