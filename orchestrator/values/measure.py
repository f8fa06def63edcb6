"""What `measure`, `compare` and `estimate` find, and how it stands in their JSON."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.values.results import Difference, LatencyResult


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelMeasurement:
    """One exported model on one device.

    Attributes:
        digest: SHA-256 of the file.
        macs, parameters: Counted from the exported graph; None where the file is no ONNX.
        peak_memory_bytes: Of a fresh process that loads and runs it, above that of an empty one; None where it was simulated.
        energy_mj: Of the processor packages, for one inference; None where the device has no counter.
        inputs: What it was run on.
        environment: The device: processor, governor, memory, versions.
    """

    model: str
    digest: str
    latency: LatencyResult
    size_bytes: int
    compressed_bytes: int
    macs: int | None
    parameters: int | None
    inputs: str
    environment: dict[str, Any]
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None

    def plain(self) -> dict[str, Any]:
        """One flat object, the latency's keys among the others; no key for energy that nothing counted."""
        found = asdict(self)
        latency = found.pop("latency")
        latency.pop("ratio")
        if self.energy_mj is None:
            del found["energy_mj"]
        return {"model": found.pop("model"), **latency, **found}


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """B beside A on one device.

    Attributes:
        ratio: B's time over A's with its 95 % interval, or the 90 % band where both were simulated; of `basis`.
        verdict: `faster`, `slower`, `same` (within the margin) or `inconclusive`.
        margin: Ratios from 1/(1 + margin) to 1 + margin do not matter.
        basis: Wall time, the CPU time of the one thread where other work took its core away, or simulated execution.
        reason: The verdict in a sentence.
    """

    ratio: Difference
    verdict: Literal["faster", "slower", "same", "inconclusive"]
    margin: float
    basis: Literal["wall", "cpu", "simulated"]
    reason: str
    a: ModelMeasurement
    b: ModelMeasurement

    def plain(self) -> dict[str, Any]:
        """One object: `ratio, low, high, verdict`, and both measurements under `a` and `b`."""
        return {
            "ratio": self.ratio.value,
            "low": self.ratio.low,
            "high": self.ratio.high,
            "verdict": self.verdict,
            "margin": self.margin,
            "basis": self.basis,
            "reason": self.reason,
            "a": self.a.plain(),
            "b": self.b.plain(),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorEstimate:
    """One operator's share of an estimated latency.

    Attributes:
        known: Whether the latency model knows what such an operator costs; where not, `ms` is its memory traffic alone.
    """

    name: str
    op_type: str
    ms: float
    known: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyEstimate:
    """A latency that was computed from the graph and a profile, with the band of its error; nothing was run.

    Attributes:
        low_ms, high_ms: The band that holds the true value in about 90 % of cases, by the profile's own account.
        device: The profile's name.
        by_operator: In topological order; what is fused into another operator or free is left out.
        unknown: The kinds of operator that the model does not know, each once.
        fitted_on: What the constants come from, and of which runtime.
        notes: What else widens the band.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    device: str
    runtime: str
    threads: int
    by_operator: tuple[OperatorEstimate, ...]
    fitted_on: str
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    evidence: Literal["estimated"] = "estimated"

    def plain(self) -> dict[str, Any]:
        """One object for JSON."""
        return asdict(self)
