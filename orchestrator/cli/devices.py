"""`orchestrate devices`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import document

if TYPE_CHECKING:
    from orchestrator.plugin.device import Device
    from orchestrator.plugin.registry import Registry
    from orchestrator.plugin.runtime import Runtime


@click.group(name="devices")
def command() -> None:
    """List, check, set up and remove the devices that candidates are timed on."""


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
with_runtime = click.option("--runtime", default="onnxruntime", show_default=True, help="The runtime that must run on it.")


@command.command(name="list")
@as_json
def list_devices(as_json: bool) -> None:
    """List this machine, boards that were set up from here, simulated CPUs, and profiles that name a device."""
    import json

    from orchestrator.errors import ProfileError
    from orchestrator.hardware.profile_file import load_profile
    from orchestrator.plugin.registry import Registry

    registry = Registry.discover()
    lines = [line for device in registry.devices().values() for line in device.listing()]
    rows: list[dict[str, Any]] = [{"device": line.reference, "what": line.text, **line.facts} for line in lines]
    files = registry.profile_files()
    for name, path in sorted(files.items()):
        try:
            profile = load_profile(str(path), files)
        except ProfileError:
            continue
        if profile.device is not None:
            rows.append({"device": profile.device, "what": f"device of --target {name} ({profile.title})", "profile": name})
    if as_json:
        document(json.dumps(rows, indent=1))
        return
    width = max((len(row["device"]) for row in rows), default=0)
    for row in rows:
        click.echo(f"{row['device']:<{width}}  {row['what']}")


@command.command(name="check")
@click.argument("reference")
@with_runtime
@as_json
def check(reference: str, runtime: str, as_json: bool) -> None:
    """Check that candidates can be timed on the device REFERENCE, and print its facts."""
    import json

    from orchestrator.api.resolve import attach
    from orchestrator.errors import OrchestratorError
    from orchestrator.plugin.registry import Registry

    registry = Registry.discover()
    (device, *more) = attach(reference, registry)
    if more:
        raise click.UsageError("check takes one device at a time")
    required = _runtime(runtime, registry)
    facts: dict[str, Any] = {}
    problem: OrchestratorError | None = None
    try:
        facts = device.status()
        device.check(required)
        facts = {**facts, **device.environment()}
    except OrchestratorError as error:
        problem = error
    finally:
        device.release()
    if as_json:
        document(
            json.dumps({"device": reference, "facts": facts, "problem": None if problem is None else str(problem)}, indent=1)
        )
    else:
        for label, text in _lines(facts):
            click.echo(f"{label:<12}{text}")
    if problem is not None:
        raise problem
    if not as_json:
        click.echo(f"{reference} can be used with {runtime}")


@command.command(name="setup")
@click.argument("reference")
@with_runtime
@click.option("--version", metavar="X.Y.Z", help="Version of the runtime.  [default: the one that is installed here]")
@click.option("--offline", is_flag=True, help="Copy wheels from here, even if the board has pip and a network.")
def setup(reference: str, runtime: str, version: str | None, offline: bool) -> None:
    """Prepare the board REFERENCE (ssh://[user@]host[:port]): a folder with Python packages and the agent.

    Or, with qemu-aarch64, simulated Arm CPUs on this machine: a folder in your cache, built from your distribution's packages and
    wheels; no root is needed. Run again it is quick, and repairs what is broken.
    """
    from orchestrator.plugin.device import SetupOptions
    from orchestrator.plugin.registry import Registry

    def progress(line: str) -> None:
        click.echo(line, err=True)

    registry = Registry.discover()
    options = SetupOptions(runtime=_runtime(runtime, registry), version=version, offline=offline)
    click.echo(_device(reference, registry).setup(reference, options, progress))


@command.command(name="remove")
@click.argument("reference")
def remove(reference: str) -> None:
    """Delete everything that `setup` and searches have put on the device REFERENCE (for qemu-aarch64, into your cache)."""
    from orchestrator.plugin.registry import Registry

    deleted = _device(reference, Registry.discover()).remove(reference)
    click.echo(f"{reference}: deleted {deleted}" if deleted else f"{reference}: nothing was set up there")


def _device(reference: str, registry: "Registry") -> "Device":
    """Return the device that sets up a reference.

    Raises:
        InputError: No device does.
    """
    from orchestrator.errors import InputError, unknown

    known = registry.devices()
    scheme = next(
        (scheme for scheme, device in known.items() if reference in device.setup_references()), reference.partition(":")[0]
    )
    if scheme not in known:
        raise InputError(unknown("device", reference, known))
    return known[scheme]


def _runtime(name: str, registry: "Registry") -> "Runtime":
    from orchestrator.errors import InputError, unknown

    known = registry.runtimes()
    if name not in known:
        raise InputError(unknown("runtime", name, known))
    return known[name]


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the labelled facts that `check` prints."""
    units: dict[str, tuple[str, Callable[[Any], str]]] = {
        "cores": ("cores", str),
        "cpu": ("cpu", str),
        "machine": ("machine", str),
        "system": ("system", str),
        "governor": ("governor", str),
        "max_clock_mhz": ("max clock", lambda value: f"{value:.0f} MHz"),
        "clock_mhz": ("clock", lambda value: f"{value:.0f} MHz now"),
        "temperature_c": ("temperature", lambda value: f"{value:.1f} °C"),
        "load": ("load", lambda value: ", ".join(str(part) for part in value)),
        "memory_bytes": ("memory", lambda value: f"{value / 1e9:.1f} GB"),
        "free_disk_bytes": ("free disk", lambda value: f"{value / 1e9:.2f} GB"),
        "python": ("python", str),
        "versions": ("packages", lambda value: ", ".join(f"{name} {number}" for name, number in sorted(value.items())) or "none"),
        "folder": ("folder", str),
    }
    lines = [(label, text(facts[name])) for name, (label, text) in units.items() if facts.get(name) is not None]
    if "in_use_by" in facts:
        lines.append(("in use by", facts["in_use_by"] or "nobody"))
    return lines
