"""This host as a device: each model in a fresh process of its own."""

import os
import sys
from typing import Any

import psutil

from orchestrator.devices import agent
from orchestrator.devices.process import GuardedProcess
from orchestrator.devices.session import AGENT, AgentSession
from orchestrator.plugin.device import Device, Job


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(agent.usable_cores())


class HostDevice(Device):
    """This host."""

    scheme = "host"

    def open(self, job: Job) -> AgentSession:
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "PYTHONHASHSEED": "0"}
        process = GuardedProcess([sys.executable, "-u", str(AGENT)], environment, job.model.parent)
        inputs = {name: str(path) for name, path in job.inputs.items()}
        return AgentSession(job, process, model=str(job.model), inputs=inputs, memory_bytes=job.memory_bytes)

    def environment(self) -> dict[str, Any]:
        return {**agent.facts(), "memory_bytes": psutil.virtual_memory().total}

    def cores(self) -> int:
        return usable_cores()
