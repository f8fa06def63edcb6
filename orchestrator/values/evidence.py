"""Evidence of values, and the types of measured and estimated values."""

from dataclasses import dataclass
from enum import StrEnum


class Evidence(StrEnum):
    """The evidence of a latency, the strongest first."""

    MEASURED_ON_TARGET = "measured-on-target"
    SIMULATED = "simulated"
    ESTIMATED = "estimated"
    MEASURED_ON_HOST = "measured-on-host"

    @property
    def is_measured(self) -> bool:
        """Return True for a measured value, with noise; others are computed."""
        return self in (Evidence.MEASURED_ON_TARGET, Evidence.MEASURED_ON_HOST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A measured value.

    Attributes:
        samples: The raw observations in `unit`, in their order.
        low: Low end of the 95 % confidence interval of the median (bootstrap), in `unit`.
        high: High end of the interval.
        disturbed: Reason why the value is unreliable (a busy machine, ...), or None.
    """

    unit: str
    samples: tuple[float, ...]
    median: float
    low: float
    high: float
    p90: float
    p99: float
    disturbed: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A computed value with its error band; never of the same type as a Measurement.

    Attributes:
        low: Low end of the band that contains the true value in about 90 % of cases by the source's own errors, in `unit`.
        high: High end of the band.
        model: The model that computed it, with its version.
        unknown: Parts that the model has no values for, which widen the band.
    """

    unit: str
    value: float
    low: float
    high: float
    model: str
    unknown: tuple[str, ...] = ()
