"""The contract of a session: one model that is loaded on a device."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from orchestrator.values.device import DeviceState


class Session(ABC):
    """A loaded model in a process of its own on a device. A context manager; leaving it ends the process.

    Every call raises `JobFailed` if the process raises, crashes, hangs or exceeds its memory limit, and `DeviceUnavailable` if
    the device itself is lost.
    """

    @abstractmethod
    def time(self, *, seconds: float, runs: int, inner: int = 1) -> list[tuple[float, float, float]]:
        """Time inferences of batch size 1, for `seconds` or `runs`, whichever ends first (at least one sample).

        Args:
            seconds: Duration after which no further sample is begun.
            runs: Largest number of samples.
            inner: Inferences of one sample, for models that are too fast for the device's timer.

        Returns:
            For each sample, one inference's share: (wall seconds, CPU seconds of the calling thread, of the whole process).
        """

    def timer_resolution(self) -> float:
        """Return the smallest step of the timer that `time` reads, in seconds."""
        return 1e-6

    def state(self) -> DeviceState | None:
        """Return the device's current counters, or None if it has none."""
        return None

    def cores(self) -> tuple[int, ...]:
        """Return the cores that this session's inferences are pinned to; empty if they are not pinned."""
        return ()

    @abstractmethod
    def predict(self, folder: Path, *, batch: int) -> list[Path]:
        """Run all examples, `batch` at a time, and return the .npy file of each output (first axis the examples)."""

    @abstractmethod
    def peak_memory_bytes(self) -> int:
        """Return the peak resident memory so far, above that of the process just before it loaded the model."""

    @abstractmethod
    def close(self) -> None:
        """End the process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
