"""Results of `measure`, `compare` and `estimate`, and their JSON form."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.values.results import Difference, LatencyResult


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelMeasurement:
    """One exported model on one device.

    Attributes:
        digest: SHA-256 of the file.
        macs: Multiply-accumulates of the exported graph, or None if the file is not ONNX.
        parameters: Parameters of the exported graph, or None.
        peak_memory_bytes: Of a new process that loads and runs it, above that of an empty one; None if simulated.
        energy_mj: Energy of the processor packages for one inference; None without a counter.
        inputs: Description of the inputs.
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
        """Return one flat JSON object with the latency's keys; without a key for energy that was not counted."""
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
        ratio: B's time over A's with its 95 % interval, or the 90 % band if both were simulated; of `basis`.
        verdict: `faster`, `slower`, `same` (within the margin) or `inconclusive`.
        margin: Ratios from 1/(1 + margin) to 1 + margin do not matter.
        basis: Wall time, the CPU time of the one thread if other processes used its core, or simulated execution.
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
        """Return one JSON object: `ratio, low, high, verdict`, and both measurements under `a` and `b`."""
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
        known: True if the latency model knows its cost; otherwise `ms` is its memory traffic alone.
    """

    name: str
    op_type: str
    ms: float
    known: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyEstimate:
    """A latency computed from the graph and a profile, with its error band; nothing was run.

    Attributes:
        low_ms: Low end of the band that contains the true value in about 90 % of cases, by the profile's own errors.
        high_ms: High end of the band.
        device: Name of the profile.
        by_operator: In topological order, without fused and free operators.
        unknown: The kinds of operator that the model does not know, each once.
        fitted_on: Data of the constants' fit, and their runtime.
        notes: Further reasons for a wider band.
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
        """Return the estimate as JSON-ready data."""
        return asdict(self)
