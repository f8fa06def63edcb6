"""A session with the agent (`agent.py`) in a guarded process, on this machine or on a board."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.devices.process import GuardedProcess
from orchestrator.devices.session import Session
from orchestrator.values.device import DeviceState, Job

AGENT = Path(__file__).with_name("agent.py")


class AgentSession(Session):
    """A model in a process that speaks the agent's protocol.

    Args:
        job: The model and how to run it.
        process: The new process of the agent; ended if loading fails.
        model: Path of the model for the agent.
        inputs: Paths of the inputs for the agent, by name.
        memory_bytes: Limit of the local process; None if the model runs elsewhere.
    """

    def __init__(
        self, job: Job, process: GuardedProcess, *, model: str, inputs: Mapping[str, str], memory_bytes: int | None
    ) -> None:
        self._job, self._process, self._memory_bytes = job, process, memory_bytes
        try:
            reply = self._ask(
                do="load",
                model=model,
                load=job.load,
                imports=list(job.imports),
                inputs=dict(inputs),
                threads=job.threads,
                options=dict(job.options),
            )
        except BaseException:
            self._process.kill()
            raise
        self._cores = tuple(reply["cores"])

    def _ask(self, **request: Any) -> dict[str, Any]:
        return self._process.request(request, timeout_s=self._job.timeout_s, memory_bytes=self._memory_bytes)

    def time(self, *, seconds: float, runs: int, inner: int = 1) -> list[tuple[float, float, float]]:
        """Time samples of inferences."""
        samples = self._ask(do="time", seconds=seconds, runs=runs, inner=inner)["samples"]
        return [(wall, thread, process) for wall, thread, process in samples]

    def timer_resolution(self) -> float:
        """Return the smallest step of the timer in seconds."""
        return float(self._ask(do="resolution")["seconds"])

    def state(self) -> DeviceState:
        """Return the device's current counters."""
        return DeviceState(**self._ask(do="state"))

    def cores(self) -> tuple[int, ...]:
        """Return the cores that inferences are pinned to."""
        return self._cores

    def predict(self, folder: Path, *, batch: int) -> list[Path]:
        """Run all examples, and return the file of each output."""
        return [Path(path) for path in self._ask(do="predict", folder=str(folder), batch=batch)["paths"]]

    def peak_memory_bytes(self) -> int:
        """Return the peak resident memory of the model."""
        return int(self._ask(do="memory")["peak_bytes"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
