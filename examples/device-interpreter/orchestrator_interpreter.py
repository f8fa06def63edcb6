"""A device: another Python environment of this machine, such as one with another version of the runtime.

`--device interpreter:/opt/new/bin/python` runs every model there. It needs NumPy and the runtime, and nothing of the
orchestrator: the agent is one file.
"""

import json
import os
import subprocess
import sys
from typing import Any

from orchestrator.plugin import Device, DeviceUnavailable, InputError, Job, Runtime, hookimpl
from orchestrator.plugin.processes import AGENT, AgentSession, GuardedProcess

# Facts that identify the device and its packages: measurements are cached under them.
FACTS = r"""
import json, os, platform
from importlib.metadata import distributions
cpu = platform.processor() or platform.machine()
if os.path.exists("/proc/cpuinfo"):
    with open("/proc/cpuinfo") as file:
        cpu = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), cpu)
print(json.dumps({
    "cpu": cpu, "system": platform.platform(), "host": platform.node(), "python": platform.python_version(),
    "cores": os.cpu_count(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    "versions": {found.name: found.version for found in distributions() if found.name},
}))
"""


class Interpreter(Device):
    """A Python interpreter, named by its path."""

    scheme = "interpreter"

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python

    def attach(self, reference: str) -> "Interpreter":
        """Return the interpreter that a reference names."""
        scheme, _, python = reference.partition(":")
        if scheme != self.scheme:
            raise InputError(f"device '{reference}' must be {self.scheme}:/path/to/python")
        return Interpreter(python or sys.executable)

    def check(self, runtime: Runtime) -> None:
        """Import NumPy and the runtime there."""
        missing = self._run(f"import {', '.join(('numpy', *runtime.imports))}")
        if missing.returncode != 0:
            reason = (missing.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"{self._python} cannot run {runtime.name}: {reason}")

    def environment(self) -> dict[str, Any]:
        """Return the facts about the interpreter and its packages."""
        done = self._run(FACTS)
        if done.returncode != 0:
            raise DeviceUnavailable(f"{self._python} does not answer")
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def cores(self) -> int:
        """Return the number of cores that this process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def open(self, job: Job) -> AgentSession:
        """Load a model in a fresh process of that interpreter."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads)}
        process = GuardedProcess([self._python, "-u", str(AGENT)], environment, job.model.parent)
        inputs = {name: str(path) for name, path in job.inputs.items()}
        return AgentSession(job, process, model=str(job.model), inputs=inputs, memory_bytes=job.memory_bytes)

    def reference_form(self) -> str:
        """Return the form of references."""
        return f"{self.scheme}:/path/to/python"

    def _run(self, code: str) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run([self._python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        except OSError as error:
            raise InputError(f"device {self.scheme}:{self._python} cannot be started: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise DeviceUnavailable(f"{self._python} does not answer") from None


@hookimpl
def orchestrator_devices() -> list[Device]:
    """Return the interpreters."""
    return [Interpreter()]
