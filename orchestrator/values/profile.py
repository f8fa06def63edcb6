"""HardwareProfile: a machine described as data. Every table names the source of its figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NumberFormat = Literal["float32", "float16", "bfloat16", "int8"]
Int8Scheme = Literal["u8s8", "s8s8", "u8u8"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Cores of one kind.

    Attributes:
        clock_hz: Sustained clock of one core.
        isa: Instruction-set features that kernels look for ("neon", "asimddp", "avx512_vnni", ...).
    """

    name: str
    cores: int
    clock_hz: float
    isa: tuple[str, ...]
    source: str
    l1d_bytes: int | None = None
    l2_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Main memory: its size, and the bandwidth that streaming code reaches."""

    size_bytes: int
    bandwidth_bytes_per_second: float
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeSupport:
    """What one runtime does on this machine.

    Attributes:
        threads: Threads that an inference uses here.
        formats: Number formats that run and are worth running.
        int8_schemes: Legal activation-weight pairs, the best first.
        channel_multiple: For each number format, the multiple of channels that the kernels really use.
        options: Session options handed to the runtime as they are.
    """

    name: str
    threads: int
    formats: tuple[NumberFormat, ...]
    source: str
    int8_schemes: tuple[Int8Scheme, ...] = ()
    channel_multiple: Mapping[NumberFormat, int] = field(default_factory=dict)
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """Constants of the roofline latency model (Williams et al. 2009) for one runtime on this machine.

    Attributes:
        macs_per_second: For each number format, multiply-accumulates a second of ONE core in a large dense convolution.
        depthwise_share: The share of that rate which depthwise convolutions reach.
        bytes_per_second: Memory traffic of one inference.
        seconds_per_operator: Fixed cost of one (fused) operator.
        thread_speedup: Speed-up for 2, 3, ... threads over one: index 0 stands for two threads.
        error: Half-width of the 95 % band of the milliseconds, as a factor: low = value / error, high = value * error.
        fitted_on: What the constants come from, and of which runtime.
    """

    runtime: str
    macs_per_second: Mapping[NumberFormat, float]
    depthwise_share: float
    bytes_per_second: float
    seconds_per_operator: float
    thread_speedup: tuple[float, ...]
    error: float
    fitted_on: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultLimits:
    """Limits that hold on this machine unless the user gives others."""

    memory_bytes: int | None = None
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareProfile:
    """A machine: cores, memory, runtimes, cost models, default limits; `sources` spells out each source's name."""

    schema: Literal[1]
    name: str
    title: str
    kind: Literal["edge", "mobile", "gpu", "desktop", "server"]
    sources: Mapping[str, str]
    clusters: tuple[Cluster, ...]
    memory: Memory
    runtimes: tuple[RuntimeSupport, ...]
    aliases: tuple[str, ...] = ()
    cost_models: tuple[CostModel, ...] = ()
    limits: DefaultLimits | None = None
    device: str | None = None
    """The device that candidates are timed on when the user names none; None: not attached, so this host."""

    def runtime(self, name: str) -> RuntimeSupport | None:
        """What this machine says about that runtime."""
        return next((r for r in self.runtimes if r.name == name), None)

    def cost_model(self, runtime: str) -> CostModel | None:
        """The latency model's constants for that runtime."""
        return next((c for c in self.cost_models if c.runtime == runtime), None)
