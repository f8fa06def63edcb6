"""Devices and targets: what can be measured, what is simulated, what only estimated, and what would change that."""

import os
import shlex
import shutil
from collections.abc import Iterator

from orchestrator.api.resolve import plan, profile_named, resolve_target
from orchestrator.devices.agent import cpu_model
from orchestrator.diagnosis.findings import Finding, State
from orchestrator.errors import OrchestratorError
from orchestrator.plugin.registry import Registry
from orchestrator.report.profile_text import evidence
from orchestrator.values.profile import HardwareProfile
from orchestrator.values.search import SearchOptions
from orchestrator_devices import known_boards, openssh
from orchestrator_qemu.cpus import CPUS
from orchestrator_qemu.debian import release
from orchestrator_qemu.toolchain import SETUP, Toolchain


def devices() -> Iterator[Finding]:
    """This host, the ssh client, boards that were set up from here, simulated CPUs, what plugins bring."""
    yield Finding(section="devices", name="host", state="ok", text=f"this machine ({cpu_model()})")
    yield _ssh()
    for reference, facts in sorted(known_boards.read().items()):
        text = f"set up {facts.get('set_up', '')}; whether it answers tells: orchestrate devices check {reference}"
        yield Finding(section="devices", name=reference, state="ok", text=text)
    yield _simulated()
    for scheme, device in Registry.discover().devices().items():
        lines = (type(device).__doc__ or "").strip().splitlines()
        yield Finding(section="devices", name=scheme, state="ok", text=lines[0] if lines else "brought by a plugin")


def targets(wanted: str) -> Iterator[Finding]:
    """Every installed target, and the search that was asked about."""
    registry = Registry.discover()
    names = ["host", *sorted(registry.profile_files())]
    for name in names if wanted in names else [*names, wanted]:
        yield _target(name, registry, named=name == wanted)
    command = f"orchestrate search --target {wanted}"
    try:
        request, runtime, _ = plan(SearchOptions(target=wanted), registry)
    except OrchestratorError as error:
        yield Finding(section="targets", name=command, state="broken", text=f"would not run: {error}", needed=True)
        return
    threads = request.target.threads
    text = f"can be planned: {runtime.name}, {threads} thread{'s' * (threads > 1)}, {len(request.methods)} methods"
    yield Finding(section="targets", name=command, state="ok", text=text, needed=True)


def _ssh() -> Finding:
    words = shlex.split(os.environ.get(openssh.VARIABLE) or "ssh")
    program = shutil.which(words[0]) if words else None
    if program is None:
        text, fix = "no ssh client: boards cannot be reached", "apt-get install openssh-client"
        return Finding(section="devices", name="ssh", state="missing", text=text, fix=fix)
    return Finding(section="devices", name="ssh", state="ok", text=f"{program}; boards: orchestrate devices setup {openssh.FORM}")


def _simulated() -> Finding:
    name = "qemu"
    try:
        toolchain = Toolchain.find()
    except OrchestratorError as error:
        return Finding(section="devices", name=name, state="broken", text=str(error).removesuffix(f": {SETUP}"), fix=SETUP)
    if toolchain is not None:
        versions = ", ".join(f"{package} {number}" for package, number in sorted(toolchain.packages.items()))
        text = f"simulates {', '.join(CPUS)} with qemu {toolchain.qemu_version}: {versions}"
        return Finding(section="devices", name=name, state="ok", text=text)
    try:
        release()
    except OrchestratorError as error:
        return Finding(section="devices", name=name, state="missing", text=f"no simulated CPUs: {error}")
    text = "no simulated CPUs: boards that are not here are only estimated"
    if shutil.which("gcc") is None:
        return Finding(
            section="devices", name=name, state="missing", text=text, fix=f"apt-get install gcc libc6-dev, then: {SETUP}"
        )
    return Finding(section="devices", name=name, state="missing", text=text, fix=SETUP)


def _target(name: str, registry: Registry, *, named: bool) -> Finding:
    def found(state: State, text: str, fix: str = "") -> Finding:
        return Finding(section="targets", name=name, state=state, text=text, fix=fix, needed=named)

    try:
        profile = profile_named(name, registry)
    except OrchestratorError as error:
        return found("broken", str(error), f"orchestrate profiles check {name}" if name.endswith(".toml") else "")
    try:
        target, runtime, _ = resolve_target(profile, registry)
    except OrchestratorError as error:
        return found("missing", str(error), _board(profile))
    if target.is_device:
        where = "here" if profile.device == "host" else f"on {profile.device}"
        return found("ok", f"measured {where} in {runtime.name} ({profile.title})")
    if target.simulator is not None:
        return found("ok", f"simulated, {target.simulator}; measured with --device {openssh.FORM} ({profile.title})")
    constants = profile.simulation(runtime.name)
    if constants is not None:
        text = f"only estimated, though it could be simulated ({profile.title}; {evidence(profile)})"
        return found("warning", text, SETUP)
    return found("warning", f"only estimated ({profile.title}; {evidence(profile)})", _board(profile))


def _board(profile: HardwareProfile) -> str:
    return f"with the board at hand: orchestrate search --target {profile.name} --device {openssh.FORM}"
