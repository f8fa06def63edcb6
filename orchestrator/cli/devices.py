"""`orchestrate devices`."""

from collections.abc import Callable
from typing import Any

import click

from orchestrator.cli.output import document


@click.group(name="devices")
def command() -> None:
    """List, check, set up and remove the devices that candidates are timed on."""


SIMULATED = "qemu-aarch64"
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
with_runtime = click.option("--runtime", default="onnxruntime", show_default=True, help="What must run on it.")


@command.command(name="list")
@as_json
def list_devices(as_json: bool) -> None:
    """This host, boards that were set up from here, simulated CPUs, what plugins bring, and profiles that name a device."""
    import json

    from orchestrator.api.resolve import all_devices
    from orchestrator.devices.agent import cpu_model
    from orchestrator.errors import ProfileError
    from orchestrator.hardware.profile_file import load_profile
    from orchestrator.plugin.registry import Registry
    from orchestrator_devices import known_boards
    from orchestrator_devices.openssh import FORM

    registry = Registry.discover()
    rows: list[dict[str, Any]] = [{"device": "host", "what": f"this machine ({cpu_model()})"}]
    for reference, facts in sorted(known_boards.read().items()):
        versions = ", ".join(f"{name} {number}" for name, number in sorted(dict(facts.get("versions", {})).items()))
        rows.append({"device": reference, "what": f"board, set up {facts.get('set_up', '')}: {versions}", **facts})
    rows.append({"device": FORM, "what": "any board over ssh, after `orchestrate devices setup`"})
    rows += _simulated_cpus()
    for scheme, device in all_devices(registry).items():
        if scheme not in ("host", "ssh", "qemu"):
            summary = (type(device).__doc__ or "").strip().splitlines()
            rows.append({"device": scheme, "what": summary[0] if summary else ""})
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
    width = max(len(row["device"]) for row in rows)
    for row in rows:
        click.echo(f"{row['device']:<{width}}  {row['what']}")


@command.command(name="check")
@click.argument("reference")
@with_runtime
@as_json
def check(reference: str, runtime: str, as_json: bool) -> None:
    """Find out whether candidates can be timed on the device REFERENCE, and print its facts."""
    import json

    from orchestrator.api.resolve import attach
    from orchestrator.errors import OrchestratorError
    from orchestrator.plugin.registry import Registry
    from orchestrator_devices.ssh import SshDevice

    registry = Registry.discover()
    (device, *more) = attach(reference, registry)
    if more:
        raise click.UsageError("check takes one device at a time")
    needed = _runtime(runtime)
    facts: dict[str, Any] = {}
    problem: OrchestratorError | None = None
    try:
        facts = device.environment()
        if isinstance(device, SshDevice):
            facts["in_use_by"] = device.held_by()
        device.check(needed)
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
@click.option("--version", "wanted", metavar="X.Y.Z", help="Of the runtime; default: the one that is installed here.")
@click.option("--offline", is_flag=True, help="Copy wheels from here, even if the board has pip and a network.")
def setup(reference: str, runtime: str, wanted: str | None, offline: bool) -> None:
    """Prepare the board REFERENCE (ssh://[user@]host[:port]): a folder with Python packages and one small file of ours.

    Or, with qemu-aarch64, simulated Arm CPUs on this machine: a folder in your cache, made of your distribution's packages and
    of wheels; no root is needed. Done again it is quick, and fixes what is broken.
    """
    from orchestrator_devices.board_setup import set_up

    def progress(line: str) -> None:
        click.echo(line, err=True)

    if _is_simulated(reference):
        _set_up_simulated(_runtime(runtime), wanted, offline=offline, progress=progress)
        return
    done = set_up(_board(reference), _runtime(runtime), wanted=wanted, offline=offline, progress=progress)
    versions = ", ".join(f"{name} {number}" for name, number in sorted(done.versions.items()))
    click.echo(f"{reference} {'is set up' if done.changed else 'was set up already'}: {versions}")


@command.command(name="remove")
@click.argument("reference")
def remove(reference: str) -> None:
    """Delete all that `setup` and searches have put on the board REFERENCE (or into your cache for qemu-aarch64)."""
    from orchestrator_devices import board_setup

    if _is_simulated(reference):
        from orchestrator_qemu.provision import remove as remove_simulated

        gone = remove_simulated()
        click.echo(f"{SIMULATED}: deleted {gone}" if gone else f"{SIMULATED}: nothing was set up here")
        return
    folder = board_setup.remove(_board(reference))
    click.echo(f"{reference}: deleted {folder}" if folder else f"{reference}: nothing was set up there")


def _is_simulated(reference: str) -> bool:
    return reference == SIMULATED or reference.partition(":")[0] == "qemu"


def _simulated_cpus() -> list[dict[str, Any]]:
    """What stands in the list for simulated CPUs."""
    from orchestrator.errors import OrchestratorError
    from orchestrator_qemu.cpus import CPUS
    from orchestrator_qemu.toolchain import Toolchain

    try:
        toolchain = Toolchain.find()
    except OrchestratorError as error:
        return [{"device": "qemu:CPU", "what": f"simulated Arm CPU, not usable: {error}"}]
    if toolchain is None:
        return [{"device": "qemu:CPU", "what": f"simulated Arm CPU, after `orchestrate devices setup {SIMULATED}`"}]
    versions = ", ".join(f"{name} {number}" for name, number in sorted(toolchain.packages.items()))
    what = f"simulated CPU, set up with qemu {toolchain.qemu_version}: {versions}"
    return [{"device": f"qemu:{name}", "what": what, "board": cpu.board} for name, cpu in CPUS.items()]


def _set_up_simulated(runtime: Any, wanted: str | None, *, offline: bool, progress: Callable[[str], None]) -> None:
    from orchestrator.errors import InputError
    from orchestrator_qemu.cpus import CPUS
    from orchestrator_qemu.provision import set_up

    if offline:
        raise InputError(f"--offline is for boards: {SIMULATED} is made of packages that are fetched")
    package = runtime.imports[0] if runtime.imports else runtime.name
    toolchain = set_up(runtime_wheels={package: wanted or runtime.version()}, progress=progress)
    versions = ", ".join(f"{name} {number}" for name, number in sorted(toolchain.packages.items()))
    click.echo(f"{SIMULATED} is set up with qemu {toolchain.qemu_version}: {versions}")
    click.echo(f"use it with --device {' or '.join(f'qemu:{name}' for name in CPUS)}, or by a target's name")


def _board(reference: str) -> str:
    from orchestrator.errors import InputError
    from orchestrator_devices.openssh import FORM, Address

    if not reference.startswith("ssh:"):
        raise InputError(f"'{reference}' needs no setting up: only boards do, {FORM}")
    return Address.parse(reference).reference


def _runtime(name: str) -> Any:
    from orchestrator.errors import InputError, unknown
    from orchestrator.plugin.registry import Registry

    known = Registry.discover().runtimes()
    if name not in known:
        raise InputError(unknown("runtime", name, known))
    return known[name]


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What `check` prints, of what is known."""
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
