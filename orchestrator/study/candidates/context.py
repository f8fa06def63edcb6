"""The context of a run on one target, which its phases share."""

from dataclasses import dataclass

from orchestrator.plugin.device import SimulatedDevice
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.study.candidates.device_pool import DevicePool
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.events import SearchEvents
from orchestrator.study.run.request import SearchRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """A run with its request, its plugins and its devices.

    Attributes:
        simulated: The CPU that replaces a target that is not at hand, or None.
    """

    run: RunDirectory
    request: SearchRequest
    registry: Registry
    runtime: Runtime
    pool: DevicePool
    events: SearchEvents
    simulated: SimulatedDevice | None = None
