"""Values that cross the border between the orchestrator and a device: a job, the device's counters, what it has set up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HOST: Final = "host"
"""Reference of this machine, as a device and as a target."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceState:
    """A device's counters at one moment; None where it has no such counter, or it may not be read.

    Attributes:
        at_s: Of a monotonic clock.
        busy_s: Core seconds that all processes together have been running since the machine started.
        stolen_s: Core seconds that a hypervisor gave to other machines.
        cores: Cores of the machine.
        clock_mhz: Current mean of the cores that inferences run on.
        temperature_c: Of the hottest sensor.
        throttled: Number of times that the machine has slowed down for its temperature or voltage.
        throttling: True if it is slowed down right now.
        energy_j: Energy that the processor packages have used (RAPL).
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
        imports: Modules of the runtime; the memory that importing them takes does not count as the model's.
        inputs: `{input name: path of a .npy file}`, first axis the examples.
        threads: Threads of one inference; the process is pinned to as many cores, the fastest, the same ones for every job.
        options: Session options of the runtime.
        timeout_s: The process is killed after so many seconds without an answer.
        memory_bytes: The process is killed when its resident memory exceeds this; None: no limit.
    """

    model: Path
    load: str
    imports: tuple[str, ...]
    inputs: Mapping[str, Path]
    threads: int
    options: Mapping[str, Any]
    timeout_s: float
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """The result of executing one model on a simulated CPU: the same on any machine, whatever else that machine does.

    Attributes:
        counts: What was executed, as plain data.
        versions: Of everything that the counts depend on: the runtime, the emulator, the CPU's model.
    """

    counts: Mapping[str, Any]
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceListing:
    """One line of `orchestrate devices list`.

    Attributes:
        reference: The value for `--device`, or the form of one.
        text: A description in one line.
        facts: Further keys of the JSON output.
    """

    reference: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
