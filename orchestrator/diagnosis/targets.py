"""Findings on devices and targets: measured, simulated or only estimated, and what would improve that."""

from collections.abc import Iterator

from orchestrator.api.resolve import plan, profile_named, resolve_target
from orchestrator.errors import OrchestratorError
from orchestrator.plugin.device import SimulatedDevice
from orchestrator.plugin.registry import Registry
from orchestrator.report.profile_text import evidence
from orchestrator.values.device import HOST
from orchestrator.values.finding import Finding, FindingState
from orchestrator.values.profile import HardwareProfile
from orchestrator.values.search import SearchOptions


def devices() -> Iterator[Finding]:
    """Examine the devices that plugins contribute."""
    for device in Registry.discover().devices().values():
        yield from device.diagnose()


def targets(wanted: str) -> Iterator[Finding]:
    """Examine every installed target, and the requested search."""
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


def _target(name: str, registry: Registry, *, named: bool) -> Finding:
    def found(state: FindingState, text: str, fix: str = "") -> Finding:
        return Finding(section="targets", name=name, state=state, text=text, fix=fix, needed=named)

    try:
        profile = profile_named(name, registry)
    except OrchestratorError as error:
        return found("broken", str(error), f"orchestrate profiles check {name}" if name.endswith(".toml") else "")
    try:
        target, runtime, _ = resolve_target(profile, registry)
    except OrchestratorError as error:
        return found("missing", str(error), _on_board(profile, registry))
    if target.is_device:
        where = "here" if profile.device == HOST else f"on {profile.device}"
        return found("ok", f"measured {where} in {runtime.name} ({profile.title})")
    if target.simulator is not None:
        return found("ok", f"simulated, {target.simulator}; measured with --device {_forms(registry)} ({profile.title})")
    if profile.simulation(runtime.name) is None:
        return found("warning", f"only estimated ({profile.title}; {evidence(profile)})", _on_board(profile, registry))
    simulators = [device for device in registry.devices().values() if isinstance(device, SimulatedDevice)]
    fixes = [f"orchestrate devices setup {reference}" for device in simulators for reference in device.setup_references()]
    text = f"only estimated, though it could be simulated ({profile.title}; {evidence(profile)})"
    return found("warning", text, " or ".join(fixes))


def _on_board(profile: HardwareProfile, registry: Registry) -> str:
    return f"with the board at hand: orchestrate search --target {profile.name} --device {_forms(registry)}"


def _forms(registry: Registry) -> str:
    """Return the forms of references to boards."""
    boards = (device for device in registry.devices().values() if device.remote and not isinstance(device, SimulatedDevice))
    return " or ".join(device.reference_form() for device in boards)
