"""The contract of a device: where code really runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from orchestrator.errors import OrchestratorError
from orchestrator.values.results import FailureKind


class JobFailed(OrchestratorError):
    """A process raised, crashed, hung or outgrew its memory.

    Attributes:
        kind: How it failed; "input" and "surroundings" stand for what is no fault of the candidate.
        step: What it was doing, where that is known.
    """

    def __init__(self, kind: "FailureKind | Literal['input', 'surroundings']", message: str, step: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.step = step


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One exported model to run on a device, in a fresh process of its own.

    Attributes:
        model: The file that the runtime loads.
        load: The source text of the runtime's `load`.
        imports: Modules of the runtime; what importing them takes does not count as the model's memory.
        inputs: `{input name: path of a .npy file}`, first axis the examples.
        threads: Threads of one inference.
        options: Session options of the runtime.
        timeout_s: After so many seconds without an answer the process is killed.
        memory_bytes: The process is killed when its resident memory passes this; None: no limit.
    """

    model: Path
    load: str
    imports: tuple[str, ...]
    inputs: Mapping[str, Path]
    threads: int
    options: Mapping[str, Any]
    timeout_s: float
    memory_bytes: int | None = None


class Session(ABC):
    """A loaded model in a process of its own on a device. A context manager; leaving it ends the process.

    Every call raises `JobFailed` when the process raises, crashes, hangs or outgrows its memory.
    """

    @abstractmethod
    def time(self, *, seconds: float, runs: int) -> list[tuple[float, float, float]]:
        """Inferences of batch size 1, one after the other, for `seconds` or `runs`, whichever ends first (at least one).

        Returns:
            For each inference (wall seconds, CPU seconds of the calling thread, CPU seconds of the whole process).
        """

    @abstractmethod
    def predict(self, folder: Path, *, batch: int) -> list[Path]:
        """Run all examples, `batch` at a time; each output becomes a .npy file, first axis the examples. Returns the paths."""

    @abstractmethod
    def peak_memory_bytes(self) -> int:
        """Peak resident memory so far, above that of the process just before it loaded the model."""

    @abstractmethod
    def close(self) -> None:
        """End the process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Device(ABC):
    """Where candidates are timed and scored.

    Class attributes:
        scheme: What references to it start with ("host", "ssh", "qemu").
    """

    scheme: ClassVar[str]

    @abstractmethod
    def open(self, job: Job) -> Session:
        """Load a model in a fresh process.

        Raises:
            JobFailed: the process could not load it.
            SurroundingsError: the device is out of reach.
        """

    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """What a reader must know of the machine: CPU, clock, governor, memory, operating system."""

    @abstractmethod
    def cores(self) -> int:
        """Cores that an inference may use."""
