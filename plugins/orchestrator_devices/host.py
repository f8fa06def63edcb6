"""This machine as a device: each model in a fresh process of its own."""

import os
import sys
from typing import Any

from orchestrator.plugin import Device, Job
from orchestrator.plugin.processes import AGENT, AgentSession, GuardedProcess, cpu_model, facts, usable_cores


class HostDevice(Device):
    """This machine."""

    scheme = "host"

    def open(self, job: Job) -> AgentSession:
        """Load a model in a fresh process."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "PYTHONHASHSEED": "0"}
        process = GuardedProcess([sys.executable, "-u", str(AGENT)], environment, job.model.parent)
        inputs = {name: str(path) for name, path in job.inputs.items()}
        return AgentSession(job, process, model=str(job.model), inputs=inputs, memory_bytes=job.memory_bytes)

    def environment(self) -> dict[str, Any]:
        """Return facts about this machine."""
        return facts()

    def cores(self) -> int:
        """Return the number of cores that this process may use."""
        return len(usable_cores())

    def references(self) -> list[str]:
        """Return the only reference."""
        return [self.scheme]

    def describe(self) -> str:
        """Return the name of the CPU."""
        return f"this machine ({cpu_model()})"
