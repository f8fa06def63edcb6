"""HardwareProfile: a machine described as data. Every table names the source of its values.

Constraints on single values are annotations (annotated-types, which pydantic understands and depends on), because values import
no framework; they are enforced when a profile is loaded from a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

NumberFormat = Literal["float32", "float16", "bfloat16", "int8"]
Int8Scheme = Literal["u8s8", "s8s8", "u8u8"]
MachineKind = Literal["edge", "mobile", "gpu", "laptop", "desktop", "server"]

Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(1)]
Text = Annotated[str, MinLen(1)]

# A misspelt key must not pass for an optional one that was left out; infinite clocks would make every latency zero.
_SCHEMA_RULES: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Cores of one kind.

    Attributes:
        clock_hz: Sustained clock of one core; None: not known.
        isa: Instruction-set features that kernels look for, in the words of Linux ("neon", "asimddp", "avx512_vnni", ...).
        l1d_bytes: One core's first data cache.
        l2_bytes: One second-level cache; `l2_shared_by` cores share it (1: each core has its own).
        l3_bytes: The third-level cache that these cores use, be it shared with other clusters or not.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _SCHEMA_RULES

    name: Text
    cores: Count
    isa: tuple[str, ...]
    source: str
    clock_hz: Positive | None = None
    l1d_bytes: Count | None = None
    l2_bytes: Count | None = None
    l2_shared_by: Count | None = None
    l3_bytes: Count | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Main memory.

    Attributes:
        bandwidth_bytes_per_second: What streaming code was seen to reach, bytes read and bytes written together (STREAM's way of
            counting; a copy moves each byte twice). None: no published measurement was found.
        peak_bytes_per_second: What the memory's clock and width allow, by the data sheet.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _SCHEMA_RULES

    size_bytes: Count
    source: str
    bandwidth_bytes_per_second: Positive | None = None
    peak_bytes_per_second: Positive | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeSupport:
    """What one runtime does on this machine.

    Attributes:
        threads: Threads that an inference uses here.
        formats: Number formats that run and are worth running.
        legal_formats: All number formats that run, `formats` among them; empty: the same.
        int8_schemes: Legal activation-weight pairs, the best first.
        channel_multiple: For each number format, the multiple of channels that the kernels really use.
        cluster: The name of the cluster that it runs on; None: the first.
        options: Session options handed to the runtime as they are.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _SCHEMA_RULES

    name: Text
    threads: Count
    formats: Annotated[tuple[NumberFormat, ...], MinLen(1)]
    source: str
    legal_formats: tuple[NumberFormat, ...] = ()
    int8_schemes: tuple[Int8Scheme, ...] = ()
    cluster: Text | None = None
    channel_multiple: Mapping[NumberFormat, Count] = field(default_factory=dict)
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyModel:
    """Constants of the latency model for one runtime, arithmetic and number of threads on this machine.

    Attributes:
        nanoseconds: Cost of one unit of each feature of an operator (the names and units are those of `hardware.features`).
        error: Half-width of the 90 % band of the milliseconds, as a factor: low = value / error, high = value * error.
        mean_error: Mean relative error of networks that were left out of the fit; None: nothing was there to hold it against.
        fitted_on: What the constants come from, and of which runtime.
        least_macs: Multiply-accumulates of the smallest network of the fit: the band of smaller ones is wider. None: any size.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _SCHEMA_RULES

    runtime: Text
    number_format: NumberFormat
    threads: Count
    nanoseconds: Annotated[Mapping[str, Annotated[float, Ge(0)]], MinLen(1)]
    error: Annotated[float, Ge(1)]
    fitted_on: Text
    source: str
    mean_error: Annotated[float, Ge(0)] | None = None
    least_macs: Count | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationModel:
    """Constants that turn the counts of a simulated execution into milliseconds, for one runtime on this machine.

    Attributes:
        cpu: The simulated CPU that stands in for the cores ("cortex-a72"; the names are those of `orchestrate devices list`).
        cluster: The name of the cluster whose clock the milliseconds are for.
        cycles: Cycles for one cycle of the pipeline model ("pipeline") and for one miss of each cache ("l1_miss", "l2_miss").
        error: For each number format, half-width of the 90 % band of the milliseconds of one thread, as a factor.
        ratio_error: The same for the ratio of two models' times: what their errors do not share.
        thread_speedup: Speed-up for 2, 3, ... threads over one: index 0 stands for two threads.
        thread_error: Half-width of the 90 % band of the speed-up, as a factor.
        fitted_on: What the constants come from, and of which runtime.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _SCHEMA_RULES

    runtime: Text
    cpu: Text
    cluster: Text
    cycles: Mapping[Literal["pipeline", "l1_miss", "l2_miss"], Annotated[float, Ge(0)]]
    error: Annotated[Mapping[NumberFormat, Annotated[float, Ge(1)]], MinLen(1)]
    ratio_error: Annotated[float, Ge(1)]
    thread_speedup: tuple[Positive, ...]
    thread_error: Annotated[float, Ge(1)]
    fitted_on: Text
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultLimits:
    """Limits that hold on this machine unless the user gives others."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _SCHEMA_RULES

    memory_bytes: Count | None = None
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareProfile:
    """A machine: cores, memory, runtimes, fitted models, default limits; `sources` spells out each source's name."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _SCHEMA_RULES

    schema: Literal[1]
    name: Text
    title: Text
    kind: MachineKind
    sources: Mapping[str, str]
    clusters: Annotated[tuple[Cluster, ...], MinLen(1)]
    memory: Memory
    runtimes: Annotated[tuple[RuntimeSupport, ...], MinLen(1)]
    aliases: tuple[str, ...] = ()
    latency_models: tuple[LatencyModel, ...] = ()
    simulations: tuple[SimulationModel, ...] = ()
    limits: DefaultLimits | None = None
    device: str | None = None
    """The device that candidates are timed on when the user names none; None: not attached, so this host."""

    @property
    def cores(self) -> int:
        """Return the number of cores of all clusters."""
        return sum(cluster.cores for cluster in self.clusters)

    def runtime(self, name: str) -> RuntimeSupport | None:
        """Return the support of a runtime, or None."""
        return next((r for r in self.runtimes if r.name == name), None)

    def has_latency_model(self, runtime: str) -> bool:
        """Return True if a latency can be estimated for a runtime."""
        return any(model.runtime == runtime for model in self.latency_models)

    def simulation(self, runtime: str, cpu: str | None = None) -> SimulationModel | None:
        """Return the constants of simulated execution for a runtime, on a simulated CPU or the first one."""
        return next((s for s in self.simulations if s.runtime == runtime and cpu in (None, s.cpu)), None)
