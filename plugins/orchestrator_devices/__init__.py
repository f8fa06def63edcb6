"""Built-in devices: this machine, and boards over ssh."""

from orchestrator.plugin import Device, hookimpl
from orchestrator_devices.host import HostDevice
from orchestrator_devices.ssh import SshDevice


@hookimpl
def orchestrator_devices() -> list[Device]:
    """Return this machine and the boards."""
    return [HostDevice(), SshDevice()]
