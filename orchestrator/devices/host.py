"""This host as a device: each model in a fresh process of its own."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

import psutil

from orchestrator.devices.process import GuardedProcess
from orchestrator.plugin.device import Device, Job, Session

AGENT = Path(__file__).with_name("agent.py")


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


class HostSession(Session):
    """A model in a guarded process on this host."""

    def __init__(self, job: Job) -> None:
        self._job = job
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "PYTHONHASHSEED": "0"}
        self._process = GuardedProcess([sys.executable, "-u", str(AGENT)], environment, job.model.parent)
        try:
            self._ask(
                do="load",
                model=str(job.model),
                load=job.load,
                imports=list(job.imports),
                inputs={name: str(path) for name, path in job.inputs.items()},
                threads=job.threads,
                options=dict(job.options),
            )
        except BaseException:
            self._process.kill()
            raise

    def _ask(self, **request: Any) -> dict[str, Any]:
        return self._process.request(request, timeout_s=self._job.timeout_s, memory_bytes=self._job.memory_bytes)

    def time(self, *, seconds: float, runs: int) -> list[tuple[float, float, float]]:
        samples = self._ask(do="time", seconds=seconds, runs=runs)["samples"]
        return [(wall, thread, process) for wall, thread, process in samples]

    def predict(self, folder: Path, *, batch: int) -> list[Path]:
        return [Path(path) for path in self._ask(do="predict", folder=str(folder), batch=batch)["paths"]]

    def peak_memory_bytes(self) -> int:
        return int(self._ask(do="memory")["peak_bytes"])

    def close(self) -> None:
        self._process.kill()


class HostDevice(Device):
    """This host."""

    scheme = "host"

    def open(self, job: Job) -> HostSession:
        return HostSession(job)

    def environment(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "cpu": _cpu_model(),
            "machine": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "cores": usable_cores(),
            "memory_bytes": psutil.virtual_memory().total,
            "load": [round(value, 2) for value in psutil.getloadavg()],
        }
        governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        if governor.is_file():
            facts["governor"] = governor.read_text().strip()
        return facts

    def cores(self) -> int:
        return usable_cores()


def _cpu_model() -> str:
    """The processor's name; on Linux from /proc/cpuinfo, where `platform` has only the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
