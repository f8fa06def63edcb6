"""The contract of a device: where code really runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from orchestrator.errors import EnvironmentFailure, InputError, OrchestratorError
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.evidence import Estimate
from orchestrator.values.profile import HardwareProfile, NumberFormat, SimulationModel
from orchestrator.values.results import Difference, FailureKind


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


class DeviceUnavailable(EnvironmentFailure):
    """The device cannot be reached, or another search holds it. Trying again later may help, and nothing else is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceState:
    """What a device's own counters say at one moment; None: it has no such counter, or it may not be read.

    Attributes:
        at_s: Of a clock that only goes forward.
        busy_s: Core seconds that all processes together have been running since the machine started.
        stolen_s: Core seconds that a hypervisor gave to others.
        cores: Cores that the machine has.
        clock_mhz: Mean of the cores that inferences run on, now.
        temperature_c: Of the hottest sensor.
        throttled: How often the machine has slowed itself down for its temperature or voltage.
        throttling: Whether it does so right now.
        energy_j: What the processor packages have used up (RAPL).
    """

    at_s: float
    busy_s: float | None = None
    stolen_s: float | None = None
    cores: int = 1
    clock_mhz: float | None = None
    temperature_c: float | None = None
    throttled: int | None = None
    throttling: bool | None = None
    energy_j: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One exported model to run on a device, in a fresh process of its own.

    Attributes:
        model: The file that the runtime loads.
        load: The source text of the runtime's `load`.
        imports: Modules of the runtime; what importing them takes does not count as the model's memory.
        inputs: `{input name: path of a .npy file}`, first axis the examples.
        threads: Threads of one inference; the process is kept on as many cores, the fastest, the same ones for every job.
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

    Every call raises `JobFailed` when the process raises, crashes, hangs or outgrows its memory, and `DeviceUnavailable` when
    the device itself is lost.
    """

    @abstractmethod
    def time(self, *, seconds: float, runs: int, inner: int = 1) -> list[tuple[float, float, float]]:
        """Samples of inferences of batch size 1, for `seconds` or `runs`, whichever ends first (at least one sample).

        Args:
            inner: Inferences that make one sample, where one alone is too short for the device's timer.

        Returns:
            For each sample, an inference's share: (wall seconds, CPU seconds of the calling thread, of the whole process).
        """

    def timer_resolution(self) -> float:
        """The smallest step of the timer that `time` reads, seconds."""
        return 1e-6

    def state(self) -> DeviceState | None:
        """The device's counters now; None where it has none."""
        return None

    def cores(self) -> tuple[int, ...]:
        """The cores that this session's inferences are kept on; empty where they are not."""
        return ()

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
        remote: Whether it is another machine: what this one does meanwhile does not disturb its times.
    """

    scheme: ClassVar[str]
    remote: ClassVar[bool] = False

    def attach(self, reference: str) -> "Device":
        """The one device that a reference names ("ssh://pi@board:22"); nothing is connected yet.

        Raises:
            InputError: the reference cannot be read.
        """
        if reference != self.scheme:
            raise InputError(f"device '{self.scheme}' takes no address, but got '{reference}'")
        return self

    def check(self, runtime: Runtime) -> None:  # noqa: B027 a device may have nothing to check
        """Find out at the start whatever would stop a search later, so that nothing asks or surprises in the middle.

        Raises:
            InputError: the device cannot do this as it is; one line says how to fix it.
            DeviceUnavailable: it is out of reach, or in use.
        """

    def release(self) -> None:  # noqa: B027 a device may hold nothing
        """Give back what is held between sessions: connections, locks. May be called twice."""

    @abstractmethod
    def open(self, job: Job) -> Session:
        """Load a model in a fresh process.

        Raises:
            JobFailed: the process could not load it.
            DeviceUnavailable: the device is out of reach, after trying again for a while.
        """

    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """What a reader must know of the machine: CPU, clock, governor, memory, operating system."""

    @abstractmethod
    def cores(self) -> int:
        """Cores that an inference may use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """What executing one model on a simulated CPU gave: the same on any machine, whatever else it does.

    Attributes:
        counts: What was executed, as plain data.
        versions: Of all that the counts depend on: the runtime, the emulator, the CPU's model.
    """

    counts: Mapping[str, Any]
    versions: Mapping[str, str]


class SimulatedDevice(Device):
    """A CPU that is not here. Models run on a model of it, and their time is computed from what was executed.

    A session that it opens runs the model too, for its outputs; the time that this takes means nothing.
    """

    remote = True

    @abstractmethod
    def cpu(self) -> str:
        """The CPU's name, as profiles' `simulations` have it."""

    @abstractmethod
    def board(self) -> str:
        """The profile that stands for the CPU where the user names none."""

    @abstractmethod
    def simulate(self, job: Job, runtime: Runtime) -> Simulated:
        """Count one inference on the first example, in the steady state, with one thread.

        Raises:
            JobFailed: the model cannot be run within the limits.
            EnvironmentFailure: the emulator itself fails.
        """

    @abstractmethod
    def latency(
        self, found: Simulated, constants: SimulationModel, profile: HardwareProfile, *, threads: int, number_format: NumberFormat
    ) -> Estimate:
        """Milliseconds of one inference on the profile's machine, with the band that holds the true value in 90 % of cases."""

    @abstractmethod
    def ratio(self, a: Simulated, b: Simulated, constants: SimulationModel, *, threads: int) -> Difference:
        """A's time over B's, with the band of what their errors do not share; exactly 1 for the same counts."""
