"""Simulated execution: a target's own runtime, run instruction by instruction on a model of its CPU."""

from orchestrator.plugin import Device, hookimpl
from orchestrator_qemu.device import QemuDevice


@hookimpl
def orchestrator_devices() -> list[Device]:
    """Return the simulated CPUs."""
    return [QemuDevice()]
